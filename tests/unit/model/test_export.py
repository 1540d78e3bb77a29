from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effstilts import identity
from effstilts.cli import main
from effstilts.errors import ModelError
from effstilts.kinds.kind import SentenceHead, TokenHead
from effstilts.model.export import declared_pooling, save_cut, save_sentence_transformers, save_with_head
from effstilts.model.opening import create, load, save
from effstilts.retrieval.embed import Pooling, embed
from effstilts.store import Store
from effstilts.studies.trained import open_named
from effstilts.synthetic import rows
from tests.unit.model.test_encoder import ARCHITECTURES, batch

SENTENCES = [row["text"] for row in rows("text", "dev", "qaa", 20)] + ["", "a", "word " * 400]

FRESH = """
import sys, json, numpy as np
from sentence_transformers import SentenceTransformer
sentences = json.load(open(sys.argv[1]))
for folder in sys.argv[2:]:
    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    np.save(folder + ".npy", model.encode(sentences, batch_size=7, convert_to_numpy=True))
"""


@pytest.mark.slow
def test_sentence_transformers_gives_the_same_vectors_in_a_fresh_process(tmp_path: Path, encoder: Any) -> None:
    pytest.importorskip("sentence_transformers")
    save(encoder, tmp_path / "model")
    wanted = {"mean": Pooling(2), "cls": Pooling(1, "cls"), "last": Pooling(3), "weighted": Pooling(2, "weighted")}
    for name, pooling in wanted.items():
        words = ["export", str(tmp_path / "model"), str(tmp_path / name), "--layer", str(pooling.layer)]
        assert main([*words, "--pooling", pooling.how, "--max-length", "64", "--store", str(tmp_path)]) == 0
    (tmp_path / "sentences.json").write_text(json.dumps(SENTENCES), encoding="utf-8")
    folders = [str(tmp_path / name) for name in wanted]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-c", FRESH, str(tmp_path / "sentences.json"), *folders]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for name, pooling in wanted.items():
        expected = embed(encoder, SENTENCES, pooling, 64)
        assert np.allclose(np.load(tmp_path / f"{name}.npy"), expected, atol=1e-5)


@pytest.mark.parametrize("how", ["mean", "cls", "weighted"])
def test_an_exported_model_is_read_back_at_its_layer_and_pooling(
    how: Any, tmp_path: Path, encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `embed` and the others: its last hidden state, not the protocol's layer of what is left."""
    save_sentence_transformers(encoder, tmp_path / "model", 2, how)
    for form in ("flags", "name"):
        if form == "name":
            names = {"mean": "mean", "cls": "cls", "weighted": "weightedmean"}
            newer = {"embedding_dimension": encoder.hidden_size, "pooling_mode": names[how]}
            (tmp_path / "model" / "1_Pooling" / "config.json").write_text(json.dumps(newer))
        named = open_named(str(tmp_path / "model"), Store(tmp_path / "store"), offline=True)
        assert (named.retrieval.layer, named.retrieval.pooling) == (2, how)
    (tmp_path / "text").write_text("\n".join(SENTENCES[:5]) + "\n")
    words = ["embed", str(tmp_path / "text"), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    assert main([*words, "--offline", "--precision", "fp32", "--quiet"]) == 0
    found = np.load(tmp_path / "out" / "text" / f"layer2-{how}.npy")
    assert np.allclose(found, embed(encoder, SENTENCES[:5], Pooling(2, how)), atol=1e-5)


def test_an_exported_model_is_read_back_at_its_length(
    tmp_path: Path, encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """By embed, mine, search and a second export; what a command says counts."""
    save_sentence_transformers(encoder, tmp_path / "model", 2, max_length=8)
    long = " ".join(SENTENCES[:5])
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"{long}\n{SENTENCES[0]}\n")
    common = ["--model", str(tmp_path / "model"), "--offline", "--quiet", "--store", str(tmp_path / "store")]
    for more, length in (([], 8), (["--max-length", "20"], 20)):
        words = ["embed", str(tmp_path / "a"), *common, "--out", str(tmp_path / f"out{length}"), "--precision", "fp32"]
        assert main([*words, *more]) == 0
        found = np.load(tmp_path / f"out{length}" / "a" / "layer2-mean.npy")
        assert np.allclose(found[:1], embed(encoder, [long], Pooling(2), length), atol=1e-5)
    capsys.readouterr()
    loud = [word for word in common if word != "--quiet"]
    assert main(["mine", str(tmp_path / "a"), str(tmp_path / "b"), *loud, "--out", str(tmp_path / "p.tsv")]) == 0
    assert "longer than 8 tokens" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "again"), "--store", str(tmp_path / "store")]) == 0
    written = tmp_path / "again" / "sentence_bert_config.json"
    assert json.loads(written.read_text())["max_seq_length"] == 8
    again = str(tmp_path / "again")
    settings = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    (tmp_path / "again" / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 40}))
    for declared, length, warned in (('{"max_seq_length": "long"}', 40, True), ('{"max_seq_length": null}', 40, False)):
        written.write_text(declared)
        assert open_named(again, Store(tmp_path / "store"), offline=True).max_length == length
        assert ("max_seq_length is long, which is no length" in capsys.readouterr().err) == warned
    written.unlink()
    assert open_named(again, Store(tmp_path / "store"), offline=True).max_length == 40, "as newer versions write it"
    (tmp_path / "again" / "sentence_xlm-roberta_config.json").write_text('{"max_seq_length": 9}')
    assert open_named(again, Store(tmp_path / "store"), offline=True).max_length == 9, "as older ones did"
    (tmp_path / "again" / "modules.json").unlink()
    assert open_named(again, Store(tmp_path / "store"), offline=True).max_length == 512, "of no sentence-transformer"


