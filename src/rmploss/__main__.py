"""`python -m rmploss` is `rmploss`, for torchrun."""

import sys

from rmploss.cli import main

sys.exit(main())
