"""The command line, of which rank 1 breaks in its third step: `python -m tests.parity.broken run RECIPE ...`."""

from __future__ import annotations

import os
import sys
from typing import Any

from effstilts.cli import main
from effstilts.engine import loop

update, steps = loop._update, 0


def broken(*arguments: Any) -> tuple[float, float]:
    global steps
    steps += 1
    if os.environ["RANK"] == "1" and steps == 3:
        raise OSError("the disk of rank 1 is gone")
    return update(*arguments)


if __name__ == "__main__":
    loop._update = broken
    sys.exit(main(sys.argv[1:]))
