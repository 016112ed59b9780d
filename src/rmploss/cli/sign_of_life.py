"""A sign of life on a terminal while something takes seconds, such as the import of torch."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from rmploss.cli.common import is_main

CLEAR = "\r\x1b[K"
"""To the beginning of the line, which is then emptied."""


@contextmanager
def waiting(what: str, out: TextIO | None = None) -> Iterator[None]:
    """Say what is waited for, and remove that afterwards; nothing outside of a terminal.

    what: as "loading PyTorch".
    out: the stream; None: standard error.
    """
    out = out or sys.stderr
    shown = out.isatty() and is_main()
    try:
        if shown:
            _write(out, f"{what} ...")
        yield
    finally:
        if shown:
            _write(out, CLEAR)


def _write(out: TextIO, text: str) -> None:
    with suppress(OSError, ValueError):
        out.write(text)
        out.flush()
