"""How threads wait for each other where other programs run; set before torch is imported."""

import os
import sys

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
SPINS = "1000"
"""Rounds of waiting before a thread sleeps, a few microseconds; GNU OpenMP's default is 300,000."""


def wait_asleep_if_busy() -> None:
    """Let threads of GNU OpenMP sleep soon at barriers, if the machine is busy when we start.

    A thread that spins at a barrier takes the core from the thread that it waits for. No result
    depends on it. What the user set stays; after the import of torch it is too late.
    """
    if "torch" in sys.modules or any(name in os.environ for name in VARIABLES):
        return
    if is_busy():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def is_busy() -> bool:
    """True if as many processes want a core as there are cores; False where it is not known."""
    try:
        return os.getloadavg()[0] >= (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows has no such number
        return False
