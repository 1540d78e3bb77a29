"""The table of results: medians, spreads, differences by seed, what is zero-shot, when a p-value stands there."""

from __future__ import annotations

from typing import Any

from effstilts.studies.report import table


def record(scores: dict[tuple[str, int, str], float], training: str = "en", section: str = "target") -> dict[str, Any]:
    cells = [
        {
            "section": section,
            "arm": arm,
            "seed": seed,
            "task": "t",
            "language": language,
            "split": "test",
            "training_language": training,
            "selected_on": False,
            "metric": "f1",
            "score": score,
            "collapsed": "",
        }
        for (arm, seed, language), score in scores.items()
    ]
    return {"cells": cells}


def three_seeds(count: int = 3, training: str = "en") -> dict[str, Any]:
    """The arm is better by 1, 2, 3 … points in `aa` and by as much again in `bb`."""
    scores = {}
    for seed in range(1, count + 1):
        for language, base in (("en", 90.0), ("aa", 40.0 + seed), ("bb", 20.0)):
            scores["baseline", seed, language] = base
            scores["arm", seed, language] = base + (seed if language != "en" else 0)
    return record(scores, training)


def row(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).removeprefix(start).split()


def test_cells_are_medians_and_differences_go_seed_by_seed() -> None:
    text = table(three_seeds())
    assert row(text, "baseline") == ["90.0", "±0.0", "42.0", "±1.0", "20.0", "±0.0", "31.0", "±0.5"]
    assert row(text, "  arm - baseline") == ["+0.0", "±0.0", "+2.0", "±1.0", "+2.0", "±1.0", "+2.0", "±1.0"]


def test_zero_shot_leaves_out_the_language_that_was_trained_on() -> None:
    text = table(three_seeds(training="aa"))
    assert row(text, "baseline")[-2:] == ["55.0", "±0.0"]


def test_a_paired_test_stands_there_only_with_seeds_enough() -> None:
    few, enough = table(three_seeds(3)), table(three_seeds(6))
    assert "3 seeds cannot give one below 0.25" in few and "no p-values" not in enough
    assert "of one comparison alone" in enough and "of one comparison alone" not in few
    # Six differences of one sign: 2 of the 64 sign choices are as far from 0.
    assert row(enough, "  arm - baseline")[-1] == "0.031"
    assert row(enough, "baseline")[-2:] == ["31.8", "±1.2"]


def test_a_narrow_terminal_wraps_columns_and_loses_none() -> None:
    text = table(three_seeds(), width=40)
    assert all(len(line) <= 40 for line in text.splitlines() if "baseline" in line)
    assert text.count("baseline  ") >= 2


def test_what_is_missing_is_counted() -> None:
    partial = three_seeds()
    del partial["cells"][0]["score"]
    assert "1 of 18 numbers are not there yet" in table(partial)


def test_seeds_that_share_a_step_are_one_measurement() -> None:
    """The baseline's retrieval is one step for all seeds; seeds that were not run yet are not spoken of."""
    made = three_seeds()
    for cell in made["cells"]:
        cell["step"] = "retrieve-1" if cell["arm"] == "baseline" else f"retrieve-{cell['seed'] + 1}"
        if cell["arm"] == "baseline":
            cell["score"] = 50.0
        if cell["seed"] == 3:
            del cell["score"]
    text = table(made)
    assert row(text, "baseline") == ["50.0"] * 4
    assert "±" in "".join(row(text, "arm "))
    assert "median over seeds 1, 2;" in text and "2 seeds cannot give one below 0.5" in text


def test_seeds_that_share_a_step_are_one() -> None:
    """A baseline's retrieval is one step for all seeds: such a part of a table is no median over three."""
    shared = record({("baseline", seed, "de"): 50.0 for seed in (1, 2, 3)})
    for cell in shared["cells"]:
        cell["step"] = "retrieve-a"
    assert "median over seeds" not in table(shared)
    for seed in (1, 2):
        more = record({("arm", seed, "de"): 50.0 + seed})["cells"][0]
        shared["cells"].append({**more, "step": f"retrieve-{seed}"})
    assert "median over seeds 1, 2;" in table(shared)