def test_vectors_of_a_version_with_other_numbers_are_not_gone_on_with(
    tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(encoder, tmp_path / "model")
    (tmp_path / "a").write_text("one\n")
    words = ["embed", str(tmp_path / "a"), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    words += ["--offline", "--quiet", "--precision", "fp32"]
    assert main(words) == main(words) == 0
    monkeypatch.setattr(identity, "NUMERICS_VERSION", identity.NUMERICS_VERSION + 1)
    assert main(words) == 5
    assert "holds vectors of a version of effstilts with other numbers: choose another" in capsys.readouterr().err


def test_what_of_a_sentence_transformers_model_has_no_counterpart_is_said(
    tmp_path: Path, encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    save_sentence_transformers(encoder, model, 2)
    pooling, modules = model / "1_Pooling" / "config.json", model / "modules.json"
    for config, said in (
        ({"pooling_mode_max_tokens": True}, "pools by max_tokens, which is not known here; the mean is taken"),
        ({"pooling_mode": ["mean", "cls"]}, "pools by ['mean', 'cls']"),
        ({}, ""),
    ):
        pooling.write_text(json.dumps(config))
        assert declared_pooling(str(model)) == "mean"
        assert said in capsys.readouterr().err
    listed = json.loads(modules.read_text())
    for kind, said in (("Dense", "its Dense is left out"), ("Normalize", "")):
        modules.write_text(json.dumps([*listed, {"type": f"sentence_transformers.models.{kind}", "path": "2"}]))
        assert declared_pooling(str(model)) == "mean"
        shown = capsys.readouterr().err
        assert said in shown and bool(shown) == bool(said)
    modules.write_text(json.dumps(listed[:1]))
    assert declared_pooling(str(model)) is None
    assert "made of Transformer" in capsys.readouterr().err
    elsewhere = json.dumps([listed[0], {**listed[1], "path": "../1_Pooling"}])
    for text, said in (("[", "not valid JSON"), ("{}", "a list of modules"), (elsewhere, "no folder of this model")):
        modules.write_text(text)
        with pytest.raises(ModelError, match=said):
            declared_pooling(str(model))


def test_a_cut_encoder_is_the_whole_ones_layer(tmp_path: Path, encoder: Any) -> None:
    save_cut(encoder, tmp_path / "cut", 2)
    assert encoder.depth == 3
    reloaded = load(str(tmp_path / "cut"), offline=True)
    assert reloaded.depth == 2
    assert np.allclose(embed(reloaded, SENTENCES, Pooling(2)), embed(encoder, SENTENCES, Pooling(2)), atol=1e-6)


def test_transformers_folder_is_whole_unless_cut(tmp_path: Path, encoder: Any) -> None:
    save(encoder, tmp_path / "model")
    for name, more, depth in (("whole", [], 3), ("one", ["--layer", "1"], 1)):
        words = ["export", str(tmp_path / "model"), str(tmp_path / name), "--as", "transformers", *more]
        assert main([*words, "--store", str(tmp_path)]) == 0
        assert load(str(tmp_path / name), offline=True).depth == depth


def test_what_cannot_be_exported_is_one_line(tmp_path: Path, encoder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match="layer 0 is the embedding output"):
        save_cut(encoder, tmp_path / "a", 0)
    with pytest.raises(ModelError, match="leave <s> and </s> out"):
        save_sentence_transformers(encoder, tmp_path / "b", 1, special_tokens=False)
    save(encoder, tmp_path / "model")
    base = ["export", str(tmp_path / "model")]
    for more, code, expected in (
        ([str(tmp_path / "out"), "--layer", "4"], 4, "layer 4 does not exist"),
        ([str(tmp_path / "model")], 2, "exists already"),
        ([str(tmp_path / "out"), "--arm", "nli"], 5, "no run named"),
        ([str(tmp_path / "out"), "--as", "masked-lm"], 4, "has no masked-LM head"),
        ([str(tmp_path / "out"), "--as", "masked-lm", "--layer", "1"], 2, "leave --layer out"),
        ([str(tmp_path / "out"), "--as", "transformers", "--pooling", "cls"], 2, "leave --pooling and --max-length"),
        ([str(tmp_path / "out"), "--as", "masked-lm", "--max-length", "9"], 2, "leave --pooling and --max-length"),
        ([str(tmp_path / "out"), "--target", "xnli", "--max-length", "9"], 2, "--max-length and --as out"),
        ([str(tmp_path / "out"), "--target", "xnli", "--as", "sentence-transformers"], 2, "and --as out"),
    ):
        assert main([*base, *more, "--store", str(tmp_path)]) == code
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("kind", ["classification", "choice", "tagging", "span"])
def test_a_targets_model_gives_its_logits_in_plain_transformers(
    kind: str, architecture: str, tokenizer: Any, tmp_path: Path
) -> None:
    import transformers

    encoder = create(ARCHITECTURES[architecture], tokenizer, seed=1).eval()
    labels = {"classification": ["no", "yes", "maybe"], "tagging": ["NOUN", "VERB"]}.get(kind, [])
    outputs = len(labels) or {"choice": 1, "span": 2}[kind]
    head = (SentenceHead if kind in ("classification", "choice") else TokenHead)(32, outputs, 0.1).eval()
    out = tmp_path / "out"
    other = {"distilbert": "DistilBert.*has another head .*pre_classifier.weight", "electra": "Electra.*another head"}
    if architecture in other and kind in ("classification", "choice"):
        with pytest.raises(ModelError, match=other[architecture]):
            save_with_head(encoder, kind, head.state_dict(), labels, out)
        return
    name = save_with_head(encoder, kind, head.state_dict(), labels, out)
    plain, info = getattr(transformers, name).from_pretrained(out, output_loading_info=True, local_files_only=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not labels or plain.config.id2label == dict(enumerate(labels))
    inputs = batch(encoder)
    with torch.no_grad():
        ours = head(encoder(**inputs))
        if kind == "choice":
            theirs = plain.eval()(**{name: tensor[None] for name, tensor in inputs.items()}).logits[0][:, None]
        else:
            found = plain.eval()(**inputs)
            theirs = torch.stack([found.start_logits, found.end_logits], -1) if kind == "span" else found.logits
    assert torch.allclose(theirs, ours, atol=1e-6)
    assert load(str(out)).depth == 3, "the encoder of it opens here as any other"
