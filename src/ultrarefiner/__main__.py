"""Run as ``python -m ultrarefiner``."""

import sys

from ultrarefiner.cli import main

sys.exit(main())
