"""Combined arms: peft's own functions on tensors, identities, and what a sum of adapters really is."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effstilts.errors import ModelError
from effstilts.model import adapters
from effstilts.model.combine import add_combined, combined
from effstilts.model.encoder import Encoder
from effstilts.model.opening import create
from effstilts.recipe import Combine, Method
from tests.conftest import TINY_CONFIG
from tests.unit.model.test_encoder import batch
from tests.unit.model.test_methods import trained

HOWS = ("linear", "ties", "dare_linear", "dare_ties")


def tensors(seed: int, count: int) -> list[torch.Tensor]:
    """With ties, zeros and entries that disagree in sign."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(-4, 5, (6, 7), generator=generator).float() / 4 for _ in range(count)]


def distinct(seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 7, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("how", HOWS)
def test_with_equal_weights_it_is_pefts(how: str, seed: int) -> None:
    from peft.utils import merge_utils

    given_ = distinct(seed, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.manual_seed(seed)
        if how == "linear":
            expected = merge_utils.task_arithmetic(given_, torch.ones(3))
        else:
            expected = getattr(merge_utils, how)(given_, torch.ones(3), 0.4)
    ours = combined(given_, [1.0] * 3, Combine(how=how, density=0.4), torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    assert torch.allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_ties_by_hand(seed: int) -> None:
    """Entry by entry, with other weights than 1: trim, elect by the weighted sum, weighted mean of the elected."""
    given_, weights = distinct(seed, 3), [0.5, 2.0, 1.25]
    kept = []
    for one in given_:
        limit = sorted(one.abs().flatten().tolist(), reverse=True)[int(0.3 * one.numel()) - 1]
        kept.append([[v if abs(v) >= limit else 0.0 for v in row] for row in one.tolist()])
    ours = combined(given_, weights, Combine(how="ties", density=0.3, scale=0.5), torch.Generator())
    for i in range(6):
        for j in range(7):
            here = [(w, k[i][j]) for w, k in zip(weights, kept, strict=True)]
            sign = 1 if sum(w * v for w, v in here) >= 0 else -1
            agreeing = [(w, v) for w, v in here if v * sign > 0]
            mean = sum(w * v for w, v in agreeing) / sum(w for w, _ in agreeing) if agreeing else 0.0
            assert float(ours[i, j]) == pytest.approx(0.5 * mean, abs=1e-6)


@given(seed=st.integers(0, 1000), how=st.sampled_from(HOWS), weight=st.floats(0.1, 3))
def test_identities(seed: int, how: str, weight: float) -> None:
    """With nothing dropped one arm at weight 1 is the arm, and so are two equal arms at 0.5; `scale` multiplies."""
    (one,) = tensors(seed, 1)

    def of(differences: list[torch.Tensor], weights: list[float], **settings: Any) -> torch.Tensor:
        return combined(differences, weights, Combine(how=how, density=1.0, **settings), torch.Generator())  # type: ignore[arg-type]

    assert torch.equal(of([one], [1.0]), one)
    assert torch.allclose(of([one, one], [0.5, 0.5]), one)
    assert torch.allclose(of([one, one], [0.5, 0.5], scale=weight), weight * one)
    relative = how in ("ties", "dare_ties")
    assert torch.allclose(of([one], [weight]), one if relative else weight * one)


def test_dare_is_drawn_by_the_seed_and_keeps_the_mean() -> None:
    one = torch.ones(100, 100)
    how = Combine(how="dare_linear", density=0.25)
    draws = [combined([one], [1.0], how, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert set(draws[0].unique().tolist()) == {0.0, 4.0} and float(draws[0].mean()) == pytest.approx(1, abs=0.1)


def fresh(tokenizer: Any) -> Encoder:
    return create(TINY_CONFIG, tokenizer, seed=1)


def saved_adapters(tokenizer: Any, tmp_path: Path) -> list[Path]:
    folders = []
    for number, name in enumerate(("lora", "rslora")):
        encoder = fresh(tokenizer)
        method = Method(name, rank=3 + number, alpha=5.0 + number)  # type: ignore[arg-type]
        trained(encoder, method, steps=4 + number)
        adapters.save(encoder, tmp_path / name)
        folders.append(tmp_path / name)
    return folders


def merged(tokenizer: Any, folder: Path) -> Encoder:
    encoder = fresh(tokenizer)
    adapters.load_merged(encoder, folder)
    return encoder


def test_a_sum_of_adapters_is_one_adapter(tokenizer: Any, tmp_path: Path) -> None:
    """Of the sum of the ranks, and the same function as the sum of the products on the base's weights."""
    folders, weights = saved_adapters(tokenizer, tmp_path), [0.75, -0.5]
    parts = list(zip(folders, weights, strict=True))
    encoder = fresh(tokenizer)
    adapters.concatenate(encoder, Method("lora", rank=7, alpha=7.0), parts)
    with torch.no_grad():
        attached = encoder.eval()(**batch(encoder))
    adapters.save(encoder, tmp_path / "sum")
    whole = fresh(tokenizer)
    arms = [(merged(tokenizer, folder), weight) for folder, weight in parts]
    add_combined(whole, arms, Combine(arms={"a": 0.75, "b": -0.5}), seed=0)
    again = merged(tokenizer, tmp_path / "sum")
    for name, parameter in whole.backbone.named_parameters():
        assert torch.allclose(dict(again.backbone.named_parameters())[name], parameter, atol=1e-6), name
    with torch.no_grad():
        assert torch.allclose(whole.eval()(**batch(whole)), attached, atol=1e-5)


def test_an_adapter_with_itself_is_itself_and_is_doubled_by_peft(tokenizer: Any, tmp_path: Path) -> None:
    import peft

    folder = saved_adapters(tokenizer, tmp_path)[0]
    one = merged(tokenizer, folder)
    encoder = fresh(tokenizer)
    adapters.concatenate(encoder, Method("lora", rank=6, alpha=6.0), [(folder, 0.5), (folder, 0.5)])
    adapters.merge(encoder)
    theirs = peft.PeftModel.from_pretrained(fresh(tokenizer).backbone, str(folder), adapter_name="a")
    theirs.load_adapter(str(folder), "b")
    theirs.add_weighted_adapter(["a", "b"], [0.5, 0.5], "both", "linear")
    theirs.set_adapter("both")
    theirs = theirs.merge_and_unload()
    base = dict(fresh(tokenizer).backbone.named_parameters())
    ours, own, doubled = (dict(m.named_parameters()) for m in (encoder.backbone, one.backbone, theirs))
    moved = [name for name in base if not torch.equal(base[name], own[name])]
    assert moved
    for name in moved:
        assert torch.allclose(ours[name], own[name], atol=1e-6)
        assert torch.allclose(doubled[name] - base[name], 2 * (own[name] - base[name]), atol=1e-5)


@pytest.mark.parametrize("how", HOWS)
def test_whole_encoders(how: str, tokenizer: Any) -> None:
    """Full fine-tuning: every tensor moves; the arms themselves are not touched, and the outcome is the seed's."""
    arms = [create(TINY_CONFIG, tokenizer, seed=seed) for seed in (2, 3)]
    before = [p.detach().clone() for arm in arms for p in arm.parameters()]
    results = []
    for seed in (5, 5, 6):
        base = fresh(tokenizer)
        settings = Combine(arms={"a": 0.5, "b": 0.5}, how=how, density=0.5)  # type: ignore[arg-type]
        add_combined(base, [(arm, 0.5) for arm in arms], settings, seed)
        results.append({n: p.detach() for n, p in base.backbone.named_parameters()})
    assert all(torch.equal(a, b) for a, b in zip(before, (p for arm in arms for p in arm.parameters()), strict=True))
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])
    word = "encoder.layer.0.output.dense.weight"
    assert torch.equal(results[0][word], results[2][word]) == (how in ("linear", "ties"))
    if how == "linear":
        mean = sum(dict(arm.backbone.named_parameters())[word].detach() for arm in arms) / 2
        assert torch.allclose(results[0][word], mean, atol=1e-6)


def test_arms_of_another_shape_are_refused(tokenizer: Any) -> None:
    other = create({**TINY_CONFIG, "intermediate_size": 48}, tokenizer, seed=1)
    with pytest.raises(ModelError, match="cannot be combined: .* is not of one shape"):
        add_combined(fresh(tokenizer), [(other, 1.0)], Combine(), 0)


def test_a_sum_may_have_more_directions_than_a_layer(tokenizer: Any, tmp_path: Path) -> None:
    """Its rank is the sum of the parts': 40 here, over layers of 32."""
    folders = []
    for seed in (1, 2):
        own = create(TINY_CONFIG, tokenizer, seed=0)
        trained(own, Method("lora", rank=20, alpha=20), steps=2 + seed)
        adapters.save(own, tmp_path / str(seed))
        folders.append(tmp_path / str(seed))
    summed = create(TINY_CONFIG, tokenizer, seed=0)
    adapters.concatenate(summed, Method("lora", rank=40, alpha=40), [(folder, 0.5) for folder in folders])
    with pytest.raises(ModelError, match="larger than a target layer"):
        adapters.attach(create(TINY_CONFIG, tokenizer, seed=0), Method("lora", rank=40, alpha=40))
    one = create(TINY_CONFIG, tokenizer, seed=0)
    adapters.load_merged(one, folders[0])
    adapters.merge(summed)
    base = create(TINY_CONFIG, tokenizer, seed=0)
    two = create(TINY_CONFIG, tokenizer, seed=0)
    adapters.load_merged(two, folders[1])
    for (name, found), a, b, c in zip(
        summed.backbone.state_dict().items(), one.backbone.state_dict().values(), two.backbone.state_dict().values(),
        base.backbone.state_dict().values(), strict=True,
    ):  # fmt: skip
        assert torch.allclose(found, c + 0.5 * (a - c) + 0.5 * (b - c), atol=1e-5), name
