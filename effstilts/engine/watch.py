"""One process's failure told to the others: none is left waiting.

Every process writes a heartbeat and the first failure into the key-value store of the launch, and a thread of its
own looks at both twice a second. A failure anywhere is said once, by rank 0, or by another where that one is dead or
frozen; a process that then hangs in a collective is ended after a grace.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any

from effstilts.errors import EffstiltsError, TrainingError

_POLL = 0.5
_GRACE = 10.0
_LOST = "the connection to another process is lost: it died, or its machine cannot be reached; its own output says why"


class EndedElsewhere(EffstiltsError):
    """Another process failed and its message is out already; this one ends with the same exit code."""

    said = True

    def __init__(self, code: int) -> None:
        super().__init__("ended with another process")
        self.exit_code = code


class Watch:
    """The heartbeats and failures of a launch, seen from one process. Use as a context manager around all work."""

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        self.timeout = 600.0
        self._store = store
        self._lock = threading.Lock()
        self._ending = False
        self._failure: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._end(error)
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    def check(self) -> None:
        """EndedElsewhere once another process has failed."""
        with self._lock:
            if self._failure is not None:
                raise EndedElsewhere(int(self._failure["code"]))

    def _end(self, error: BaseException) -> None:
        """Posts this process's failure, or turns an error that is another's doing into that one's."""
        # The launcher sends SIGTERM as soon as one process has failed; the line comes first.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with self._lock:
            self._ending = True
            heard = self._failure
        code = int(getattr(error, "exit_code", 1))
        if isinstance(error, EndedElsewhere):
            return
        if heard is None and not isinstance(error, EffstiltsError) and _of_collectives(error):
            heard = self._wait_for_failure(3.0)
            if heard is None:
                self._post(TrainingError.exit_code, _LOST)
                raise TrainingError(f"{_LOST}. Checkpoints are kept: run the same command again to go on") from error
            if self.rank == heard.get("speaker", 0):
                self._say(heard)
        if heard is not None:
            raise EndedElsewhere(int(heard["code"])) from error
        if not isinstance(error, GeneratorExit):
            self._post(code, str(error) if isinstance(error, EffstiltsError) else f"{type(error).__name__}: {error}")

    def _post(self, code: int, text: str) -> None:
        """Puts the failure where all see it; the first one counts. Waits shortly so that rank 0 may speak first, and
        speaks in its place where it cannot."""
        failure = {"rank": self.rank, "code": code, "text": text.split("\n")[0]}
        own = json.dumps(failure)
        others = [f"heard/{other}" for other in (range(self.world) if self.rank == 0 else (0,)) if other != self.rank]
        try:
            if self._store.compare_set("failure", "", own).decode() != own:
                # Another was first with a failure of its own; this one ends too, and has said why.
                self._store.set(f"heard/{self.rank}", "1")
                return
            until = time.monotonic() + 5.0
            while time.monotonic() < until and not self._store.check(others):
                time.sleep(0.05)
            unheard = not self._store.check(others)
        except Exception:
            unheard = self.rank == _speaker_without_store()
        if unheard and self.rank != 0:
            self._say(failure)

    def _wait_for_failure(self, seconds: float) -> dict[str, Any] | None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with self._lock:
                if self._failure is not None:
                    return self._failure
            with contextlib.suppress(Exception):
                if found := self._read():
                    return found
            time.sleep(0.1)
        return None

    def _read(self) -> dict[str, Any] | None:
        if not self._store.check(["failure"]):
            return None
        found: dict[str, Any] = json.loads(self._store.get("failure"))
        return found

    def _look(self) -> None:
        """The thread: beats, listens, and in the end ends the process."""
        beats: dict[int, tuple[bytes, float]] = {}
        count = 0
        while not self._stop.wait(_POLL):
            count += 1
            try:
                self._store.set(f"beat/{self.rank}", str(count))
                failure = self._read() or self._silent(beats)
            except Exception:
                failure = {"rank": -1, "code": TrainingError.exit_code, "text": _LOST}
                failure["speaker"] = _speaker_without_store()
            if failure is None or failure["rank"] == self.rank:
                continue
            with contextlib.suppress(Exception):
                self._store.set(f"heard/{self.rank}", "1")
            self._obey(failure)
            return

    def _silent(self, beats: dict[int, tuple[bytes, float]]) -> dict[str, Any] | None:
        """A failure made of a process whose heart has not beaten for the timeout. The lowest one that lives speaks."""
        now = time.monotonic()
        silent = []
        for other in range(self.world):
            if other == self.rank or self._store.check([f"left/{other}"]):
                continue
            beat = self._store.get(f"beat/{other}") if self._store.check([f"beat/{other}"]) else b""
            if other not in beats or beats[other][0] != beat:
                beats[other] = (beat, now)
            elif now - beats[other][1] > self.timeout:
                silent.append(other)
        if not silent:
            return None
        text = f"the process of rank {silent[0]} has not answered for {self.timeout:.0f} s"
        speaker = min(set(range(self.world)) - set(silent))
        return {"rank": silent[0], "code": TrainingError.exit_code, "text": text, "speaker": speaker}

    def _obey(self, failure: dict[str, Any]) -> None:
        time.sleep(2 * _POLL)
        with self._lock:
            self._failure = failure
            speaks = not self._ending and self.rank == failure.get("speaker", 0)
        if speaks:
            self._say(failure)
        if self._stop.wait(_GRACE):
            return
        sys.stderr.flush()
        os._exit(int(failure["code"]))

    def _say(self, failure: dict[str, Any]) -> None:
        origin = f"rank {failure['rank']}: " if failure["rank"] > 0 else ""
        print(f"effstilts: {origin}{failure['text']}", file=sys.stderr, flush=True)

    def leave(self) -> None:
        """Says that this process has done its work, so that its silence is no failure."""
        with contextlib.suppress(Exception):
            self._store.set(f"left/{self.rank}", "1")


def _speaker_without_store() -> int:
    """Who speaks when the store is gone: it is torchrun's, or was rank 0's."""
    return 0 if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else 1


def _of_collectives(error: BaseException) -> bool:
    """Whether an exception comes from torch.distributed and not from the work itself."""
    words = ("gloo", "nccl", "connection", "timed out", "store", "process group", "socket", "peer")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
