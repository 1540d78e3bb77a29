"""Every file of EFFSTILTS_DATA that a task of the package names, with the official number of rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from effstilts.data.sources import DataConfig, load
from effstilts.tasks.registry import get, known_tasks

pytestmark = pytest.mark.real

# Rows of a language, all languages alike.
COUNTS = {
    ("xnli", "dev"): 2490, ("pawsx", "dev"): 2000, ("xquad", "test"): 1190, ("copa", "train"): 400,
    ("copa", "dev"): 100, ("copa", "test"): 500, ("xcopa", "dev"): 100, ("xcopa", "test"): 500, ("siqa", "dev"): 1954,
    ("siqa", "test"): 2224, ("commonsenseqa", "train"): 9741, ("commonsenseqa", "dev"): 1221,
    ("cosmosqa", "dev"): 2985, ("hellaswag", "dev"): 10042, ("panx", "train"): 20000,
}  # fmt: skip
# Rows of single languages.
OWN = {
    ("bucc2018", "dev", "zh"): 8624 + 13589,
    ("tatoeba", "test", "sw"): 390,
    ("tydiqa", "test", "sw"): 2755,
    ("tydiqa", "test", "ko"): 1625,
}


def there(folder: Path) -> list[tuple[str, str, str, list[Path]]]:
    """(task, split, language, files) for every declared file that the folder has."""
    found = []
    for name, task in known_tasks().items():
        for files in (task.files, *task.files.alternatives) if task.files else ():
            for split, paths in files.paths.items():
                for language in task.languages if split != "train" else task.languages[:1]:
                    code = files.language_codes.get(language, language)
                    here = [
                        folder / path.replace("{lang}", language).replace("{file_lang}", code)
                        for path in ((paths,) if isinstance(paths, str) else paths)
                    ]
                    if all(path.is_file() for path in here):
                        found.append((name, split, language, here))
    return found


def test_every_file_reads_with_its_official_count(data_folder: Path) -> None:
    config, read, seen = DataConfig(data_folder, source="files"), set(), set()
    for name, split, language, paths in there(data_folder):
        if (name, split, language) == ("tydiqa", "test", "en"):
            continue  # the file that English trains on
        rows = load(get(name), split, language, config).examples  # type: ignore[arg-type]
        expected = OWN.get((name, split, language), COUNTS.get((name, split), 1000 if name == "tatoeba" else 0))
        assert len(rows) == expected if expected else len(rows) > 80, (name, split, language, len(rows))
        if name != "tydiqa":
            assert all(row["where"].startswith(str(paths[0].parent)) for row in rows)
        read.update(paths)
        seen.add((name, split))
    assert seen >= set(COUNTS) and len(read) > 100


def test_no_split_of_english_tydiqa_holds_a_row_of_another(data_folder: Path) -> None:
    config = DataConfig(data_folder, source="files")
    train, dev = (load(get("tydiqa"), split, "en", config) for split in ("train", "dev"))  # type: ignore[arg-type]
    assert len(train.examples) + len(dev.examples) == 3696
    assert not {row["context"] for row in train.examples} & {row["context"] for row in dev.examples}
    assert not {row["id"] for row in train.examples} & {row["id"] for row in dev.examples}
