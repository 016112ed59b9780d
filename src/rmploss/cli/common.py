"""What several verbs share: words to values, flags to overrides."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from rmploss.errors import Problem, UserError
from rmploss.recipes.recipe import Value

DataDir = Annotated[
    Path | None,
    tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: $RMPLOSS_DATA, else ./data)"),
]
"""Where the data sets are."""
Device = Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda|cuda:N")]
"""Where to compute."""
WORDS: dict[str, Value] = {"true": True, "false": False, "none": None}


def literal(word: str) -> Value:
    """A word of the command line as a plain value: number, true, false, none, (a, b), else text.

    Only literals are read; nothing is ever evaluated.
    """
    if word.lower() in WORDS:
        return WORDS[word.lower()]
    try:
        value: Any = ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word
    return value if isinstance(value, str | int | float | tuple) else word


def assignments(words: Sequence[str]) -> dict[str, Value]:
    """`["objective.k=1", "neuron.decay=0.5"]` as fields and values; raises `UserError`."""
    problems = [
        Problem(f"--set {word}", "is not FIELD=VALUE", "for example --set objective.k=1")
        for word in words
        if "=" not in word.lstrip("=")
    ]
    if problems:
        raise UserError("cannot read --set", problems)
    pairs = (word.partition("=") for word in words)
    return {field.strip(): literal(value.strip()) for field, _, value in pairs}


def given(flags: Mapping[str, Value]) -> dict[str, Value]:
    """The flags that were given: those that are not None."""
    return {field: value for field, value in flags.items() if value is not None}
