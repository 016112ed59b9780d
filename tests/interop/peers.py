"""Other libraries in tests: imported if they are installed, else the test is skipped, visibly."""

import importlib
import importlib.util
import warnings
from typing import Any

import pytest


def peer(name: str) -> Any:
    """A module of another library by name; skips the test if the library is not installed."""
    package = name.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install {package}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own imports
        return importlib.import_module(name)
