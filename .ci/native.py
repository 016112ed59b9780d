"""Fail unless the installed package has its native kernels and they agree with the reference.

What every wheel with kernels must pass: an installation falls back to the reference where they do
not compile or do not load, so the package alone would not show it.
"""

import sys

from rmploss.cli import main
from rmploss.ops import cpu

if cpu.MISSING:
    sys.exit(cpu.MISSING)
sys.exit(main(["doctor"]))
