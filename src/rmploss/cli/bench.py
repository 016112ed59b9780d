"""`rmploss bench`: run `rmploss_bench`, a separate distribution, on the command line."""

import importlib
import importlib.util
from collections.abc import Sequence

from rmploss.errors import Problem, UserError

PACKAGE = "rmploss_bench"
"""Imported by name: it imports rmploss, so rmploss cannot import it."""


def run(words: Sequence[str]) -> int:
    """Run `rmploss bench WORDS` and return its exit code.

    words: the command line after `bench`.
    Raises `UserError` if `rmploss_bench` is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        fix = "pip install ./benchmarks   (in a clone of rmploss)"
        problem = Problem("rmploss-bench", "is not installed: it is a separate package", fix)
        raise UserError("cannot benchmark", [problem])
    return importlib.import_module(f"{PACKAGE}.command").run(words)
