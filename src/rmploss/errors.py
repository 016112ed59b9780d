"""The errors a user can cause, and how they are told: what, where, why, what to type instead.

Every class carries the exit code of the command line. Nothing here is ever shown with a traceback.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One line of an error message.

    where: the field, file or place; what: what is wrong and why; fix: what to type instead.
    """

    where: str
    what: str
    fix: str = ""


class UserError(ValueError):
    """A mistake that its reader can mend: a wrong value, a missing file. Exit code 2."""

    exit_code = 2

    def __init__(self, title: str, problems: Sequence[Problem] = ()) -> None:
        self.title = title
        self.problems = tuple(problems)
        super().__init__(_layout(title, self.problems))


class DataError(UserError):
    """A data set is missing, damaged or not what it says it is."""


class NonFiniteError(UserError):
    """A loss or a gradient became NaN or infinite; the update was not made."""

    exit_code = 3


class StoreError(UserError):
    """The disk refused a write."""

    exit_code = 5


class LockedError(UserError):
    """Another process owns this run folder."""

    exit_code = 6


class CheckpointError(UserError):
    """No checkpoint of a run can be trusted."""

    exit_code = 7


class InterruptedRunError(UserError):
    """Training stopped on a signal after writing a checkpoint: resume it."""

    exit_code = 75


def closest(word: str, words: Iterable[str]) -> str | None:
    """The member of `words` that a reader most likely meant by `word`, or None."""
    matches = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown(where: str, word: str, words: Iterable[str], see: str = "") -> Problem:
    """The problem of a name that is not in a table, with the nearest one that is."""
    words = sorted(words)
    if not words:
        return Problem(where, f'unknown "{word}"', "it has no options")
    guess = closest(str(word), words)
    fix = f'did you mean "{guess}"?' if guess else "one of " + ", ".join(words)
    return Problem(where, f'unknown "{word}"', f"{fix}   ({see})" if see else fix)


def _layout(title: str, problems: Sequence[Problem]) -> str:
    if not problems:
        return title
    heads = [f"{problem.where}: {problem.what}" for problem in problems]
    column = min(max(len(head) for head in heads), 60)
    lines = [
        f"  {head:<{column}}   {problem.fix}".rstrip()
        for head, problem in zip(heads, problems, strict=True)
    ]
    return "\n".join([title, *lines])
