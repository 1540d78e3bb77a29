"""`effstilts` and `python -m effstilts`, the command line; the second is what launchers start."""

import sys

from effstilts.errors import INTERRUPTED, say


def run() -> int:
    """The exit code. What an interruption finds is said while the command line is still being imported, too."""
    try:
        from effstilts.cli import main

        return main()
    except KeyboardInterrupt:
        say(INTERRUPTED)
        return 130


if __name__ == "__main__":
    sys.exit(run())
