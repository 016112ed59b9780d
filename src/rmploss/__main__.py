"""`python -m rmploss` is `rmploss`; torchrun starts it so."""

import sys

from rmploss.cli import main

sys.exit(main())
