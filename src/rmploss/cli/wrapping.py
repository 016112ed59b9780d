"""Lines that fit a terminal: broken between words, what to type on a line of its own.

Files and pipes get them whole, one line for each thing, so that programs can search them.
"""

import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast

from rmploss.errors import Problem, UserError

LEAST = 30
"""The fewest columns that lines are broken for."""


def width_of(stream: TextIO) -> int:
    """The columns of the terminal behind a stream; unlimited for a file or a pipe."""
    try:
        terminal = stream.isatty()
    except ValueError:  # a closed stream
        terminal = False
    return max(shutil.get_terminal_size().columns, LEAST) if terminal else sys.maxsize


@contextmanager
def wrapped_help() -> Iterator[None]:
    """Break the long lines of a help text in the block at the columns of the terminal."""
    width = max(shutil.get_terminal_size().columns, LEAST)
    with redirect_stdout(cast(TextIO, Wrapped(sys.stdout, width))):
        yield


def wrap(line: str, width: int, indent: int) -> str:
    """A line in pieces of at most `width` columns where words allow it.

    line: with its own spaces at the beginning.
    indent: spaces before the other pieces.
    """
    if len(line) <= width:
        return line
    margin = " " * min(indent, width // 3)
    start = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line.lstrip(),
        width,
        initial_indent=start,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


def problem_text(problem: Problem, width: int, margin: int) -> str:
    """A problem, with what to do about it behind it or, where that does not fit, below it.

    margin: spaces before it.
    """
    head = f"{'':{margin}}{problem.where}: {problem.what}"
    whole = f"{head}   {problem.fix}".rstrip()
    if len(whole) <= width:
        return whole
    below = [wrap(f"{'':{margin + 4}}{problem.fix}", width, margin + 6)] if problem.fix else []
    return "\n".join([wrap(head, width, margin + 2), *below])


def error_text(error: UserError, width: int) -> str:
    """An error with its problems: its own text if that fits, else one that does."""
    text = f"error: {error}"
    if all(len(line) <= width for line in text.splitlines()) or not error.problems:
        return text
    title = "\n".join(wrap(line, width, 2) for line in f"error: {error.title}".splitlines())
    return "\n".join([title, *(problem_text(each, width, 2) for each in error.problems)])


class Wrapped:
    """A stream that breaks the long lines of a help text; its boxes and examples stay as they are.

    stream: gets the lines.
    width: the columns.
    """

    def __init__(self, stream: TextIO, width: int) -> None:
        self._stream, self._width = stream, width

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write lines, each at most as wide as the terminal where words allow it."""
        lines = text.split("\n")
        self._stream.write("\n".join(map(self._fitting, lines)))
        return len(text)

    def _fitting(self, line: str) -> str:
        kept = line.startswith((*"$ │╭╰", "usage:", "\x1b"))
        return line if kept else wrap(line, self._width, 2 if line.startswith("* ") else 0)


def say(line: str, indent: int) -> None:
    """Print a line to standard output, wrapped where that is a terminal."""
    print(wrap(line, width_of(sys.stdout), indent))
