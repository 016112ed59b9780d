"""Recordings in the official format, for tests without the real data."""

from collections.abc import Sequence

import numpy as np

HEADER = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"

Rows = Sequence[tuple[int, int, int, int]]
"""Events as (microseconds, x, y, polarity: 1 ON)."""


def aedat(events: Rows, header: bytes = HEADER) -> bytes:
    """The bytes of an AEDAT 2.0 file."""
    pairs = [(x << 1 | y << 8 | 1 - p, t) for t, x, y, p in events]
    return header + np.array(pairs, ">u4").tobytes()
