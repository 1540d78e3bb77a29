"""The commands: one dataclass each, whose fields are its options and whose `execute` returns the exit code.

Only light modules are imported at the top of these files: `effstilts --help` answers at once.
"""

from __future__ import annotations

from typing import Protocol


class Command(Protocol):
    """What the command line parses a command into."""

    def execute(self) -> int:
        """Does it; returns the exit code. Raises EffstiltsError for a user's mistake."""
        ...
