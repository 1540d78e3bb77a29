"""Where the official files of a task lie: which layout of the data folder holds a split, and its paths."""

from __future__ import annotations

from pathlib import Path

from effstilts.tasks.task import Files, SplitName, Task


def read_split(task: Task, split: SplitName) -> SplitName:
    """The split of the source that a split is read from: train, where dev is held out of it."""
    return "train" if split == "dev" and task.holdout else split


def layout(task: Task, split: SplitName, language: str, root: Path | None) -> Files:
    """The layout whose files of this split are there, else the first that declares the split, else the first."""
    assert task.files is not None
    own = read_split(task, split)
    declared = [files for files in (task.files, *task.files.alternatives) if own in files.paths]
    there = (f for f in declared if all(p.is_file() for p in paths(f, own, language, root)))
    return next(there, declared[0] if declared else task.files)


def paths(files: Files, split: SplitName, language: str, root: Path | None) -> list[Path]:
    """The files of a source's split; of a pattern with `*` those that match, or the pattern itself where none does."""
    code = files.language_codes.get(language, language)
    found: list[Path] = []
    for pattern in patterns(files, split):
        path = (root or Path()) / pattern.replace("{lang}", language).replace("{file_lang}", code)
        found += (_matching(path) or [path]) if "*" in pattern else [path]
    return found


def _matching(path: Path) -> list[Path]:
    import glob

    # Only the stars of the pattern are a pattern's; brackets in a folder's name are not.
    text = "*".join(glob.escape(part) for part in str(path).split("*"))
    return [Path(name) for name in sorted(glob.glob(text))]


def patterns(files: Files, split: SplitName) -> tuple[str, ...]:
    declared = files.paths[split]
    return (declared,) if isinstance(declared, str) else declared


def is_absolute(files: Files, split: SplitName) -> bool:
    return all(Path(p).is_absolute() for p in patterns(files, split))


def in_folder(task: Task, split: SplitName, root: Path | None) -> bool:
    """Whether the data folder holds this split of the source in any language."""
    if task.files is None or split not in task.files.paths or root is None:
        return False
    return any(
        path.is_file()
        for files in (task.files, *task.files.alternatives)
        if split in files.paths
        for language in task.languages
        for path in paths(files, split, language, root)
    )


def declares(task: Task, split: SplitName) -> bool:
    """Whether the task says where this split is, there or not."""
    if task.parts:
        return any(declares(part, split) for part in task.parts)
    own = read_split(task, split)
    layouts = (task.files, *task.files.alternatives) if task.files else ()
    return any(own in files.paths for files in layouts) or bool(task.hub and own in task.hub.splits)


def is_trained_on(files: Files) -> bool:
    """Whether the "test" files of other languages are, for the training language, its training file."""
    return "test" in files.paths and files.paths["test"] == files.paths.get("train")
