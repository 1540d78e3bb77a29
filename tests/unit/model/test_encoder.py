"""Architectures, loading, cutting at a layer, masked-LM heads: transformers itself is the oracle."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import Sequence

from effstilts.errors import ModelError
from effstilts.kinds import kind_of
from effstilts.kinds.masked_lm import MaskedLMHead
from effstilts.model import adapters
from effstilts.model.export import save_masked_lm
from effstilts.model.opening import create, load, masked_lm_head, save
from effstilts.recipe import Method
from effstilts.tasks.task import Task
from effstilts.workbench import fit_head
from tests.conftest import TINY_CONFIG

BERT_LIKE = {k: v for k, v in TINY_CONFIG.items() if k != "model_type"}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "xlm-roberta": TINY_CONFIG,
    "bert": {"model_type": "bert", "type_vocab_size": 2, **BERT_LIKE},
    "deberta-v2": {
        "model_type": "deberta-v2", "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 16, "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
        **BERT_LIKE,
    },
    "distilbert": {
        "model_type": "distilbert", "dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64,
        "max_position_embeddings": 130, "dropout": 0.0, "attention_dropout": 0.0,
    },
    "electra": {"model_type": "electra", "type_vocab_size": 2, "embedding_size": 16, **BERT_LIKE},
}  # fmt: skip
TEXTS = ["Anna waited near the river.", "the doctor is sad."]
MLM = Task("l", "masked_lm", {"text": "text"})


def batch(encoder: Any) -> dict[str, torch.Tensor]:
    tokens = encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_an_architecture_trains_saves_reloads_and_is_cut(name: str, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoModel

    encoder = create(ARCHITECTURES[name], tokenizer, seed=1)
    inputs = batch(encoder)
    encoder(**inputs).pow(2).mean().backward()
    trained = [n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(trained) > 20
    save(encoder, tmp_path / "m")
    encoder.eval()
    ours = encoder(**inputs)
    plain = AutoModel.from_pretrained(tmp_path / "m").eval()
    theirs = plain(**inputs, output_hidden_states=True)
    again = load(str(tmp_path / "m")).eval()
    assert torch.equal(again(**inputs), ours) and torch.allclose(theirs[0], ours, atol=1e-6)
    for layer in range(encoder.depth + 1):
        with again.cut_at(layer):
            assert torch.allclose(again(**inputs), theirs.hidden_states[layer], atol=1e-6), layer
    assert torch.equal(again(**inputs), ours)
    with pytest.raises(ModelError, match="hidden states 0 to 3"), again.cut_at(4):
        pass
    counted = torch.arange(inputs["input_ids"].shape[1]).expand_as(inputs["input_ids"])
    real = inputs["attention_mask"] == 1
    assert torch.allclose(again(**inputs, positions=counted)[real], ours[real], atol=1e-6)
    moved = again(**inputs, positions=counted // 2)[real]
    assert name == "deberta-v2" or not torch.allclose(moved, ours[real], atol=1e-3)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_masked_lm_head_of_a_checkpoint_gives_its_logits(name: str, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForMaskedLM

    fields = dict(ARCHITECTURES[name])
    config = AutoConfig.for_model(
        fields.pop("model_type"), vocab_size=len(tokenizer), pad_token_id=1, bos_token_id=0, eos_token_id=2, **fields
    )
    torch.manual_seed(3)
    theirs = AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    encoder = load(str(tmp_path / "m")).eval()
    state = masked_lm_head(str(tmp_path / "m"))
    assert state is not None
    head = kind_of("masked_lm").head(MLM, encoder, 0.0)
    fit_head(head, state, "masked_lm")
    inputs = batch(encoder)
    with torch.inference_mode():
        ours = head(encoder(**inputs), encoder.embedding)
        expected = AutoModelForMaskedLM.from_pretrained(tmp_path / "m").eval()(**inputs).logits
    assert torch.allclose(ours, expected, atol=2e-5)
    save_masked_lm(encoder, state, tmp_path / "again")
    save_masked_lm(encoder, state, tmp_path / "half", torch.bfloat16)
    with torch.inference_mode():
        written = AutoModelForMaskedLM.from_pretrained(tmp_path / "again").eval()
        assert torch.allclose(written(**inputs).logits, expected, atol=1e-6)
    assert torch.equal(load(str(tmp_path / "again")).eval()(**inputs), encoder(**inputs))
    again = masked_lm_head(str(tmp_path / "again"))
    assert again is not None and all(torch.equal(again[name], state[name]) for name in state)
    whole, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("again", "half"))
    assert half < 0.55 * whole
    close = load(str(tmp_path / "half")).eval()(**inputs)
    assert close.dtype == torch.float32 and torch.allclose(close, encoder(**inputs), atol=0.1)


def test_what_is_no_encoder_is_refused(tokenizer: Any, encoder: Any, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    for kind, fields, words in (
        ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 1}, "no masked-LM form"),
        ("t5", {"d_model": 16, "num_layers": 1, "num_heads": 1, "d_kv": 8, "d_ff": 8}, "not an encoder"),
    ):
        model = AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=len(tokenizer), **fields))
        model.save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        with pytest.raises(ModelError, match=words):
            load(str(tmp_path / kind))
    with pytest.raises(ModelError, match="does not exist"):
        load(str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match="no field 'hidden'"):
        create({"model_type": "bert", "hidden": 3}, tokenizer, 0)
    with pytest.raises(ModelError, match="did you mean 'xlm-roberta'"):
        create({"model_type": "xlm-robert"}, tokenizer, 0)
    with pytest.raises(ModelError, match="not installed"):
        load("package:no-such-package-here")
    with pytest.raises(ModelError, match="no embedded model 'effstilts/maxi'"):
        load("effstilts/maxi")


def test_missing_or_broken_weights_are_refused(encoder: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(encoder, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    weights = load_file(str(path))
    victim = next(name for name in weights if name.endswith("layer.1.output.dense.weight"))
    save_file({k: v for k, v in weights.items() if k != victim}, str(path), {"format": "pt"})
    with pytest.raises(ModelError, match="1 weights of the encoder are missing"):
        load(str(tmp_path / "m"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError):
        load(str(tmp_path / "m"))
    path.unlink()
    torch.save({}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle"):
        load(str(tmp_path / "m"))


def test_remote_code_is_never_run(encoder: Any, tmp_path: Path) -> None:
    save(encoder, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match=r"config\.json asks for code of its own \(auto_map\)"):
        load(str(tmp_path / "m"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_lora_trains_itself_alone_and_merges_exactly(name: str, tokenizer: Any, tmp_path: Path) -> None:
    encoder = create(ARCHITECTURES[name], tokenizer, seed=2)
    inputs = batch(encoder)
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    plain = encoder.eval()(**inputs)
    torch.manual_seed(2)
    adapters.attach(encoder, Method("lora", rank=4, alpha=8))
    assert torch.allclose(encoder(**inputs), plain, atol=1e-6)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    for _ in range(3):
        encoder(**inputs)[:, 0, :5].sum().backward()
        optimizer.step()
    tuned = encoder(**inputs)
    assert not torch.allclose(tuned, plain, atol=1e-3)
    adapters.save(encoder, tmp_path / "a")
    fresh = create(ARCHITECTURES[name], tokenizer, seed=2).eval()
    adapters.load_merged(fresh, tmp_path / "a")
    assert torch.allclose(fresh(**inputs), tuned, atol=1e-5)
    assert {n for n, _ in fresh.named_parameters()} == set(before) and not adapters.attached(fresh)
    continued = create(ARCHITECTURES[name], tokenizer, seed=2).eval()
    adapters.attach(continued, Method("lora", rank=4, alpha=8), tmp_path / "a")
    assert torch.allclose(continued(**inputs), tuned, atol=1e-6)
    assert any(p.requires_grad for p in continued.parameters())


def test_lora_mistakes_are_named(encoder: Any) -> None:
    with pytest.raises(ModelError, match="did you mean 'query'"):
        adapters.attach(encoder, Method("lora", targets=("qery",)))
    with pytest.raises(ModelError, match="rank 64 is larger"):
        adapters.attach(encoder, Method("lora", rank=64))


def test_saving_does_not_import_deepspeed(encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own save_pretrained does, through accelerate, where deepspeed is installed."""
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    save(encoder, tmp_path / "saved")
    again = load(str(tmp_path / "saved")).backbone.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in encoder.backbone.state_dict().items())


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_gradients_are_the_same_with_checkpointing(name: str, tokenizer: Any) -> None:
    found = []
    for checkpointed in (False, True):
        encoder = create(ARCHITECTURES[name], tokenizer, seed=1).train()
        encoder.set_dropout(0.0)
        if checkpointed:
            encoder.checkpoint_gradients()
            assert any(getattr(m, "gradient_checkpointing", False) for m in encoder.backbone.modules())
        encoder(**batch(encoder))[:, 0, :5].sum().backward()
        found.append({n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})
    assert set(found[0]) == set(found[1])
    assert all(torch.allclose(found[0][n], found[1][n], atol=1e-6) for n in found[0])


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_frozen_blocks_and_embeddings_get_no_gradient(name: str, tokenizer: Any) -> None:
    encoder = create(ARCHITECTURES[name], tokenizer, seed=1)
    encoder.freeze(2)
    encoder(**batch(encoder))[:, 0, :5].sum().backward()
    trained = {n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    # DeBERTa norms its relative positions once for all blocks.
    assert trained and all(".2." in n or n.startswith("backbone.encoder.LayerNorm") for n in trained), trained
    assert not encoder.embedding.requires_grad
    with pytest.raises(ModelError, match="freeze_layers is 4, this encoder has 3 blocks"):
        encoder.freeze(4)


def test_a_tokenizers_fingerprint_is_of_its_content(tokenizer: Any, tmp_path: Any) -> None:
    from effstilts.model.opening import tokenizer_fingerprint

    for name in ("a", "b"):
        tokenizer.save_pretrained(tmp_path / name)
    first = tokenizer_fingerprint(str(tmp_path / "a"))
    assert first == tokenizer_fingerprint(str(tmp_path / "b"))
    (tmp_path / "b" / "tokenizer.json").write_text((tmp_path / "b" / "tokenizer.json").read_text() + " ")
    assert first != tokenizer_fingerprint(str(tmp_path / "b"))
    assert tokenizer_fingerprint("org/name", "abc") != tokenizer_fingerprint("org/name", "abd")


def test_masked_lm_is_refused_where_another_head_would_be_trained(tokenizer: Any, tmp_path: Path) -> None:
    """MobileBERT's embeddings are narrower than its hidden states, and its own head has no layer between."""
    fields = {
        "model_type": "mobilebert", "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16,
        "num_feedforward_networks": 1, **BERT_LIKE,
    }  # fmt: skip
    encoder = create(fields, tokenizer, seed=1)
    with pytest.raises(ModelError, match="of mobilebert they have 16 dimensions and the hidden states 32"):
        kind_of("masked_lm").head(MLM, encoder, 0.0)
    narrow = MaskedLMHead(32, 16, len(tokenizer), 1e-5).state_dict()
    with pytest.raises(ModelError, match=r"dense.weight is \[32, 32\], that of the head here \[16, 32\]"):
        save_masked_lm(encoder, narrow, tmp_path / "m")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_position_embeddings": 12}, "leaves 10 places for tokens, at least 16 are needed"),
        ({"hidden_size": 0}, "hidden_size is 0, at least 1 is needed"),
        ({"num_attention_heads": -2}, "num_attention_heads is -2, at least 1 is needed"),
        ({"hidden_act": "rule"}, "transformers knows no 'rule'"),
        ({"hidden_size": "wide"}, r"Field 'hidden_size' expected int, got str \(value: 'wide'\)"),
        ({"type_vocab_size": 0}, "such a model cannot run"),
        ({"hidden_dropout_prob": 2.0}, "between 0 and 1"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1, at least 0 is needed"),
        ({"is_decoder": True}, "xlm-roberta is not an encoder"),
    ],
)
def test_configs_that_make_no_model_are_one_line(tokenizer: Any, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=f"model.config: .*{words}") as caught:
        create({**TINY_CONFIG, **fields}, tokenizer, seed=0)
    assert "\n" not in str(caught.value)


def test_making_a_model_draws_nothing_from_others(tokenizer: Any) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    create({**TINY_CONFIG, "hidden_dropout_prob": 0.5}, tokenizer, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tokenizer_without_special_tokens_makes_a_model_too(tokenizer: Any) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.backend_tokenizer.post_processor = Sequence([])
    assert bare("")["input_ids"] == []
    assert create(TINY_CONFIG, bare, seed=0).depth == 3


def test_trying_a_model_out_leaves_it_as_it_was(tokenizer: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """BigBird turns to whole attention for good after a short input, and says so."""
    config = {
        "model_type": "big_bird", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64,
    }  # fmt: skip
    assert create(config, tokenizer, seed=0).backbone.attention_type == "block_sparse"
    assert "".join(capfd.readouterr()) == ""
