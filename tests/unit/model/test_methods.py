"""Every method: trains what it says and nothing else, saves little, reads back the same function merged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from effstilts.engine.plain import parameter_groups
from effstilts.errors import MissingDependencyError, ModelError
from effstilts.model import adapters, quantised
from effstilts.model.encoder import Encoder
from effstilts.model.opening import create, save, skeleton
from effstilts.recipe import Method, Training
from tests.unit.model.test_encoder import ARCHITECTURES, batch

METHODS = [name for name in get_args(get_type_hints(Method)["name"]) if name != "full"]


def trained(encoder: Encoder, method: Method, steps: int = 6, **carry: Any) -> torch.Tensor:
    """A few steps of AdamW; returns the output afterwards."""
    if method.name in quantised.FORMS:
        quantised.quantise(encoder, quantised.FORMS[method.name])
    torch.manual_seed(4)
    adapters.attach(encoder, method, **carry)
    own = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=3e-2)
    for _ in range(steps):
        encoder(**batch(encoder))[:, 0, :5].sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        out: torch.Tensor = encoder.eval()(**batch(encoder))
    return out


@pytest.mark.parametrize("architecture", ["xlm-roberta", "deberta-v2", "distilbert"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_itself_alone_and_reads_back_merged(
    name: str, architecture: str, tokenizer: Any, tmp_path: Path
) -> None:
    if name in quantised.FORMS:
        pytest.importorskip("bitsandbytes")
    plain = create(ARCHITECTURES[architecture], tokenizer, seed=1).eval()
    before = plain(**batch(plain)).detach()
    encoder = create(ARCHITECTURES[architecture], tokenizer, seed=1)
    frozen = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    after = trained(encoder, Method(name, rank=4))  # type: ignore[arg-type]
    assert not torch.allclose(after, before, atol=1e-4)
    if name not in quantised.FORMS:
        moved = {n for n, p in plain.named_parameters() if n in dict(encoder.named_parameters())} & {
            n for n, p in encoder.named_parameters() if n in frozen and not torch.equal(p, frozen[n])
        }
        assert all(n.endswith(".bias") for n in moved) and (name == "bitfit") == bool(moved)
    adapters.save(encoder, tmp_path / "a")
    adapters.load_merged(plain, tmp_path / "a")
    with torch.no_grad():
        merged = plain.eval()(**batch(plain))
    assert all(p.requires_grad for p in plain.parameters())
    if name in quantised.FORMS:  # the base was rounded while training, and is whole now
        assert 0 < (merged - after).abs().mean() < 0.5 * (after - before).abs().mean()
    else:
        assert torch.allclose(merged, after, atol=1e-5)
    size = sum(path.stat().st_size for path in (tmp_path / "a").glob("*.safetensors"))
    assert size < 4 * sum(p.numel() for p in plain.parameters())


def test_a_quantised_base_keeps_embeddings_norms_and_biases_whole(encoder: Any) -> None:
    pytest.importorskip("bitsandbytes")
    linear = set(quantised.block_linears(encoder.backbone))
    whole = {n: p.detach().clone() for n, p in encoder.backbone.named_parameters()}
    quantised.quantise(encoder, "nf4")
    for name, parameter in encoder.backbone.named_parameters():
        if name.removesuffix(".weight") in linear:
            assert parameter.dtype == torch.uint8
        else:
            assert torch.equal(parameter, whole[name])


@pytest.mark.parametrize("lower", ["lora", "rslora", "dora", "loraplus"])
@pytest.mark.parametrize("upper", ["lora", "rslora", "loraplus"])
def test_a_stacked_adapter_leaves_the_one_below_as_it_is(
    lower: Any, upper: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """Below and above together are the merge of one into the base and of the other into that."""
    fields = ARCHITECTURES["xlm-roberta"]
    first = create(fields, tokenizer, seed=1)
    trained(first, Method(lower, rank=4, dropout=0.5))
    adapters.save(first, tmp_path / "below")
    second = create(fields, tokenizer, seed=1)
    out = trained(second, Method(upper, rank=2), below=tmp_path / "below")
    second.train()
    assert torch.allclose(second(**batch(second)), out, atol=1e-5), "what is frozen has no dropout any more"
    second.eval()
    kept = {n: p for n, p in second.backbone.named_parameters() if ".below" in n}
    own = dict(first.backbone.named_parameters())
    assert kept and all(torch.equal(p, own[n.replace(".below", ".default")]) for n, p in kept.items())
    adapters.save(second, tmp_path / "above")
    base = create(fields, tokenizer, seed=1)
    for name in ("below", "above"):
        adapters.load_merged(base, tmp_path / name)
    assert torch.allclose(base.eval()(**batch(base)), out, atol=1e-5)


def test_loraplus_trains_b_faster(encoder: Any) -> None:
    adapters.attach(encoder, Method("loraplus", rank=2, rate_ratio=8.0))
    named = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    groups = parameter_groups(named, Training(learning_rate=1e-3))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    for name, parameter in named.items():
        assert rates[id(parameter)] == pytest.approx(8e-3 if "lora_B" in name else 1e-3)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_a_skeleton_tells_what_attaching_would(architecture: str, tokenizer: Any, tmp_path: Path) -> None:
    """Of a folder and of fields alike, by the modules' names and sizes alone."""
    fields = {**ARCHITECTURES[architecture], "vocab_size": 500}
    whole = create(fields, tokenizer, seed=1)
    save(whole, tmp_path / "model")
    for bare in (skeleton("new", config=fields), skeleton(str(tmp_path / "model"))):
        assert {p.device.type for p in bare.parameters()} == {"meta"}
        assert {n: p.shape for n, p in bare.named_parameters()} == {n: p.shape for n, p in whole.named_parameters()}
        for name in METHODS:
            adapters.check(bare, Method(name, rank=4))  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="lora target 'qury' is no linear layer of this encoder"):
            adapters.check(bare, Method("lora", targets=("qury",)))
        with pytest.raises(ModelError, match="qlora rank 4096 is larger than a target layer's size"):
            adapters.check(bare, Method("qlora", rank=4096))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": 3000}, "describes 3,000 blocks"),
        ({"hidden_size": "x"}, "cannot load the model folder"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "asks for code of its own"),
    ],
)
def test_a_skeleton_is_of_what_may_be_opened(encoder: Any, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    save(encoder, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=words):
        skeleton(str(tmp_path / "model"))


def test_mistakes_are_one_line(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="ia3 target 'keye' is no linear layer of this encoder .did you mean 'key'"):
        adapters.attach(encoder, Method("ia3", targets=("keye",)))
    with pytest.raises(ModelError, match="dora rank 64 is larger"):
        adapters.attach(encoder, Method("dora", rank=64))
    monkeypatch.setattr(adapters, "_IA3", {"k", "v"})
    monkeypatch.setattr(adapters, "_IA3_FEEDFORWARD", ("ffn.out",))
    with pytest.raises(ModelError, match="ia3 knows no linear layer of this encoder by its name; give method.targets"):
        adapters.attach(encoder, Method("ia3"))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependencyError, match=r"effstilts\[quant\]"):
        quantised.quantise(encoder, "nf4")
