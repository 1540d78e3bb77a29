"""`python -m effstilts` is the command line, so that launchers can start it."""

import sys

from effstilts.cli import main

sys.exit(main())
