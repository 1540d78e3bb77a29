"""`effstilts` and `python -m effstilts`, the command line; the second is what launchers start."""

import io
import sys

from effstilts.errors import INTERRUPTED, say


def run() -> int:
    """The exit code. What an interruption finds is said while the command line is still being imported, too."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Where a terminal's encoding lacks a sign (← of labels), a question mark stands for it.
            stream.reconfigure(errors="replace")
    try:
        from effstilts.cli import main

        return main()
    except KeyboardInterrupt:
        say(INTERRUPTED)
        return 130


if __name__ == "__main__":
    sys.exit(run())
