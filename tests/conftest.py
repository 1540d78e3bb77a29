"""What the tests share: a tiny tokenizer and encoder, a recipe small enough for seconds, no network."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A deadline times the machine, not the code.
settings.register_profile("effstilts", deadline=None)
settings.load_profile("effstilts")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TINY_CONFIG: dict[str, Any] = {
    "model_type": "xlm-roberta",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole suite runs with sockets to other machines refused."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> Any:
        if self.family == socket.AF_UNIX or str(address[0]) in ("127.0.0.1", "::1", "localhost"):
            return real(self, address)
        raise OSError(f"the tests run without a network, but something wants {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from effstilts.model.opening import load_tokenizer
    from effstilts.model.tokenizer import as_transformers, train_tokenizer
    from effstilts.synthetic import LANGUAGES, rows

    texts = [row["text"] for code in LANGUAGES for row in rows("text", "train", code, 400)]
    folder = tmp_path_factory.mktemp("tokenizer")
    as_transformers(train_tokenizer(texts, 500)).save_pretrained(folder)
    return load_tokenizer(str(folder), offline=True)


@pytest.fixture
def encoder(tokenizer: Any) -> Any:
    from effstilts.model.opening import create

    return create(TINY_CONFIG, tokenizer, seed=0)


@pytest.fixture
def data_folder() -> Path:
    """The folder of real files; skips where it is not given."""
    place = os.environ.get("EFFSTILTS_DATA")
    if not place:
        pytest.skip("EFFSTILTS_DATA is not set: the real files are not here")
    return Path(place)


TINY_RECIPE = """
name: tiny
model:
  name: new
  vocab_size: 400
  config: {model_type: xlm-roberta, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2,
           intermediate_size: 64, max_position_embeddings: 130}
training: {batch_size: 8, learning_rate: 1e-3, evaluate_every: 4, evaluate_examples: 16, checkpoint_every: 2}
data: {evaluation_rows: 12}
mlm: {tasks: [tiny/text], training: {steps: 6}}
intermediate:
  baseline: {}
  nli: {tasks: [synthetic/mnli], training: {steps: 6}}
targets:
  - {task: synthetic/xnli, rows: 64, languages: [en, qaa], training: {steps: 6}}
  - {task: synthetic/udpos, rows: 64, languages: [qaa], training: {steps: 5}}
  - {task: synthetic/tydiqa, rows: 64, languages: [qab], training: {steps: 5}}
  - {task: synthetic/xcopa, rows: 64, languages: [qac], training: {steps: 5}}
retrieval: {tasks: [synthetic/tatoeba], languages: [qaa], rows: 12}
tasks:
  tiny/text: {kind: masked_lm, files: {train: "FOLDER/text.{lang}.txt"}, languages: [en, qaa], max_length: 32}
"""


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """A recipe of all phases and kinds that runs in seconds."""
    from effstilts.synthetic import rows

    for code in ("en", "qaa"):
        lines = [row["text"] for row in rows("text", "train", code, 300)]
        (tmp_path / f"text.{code}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE.replace("FOLDER", str(tmp_path)), encoding="utf-8")
    return path
