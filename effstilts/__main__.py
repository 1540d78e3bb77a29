"""`effstilts` and `python -m effstilts`, the command line; the second is what launchers start."""

import io
import sys

from effstilts.errors import INTERRUPTED, say


def run() -> int:
    """The exit code. What an interruption finds is said while the command line is still being imported, too."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does: where the encoding lacks a sign (← of labels) its number stands there, in JSON as well.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from effstilts.cli import main

        return main()
    except KeyboardInterrupt:
        say(INTERRUPTED)
        return 130


if __name__ == "__main__":
    sys.exit(run())
