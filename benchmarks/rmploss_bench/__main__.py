"""`python -m rmploss_bench` is `rmploss bench`: same words, same errors, same exit codes."""

import sys

from rmploss.cli import main

sys.exit(main(["bench", *sys.argv[1:]]))
