"""Events as JSON lines, and progress for people.

Every run writes `events.jsonl` beside its artefacts: one JSON object a line with at least `time` (seconds since
the epoch), `event` and the fields of that event. On a terminal a progress bar shows what is under way with the
time left; elsewhere one line every 30 seconds does.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

PROGRESS_EVERY_SECONDS = 30.0


class Sink(Protocol):
    """Takes events: the JSON-lines file, a tracker."""

    def write(self, event: dict[str, Any]) -> None: ...


class JsonLines:
    """Appends events to a file. A line that a crash cut short is closed before the next event is written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.exists() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
        self._file: IO[str] = path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def write(self, event: dict[str, Any]) -> None:
        self._file.write(json.dumps(event, ensure_ascii=False, default=str) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Log:
    """Where a step says what it does. `sinks` get every event; people get `say` and `progress` on stderr."""

    def __init__(self, *sinks: Sink, quiet: bool = False) -> None:
        self.sinks = list(sinks)
        self.quiet = quiet

    def event(self, event: str, **fields: Any) -> None:
        record = {"time": round(time.time(), 3), "event": event, **fields}
        for sink in self.sinks:
            sink.write(record)

    def say(self, text: str) -> None:
        """One line for people."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str, **fields: Any) -> None:
        self.event("warning", text=text, **fields)
        self.say(f"warning: {text}")

    def progress(self, total: int, label: str, start: int = 0) -> Progress:
        return Progress(total, label, start, quiet=self.quiet)


class Progress:
    """Counts up to `total`, with the time left. Use as a context manager."""

    def __init__(self, total: int, label: str, start: int = 0, quiet: bool = False) -> None:
        self.total, self.label, self.done, self.start = total, label, start, start
        self._quiet = quiet
        self._began = self._last = time.monotonic()
        self._note = ""
        self._bar: Any = None
        if not quiet and sys.stderr.isatty() and not os.environ.get("EFFSTILTS_NO_BAR"):
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=start, desc=label, leave=False, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, by: int = 1, note: str = "") -> None:
        self.done += by
        self._note = note or self._note
        if self._bar is not None:
            self._bar.update(by)
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            return
        now = time.monotonic()
        if not self._quiet and now - self._last >= PROGRESS_EVERY_SECONDS:
            self._last = now
            rate = (self.done - self.start) / max(now - self._began, 1e-9)
            left = (self.total - self.done) / rate if rate > 0 else float("inf")
            line = f"{self.label}: {self.done}/{self.total}, {format_seconds(left)} left"
            print(f"{line}, {self._note}" if self._note else line, file=sys.stderr, flush=True)


def format_seconds(seconds: float) -> str:
    """`75` -> `1m15s`; an infinite or unknown time is `?`."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{secs:02d}s" if minutes else f"{secs}s"


def format_bytes(count: float) -> str:
    """`1536` -> `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
