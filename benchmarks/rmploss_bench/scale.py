"""Conditions for scaling: time steps, batch, width and threads are varied one at a time."""

from collections.abc import Iterator

from rmploss_bench.conditions import Conditions, cpus

USUAL = ("rmploss+rmp", "rmploss", "dense-bound", "spikingjelly")
"""The contestants, where `--only` names none."""
STEPS = (1, 2, 4, 6)
"""Numbers of time steps T."""


def variations(base: Conditions) -> Iterator[Conditions]:
    """The base conditions, and those that differ from them in one field, each once."""
    every = [base.but(T=T) for T in STEPS]
    every += [base.but(batch=batch) for batch in (base.batch // 4, base.batch // 2) if batch]
    every += [base, base.but(batch=2 * base.batch)]
    every += [base.but(width=base.width * factor) for factor in (0.25, 0.5)]
    every += [base.but(threads=count) for count in powers(cpus())]
    yield from dict.fromkeys(every)


def powers(limit: int) -> list[int]:
    """The powers of two up to the limit, and the limit itself."""
    return sorted({*(1 << i for i in range(limit.bit_length()) if 1 << i <= limit), limit})
