"""Every real file of EFFSTILTS_DATA through its task."""

from __future__ import annotations

from pathlib import Path

import pytest

from effstilts.data.sources import DataConfig, evaluation_splits, load
from effstilts.recipe_reader import load_recipe
from effstilts.tasks.registry import declare, get

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("task", "split", "language", "count"),
    [
        ("xnli", "dev", "sw", 2490),
        ("pawsx", "dev", "ja", 2000),
        ("panx", "train", "en", 20000),
        ("xquad", "test", "hi", 1190),
        ("commonsenseqa", "train", "en", 9741),
        ("commonsenseqa", "dev", "en", 1221),
        ("cosmosqa", "dev", "en", 2985),
        ("tatoeba", "test", "zh", 1000),
        ("tatoeba", "test", "sw", 390),
        ("copa", "train", "en", 400),
        ("copa", "dev", "en", 100),
        ("xcopa", "test", "it", 500),
        ("tydiqa", "test", "sw", 2755),
        ("tydiqa", "test", "ko", 1625),
    ],
)
def test_official_counts(data_folder: Path, task: str, split: str, language: str, count: int) -> None:
    assert len(load(get(task), split, language, DataConfig(data_folder)).examples) == count  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["xnli", "pawsx", "udpos", "panx", "xquad", "mlqa", "xcopa", "tatoeba"])
def test_every_language_there_is_reads(data_folder: Path, name: str) -> None:
    config = DataConfig(data_folder)
    found = evaluation_splits(get(name), config)
    assert len(found) >= 6
    for language, split in found.items():
        assert len(load(get(name), split, language, config).examples) > 90


def test_english_tydiqa_is_parted_and_is_english(data_folder: Path) -> None:
    task, config = get("tydiqa"), DataConfig(data_folder)
    train, dev = (load(task, split, "en", config).examples for split in ("train", "dev"))  # type: ignore[arg-type]
    assert len(train) + len(dev) == 3696 and 250 < len(dev) < 480
    assert not {e["context"] for e in train} & {e["context"] for e in dev}
    assert len({e["id"] for e in train + dev}) == 3696


def test_the_recipes_own_tasks_read(data_folder: Path) -> None:
    recipe = load_recipe("real-small")
    config = DataConfig(data_folder)
    mnli = declare("mnli-dev-pairs", recipe.tasks["mnli-dev-pairs"])
    counts = [len(load(mnli, split, "en", config).examples) for split in ("train", "dev")]  # type: ignore[arg-type]
    assert sum(counts) == 9815 and 200 < counts[1] < 900
    hellaswag = declare("hellaswag-small", recipe.tasks["hellaswag-small"])
    assert len(load(hellaswag, "train", "en", config).examples) == 3000


def test_real_bucc_becomes_corpora(data_folder: Path) -> None:
    """zh-en dev: 257 gold pairs among 8,624 x 13,589 sentences, a few of which repeat a text."""
    from effstilts.retrieval.bucc import FOLDS, corpora, fold_of

    given = corpora(load(get("bucc2018"), "dev", "zh", DataConfig(data_folder)).examples)
    assert (len(given.source.row_of_id), len(given.target.row_of_id), len(given.gold)) == (8624, 13589, 257)
    assert (given.source.repeated, given.target.repeated) == (18, 28)
    assert {fold_of(name) for name, _ in given.gold} == set(range(FOLDS))
