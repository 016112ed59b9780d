"""The optional packages of trackers."""

import importlib
from types import ModuleType

from rmploss.errors import Problem, UserError

INSTALL = "pip install 'rmploss[track]'"


def require(name: str) -> ModuleType:
    """A package of a tracker. Raises `UserError` if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        problem = Problem(name.partition(".")[0], str(error), INSTALL)
        raise UserError("the package of a tracker is missing", [problem]) from error
