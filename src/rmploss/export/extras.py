"""The packages that formats need, which `pip install 'rmploss[export]'` brings."""

import importlib
from types import ModuleType

from rmploss.errors import Problem, UserError


def require(*names: str) -> list[ModuleType]:
    """The modules of that name, imported; `UserError` that names every missing one."""
    found, missing = [], []
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except ImportError as error:
            missing.append(Problem(name, str(error), "pip install 'rmploss[export]'"))
    if missing:
        raise UserError("a package for this format is missing", missing)
    return found
