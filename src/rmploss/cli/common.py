"""Shared by the verbs: types of flags, words to values, flags to overrides."""

import ast
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from rmploss.errors import Problem, UserError
from rmploss.recipes.recipe import Value

DataDir = Annotated[
    Path | None,
    tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: $RMPLOSS_DATA, else ./data)"),
]
"""The folder of the data sets."""
Device = Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda|cuda:N")]
"""The device to compute on."""
RunDir = Annotated[Path, tyro.conf.arg(metavar="RUN")]
"""A run folder."""


def _number(read: Callable[[str], int | float], kind: str, metavar: str) -> Any:
    def from_words(words: list[str]) -> int | float:
        try:
            return read(words[0])
        except ValueError:
            raise ValueError(f"{words[0]!r} is not {kind}") from None

    spec: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=from_words,
        is_instance=lambda value: value is None or isinstance(value, int | float),
        str_from_instance=lambda value: [str(value)],
    )
    return spec


Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
"""A flag that is off unless it is given."""
WHOLE = _number(int, "a whole number", "N")
"""An optional whole number."""
OWN = tyro.conf.arg(help_behavior_hint="(default: the recipe's)")
RecipeInt = Annotated[int | None, WHOLE, OWN]
"""A whole number that overrides the recipe's."""
RecipeFloat = Annotated[float | None, _number(float, "a number", "X"), OWN]
"""A number that overrides the recipe's."""
Workers = Annotated[
    int | None, WHOLE, tyro.conf.arg(help_behavior_hint="(default: chosen from the machine)")
]
"""The number of loader processes."""
WORDS: dict[str, Value] = {"true": True, "false": False, "none": None}


def literal(word: str) -> Value:
    """A word of the command line as a literal: number, true, false, none, (a, b), else text.

    Nothing is evaluated.
    """
    if word.lower() in WORDS:
        return WORDS[word.lower()]
    try:
        value: Any = ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word
    return value if isinstance(value, str | int | float | tuple) else word


def assignments(words: Sequence[str]) -> dict[str, Value]:
    """`["objective.k=1", "neuron.decay=0.5"]` -> field -> value. Raises `UserError`."""
    problems = [
        Problem(f"--set {word}", "is not FIELD=VALUE", "for example --set objective.k=1")
        for word in words
        if "=" not in word.lstrip("=")
    ]
    if problems:
        raise UserError("cannot read --set", problems)
    pairs = (word.partition("=") for word in words)
    return {field.strip(): literal(value.strip()) for field, _, value in pairs}


def drop_none(flags: Mapping[str, Value]) -> dict[str, Value]:
    """The flags that are not None: those of the command line."""
    return {field: value for field, value in flags.items() if value is not None}


def is_main() -> bool:
    """True for the process that prints: rank 0 of those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"
