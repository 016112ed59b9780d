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
    stream: TextIO = sys.stderr if out is None else out
    shown = stream.isatty() and is_main()
    try:
        if shown:
            write(stream, f"{what} ...")
        yield
    finally:
        if shown:
            write(stream, CLEAR)


def write(out: TextIO, text: str) -> None:
    """Write a part of a line at once; a closed stream is no error."""
    with suppress(OSError, ValueError):
        out.write(text)
        out.flush()
