"""Errors that a user can cause. Their messages say what, where, why, and what to type instead.

Every class has the exit code of the command line, which prints them without a traceback.
"""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_UNSHOWN = ("Cc", "Cs")
"""Unicode's categories of control characters and of surrogates."""


@dataclass(frozen=True)
class Problem:
    """One line of an error message.

    where: the field, file or option.
    what: the mistake and its reason.
    fix: what to type instead.
    """

    where: str
    what: str
    fix: str = ""


class UserError(ValueError):
    """A mistake that the user can correct: a wrong value, a missing file. Exit code 2."""

    exit_code = 2

    def __init__(self, title: str, problems: Sequence[Problem] = ()) -> None:
        self.title = title
        self.problems = tuple(problems)
        super().__init__(_layout(title, self.problems))


class SmallMapError(UserError):
    """A map is smaller than the kernel of a convolution or pooling."""


class DataError(UserError):
    """A data set is missing, damaged or altered."""


class NonFiniteError(UserError):
    """A loss or a gradient became NaN or infinite; the parameters were not updated."""

    exit_code = 3


class StoreError(UserError):
    """The disk refused a write."""

    exit_code = 5


class LockedError(UserError):
    """Another process owns this run folder."""

    exit_code = 6


class CheckpointError(UserError):
    """No checkpoint of a run passes verification."""

    exit_code = 7


class DamagedRunError(UserError):
    """A file of a run is not what was written."""

    exit_code = 9


class OlderCheckpointError(UserError):
    """The newest checkpoint is damaged; the result printed is that of an older one."""

    exit_code = 10


class MemoryLimitError(UserError):
    """The memory of the machine or of its GPU does not suffice."""

    exit_code = 4


class LoaderError(UserError):
    """Loader processes ended or hung twice at the same samples."""

    exit_code = 8


class ClaimError(UserError):
    """A pack does not do what it claims."""

    exit_code = 12


class RankError(UserError):
    """Another rank of the run ended, or did not answer in time."""

    exit_code = 11


class InterruptedRunError(UserError):
    """Training stopped on a signal after writing a checkpoint; the run can be resumed.

    stopped: where.
    command: what to type to go on.
    """

    exit_code = 75

    def __init__(self, stopped: str, command: str) -> None:
        self.stopped, self.command = stopped, command
        super().__init__(f"{stopped}; resume with\n  {command}")


MOST_NAMES = 20
"""The longest list of names in a message, where a command shows them."""
NEAREST = 3
"""The names that are offered of a longer list."""


def closest(word: str, words: Iterable[str]) -> str | None:
    """The member of `words` most similar to `word`, or None.

    Before all others comes one with the same parts between hyphens in another order.
    """
    words = list(words)
    swapped = [known for known in words if word and _parts(known) == _parts(word)]
    matches = swapped or difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return matches[0] if matches else None


def _nearest(word: str, words: Sequence[str]) -> list[str]:
    """At most `NEAREST` similar members: the closest, those that have the word, similar ones."""
    guess = closest(word, words)
    having = [known for known in words if word and word.lower() in known.lower()]
    similar = difflib.get_close_matches(word, words, n=NEAREST, cutoff=0.5)
    ranked = [*([guess] if guess else []), *sorted(having, key=len), *similar]
    return list(dict.fromkeys(ranked))[:NEAREST]


def _parts(name: str) -> list[str]:
    return sorted(name.split("-"))


def unknown(where: str, word: str, words: Iterable[str], see: str = "") -> Problem:
    """The problem of an unknown name, with the nearest known one, or some of many.

    where: the field or option.
    word: the unknown name.
    words: the known names.
    see: a command that lists them.
    """
    words = sorted(words)
    if not words:
        return Problem(where, f'unknown "{word}"', "it has no options")
    if see and len(words) > MOST_NAMES:
        near = [f'"{name}"' for name in _nearest(str(word), words)]
        if not near:
            return Problem(where, f'unknown "{word}"', f"{see} shows all {len(words)}")
        listed = " or ".join(filter(None, (", ".join(near[:-1]), near[-1])))
        return Problem(where, f'unknown "{word}"', f"did you mean {listed}?   ({see})")
    guess = closest(str(word), words)
    fix = f'did you mean "{guess}"?' if guess else "one of " + ", ".join(words)
    return Problem(where, f'unknown "{word}"', f"{fix}   ({see})" if see else fix)


def printable(name: str) -> str:
    """A name from a file or another machine as a terminal or a figure can show it.

    Control characters, which a terminal would obey, and bytes that are no UTF-8 become escapes.
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _UNSHOWN else char
        for char in name
    )


def not_scriptable(name: str) -> UserError:
    """The error of torch.jit.script for a class or function of that name."""
    what = "is Python that decides while it runs, which torch.jit.script cannot compile"
    fix = "torch.jit.trace(net, x), or torch.export.export(net, (x,))"
    return UserError("torch.jit.script cannot compile rmploss", [Problem(name, what, fix)])


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
