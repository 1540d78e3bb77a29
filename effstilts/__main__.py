"""`effstilts` and `python -m effstilts`, the command line; the second is what launchers start."""

import os
import sys


def run() -> int:
    """The exit code. What an interruption finds is said while the command line is still being imported, too."""
    try:
        from effstilts.cli import main

        return main()
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("effstilts: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
