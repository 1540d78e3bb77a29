/* Preloaded: makes the n-th call that writes below a folder fail, and with ENOSPC every later one.

   fault_arm(n, error, folder) begins to count; n = 0 only counts. fault_count() says how many calls there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static long armed_at, count;
static int error_number;

void fault_arm(long n, int error, const char *folder) {
    armed_at = n;
    error_number = error;
    count = 0;
    strncpy(root, folder, sizeof root - 1);
}

long fault_count(void) { return count; }

static int fails_at(const char *path) {
    if (!root[0] || strncmp(path, root, strlen(root)) != 0) return 0;
    count++;
    if (!armed_at || (error_number == ENOSPC ? count < armed_at : count != armed_at)) return 0;
    errno = error_number;
    return 1;
}

static int fails(int fd) {
    char link[64], path[PATH_MAX];
    if (!root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails_at(path);
}

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

#define BY_FD(result, name, parameters, arguments)                                     \
    result name parameters {                                                           \
        static result(*real) parameters;                                               \
        if (!real) real = (result(*) parameters)next(#name);                           \
        return fails(fd) ? -1 : real arguments;                                        \
    }
BY_FD(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
BY_FD(ssize_t, writev, (int fd, const struct iovec *parts, int n), (fd, parts, n))
BY_FD(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
BY_FD(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
BY_FD(int, fsync, (int fd), (fd))
BY_FD(int, fdatasync, (int fd), (fd))
BY_FD(int, ftruncate, (int fd, off_t size), (fd, size))
BY_FD(int, ftruncate64, (int fd, off64_t size), (fd, size))

int mkdir(const char *path, mode_t mode) {
    static int (*real)(const char *, mode_t);
    if (!real) real = (int (*)(const char *, mode_t))next("mkdir");
    struct stat there;
    return stat(path, &there) != 0 && fails_at(path) ? -1 : real(path, mode);
}

int rename(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) real = (int (*)(const char *, const char *))next("rename");
    return fails_at(to) ? -1 : real(from, to);
}

#define OPENS(name)                                                                    \
    int name(const char *path, int flags, ...) {                                       \
        static int (*real)(const char *, int, ...);                                    \
        if (!real) real = (int (*)(const char *, int, ...))next(#name);                \
        mode_t mode = 0;                                                               \
        if (flags & (O_CREAT | O_TMPFILE)) {                                           \
            va_list rest;                                                              \
            va_start(rest, flags);                                                     \
            mode = va_arg(rest, mode_t);                                               \
            va_end(rest);                                                              \
        }                                                                              \
        return (flags & O_CREAT) && fails_at(path) ? -1 : real(path, flags, mode);     \
    }
OPENS(open)
OPENS(open64)
