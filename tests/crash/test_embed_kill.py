"""`effstilts embed`, killed without warning: the same command goes on and ends in the vectors of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effstilts.model.opening import save
from effstilts.retrieval.embed import Pooling, embed
from effstilts.retrieval.vectors import Vectors
from effstilts.synthetic import rows


@pytest.mark.slow
def test_killed_between_shards(encoder: Any, tmp_path: Path) -> None:
    save(encoder, tmp_path / "model")
    text = tmp_path / "t.txt"
    text.write_text("".join(row["text"] + "\n" for row in rows("text", "train", "en", 20000)), encoding="utf-8")
    command = [
        sys.executable, "-m", "effstilts", "embed", str(text), "--model", str(tmp_path / "model"), "--offline",
        "--precision", "fp32", "--shard-rows", "500", "--layers", "2", "--quiet",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    broken = tmp_path / "broken"
    shards = broken / "t.txt" / "shards"
    process = subprocess.Popen([*command, "--out", str(broken)], env=environment)
    while process.poll() is None and len(list(shards.glob("*.safetensors"))) < 3:
        time.sleep(0.002)
    assert process.poll() is None, "the run must still be under way"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "t.txt" / "manifest.json").exists()
    subprocess.run([*command, "--out", str(broken)], env=environment, check=True, stdout=subprocess.DEVNULL)
    made = Vectors.open(broken / "t.txt")
    made.verify()
    sentences = text.read_text(encoding="utf-8").splitlines()
    assert made.manifest["sentences"] == len(sentences) == 20000 and not shards.exists()
    assert np.allclose(made.load(), embed(encoder, sentences, Pooling(2)), atol=1e-5)
