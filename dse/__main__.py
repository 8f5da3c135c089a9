"""``python -m dse`` is the command line."""

import sys

from dse.cli import main

sys.exit(main())
