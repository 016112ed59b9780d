"""No pickle is written, and two modules read one, each with an allow list of what it may hold."""

import ast
import textwrap
from pathlib import Path

import pytest

import rmploss
import rmploss_bench
from tests.names import full_names

SOURCES = [
    path
    for package in (rmploss, rmploss_bench)
    for path in sorted(Path(package.__file__ or "").parent.rglob("*.py"))
]
MODULES = (
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "marshal",
    "joblib",
    "torch.package",
)
FORBIDDEN = {
    *(f"{module}.{word}" for module in MODULES for word in ("dump", "dumps", "Pickler")),
    "torch.save",
    "torch.serialization.save",
    "torch.serialization._save",
    "torch.serialization._legacy_save",
    "torch.jit.save",
    "torch.package.PackageExporter",
    "shelve.open",
    "numpy.save",
    "numpy.savez",
    "numpy.savez_compressed",
}


READING = {
    *(f"{module}.{word}" for module in MODULES for word in ("load", "loads", "Unpickler")),
    "torch.load",
    "torch.serialization.load",
    "torch.serialization._load",
    "torch.serialization._legacy_load",
    "torch.package.PackageImporter",
    "pandas.read_pickle",
}


def readers(source: str) -> list[str]:
    """The mentions of a function that reads pickles, as "line: full name"."""
    return mentions(source, READING)


def writers(source: str) -> list[str]:
    """The mentions of a function that writes pickles, as "line: full name"."""
    return mentions(source, FORBIDDEN)


def mentions(source: str, forbidden: set[str]) -> list[str]:
    """The mentions of a function of a set, under any name, as "line: full name"."""
    tree = ast.parse(source)
    name = full_names(tree)
    found = {
        (node.lineno, name(node))
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute | ast.Call) and name(node) in forbidden
    }
    found |= {
        (node.lineno, f"{node.module}.{alias.name}")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if f"{node.module}.{alias.name}" in forbidden
        or (node.module in MODULES and alias.name == "*")
    }
    return [f"{line}: {word}" for line, word in sorted(found)]


def test_no_module_writes_a_pickle() -> None:
    assert {str(path): found for path in SOURCES if (found := writers(path.read_text()))} == {}


def test_two_modules_read_pickles_by_an_allow_list() -> None:
    found = {path.name for path in SOURCES if readers(path.read_text())}
    assert found == {"_unpickle.py", "foreign_weights.py"}


def test_the_other_one_reads_tensors_alone() -> None:
    (path,) = (path for path in SOURCES if path.name == "foreign_weights.py")
    tree = ast.parse(path.read_text())
    name = full_names(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (load,) = (call for call in calls if name(call.func) in READING)
    assert len(readers(path.read_text())) == 1
    options = {option.arg: ast.unparse(option.value) for option in load.keywords}
    assert options["weights_only"] == "True"


@pytest.mark.parametrize(
    "lines",
    [
        "import torch; torch.save(x, f)",
        "import torch as t; t.save(x, io.BytesIO())",
        "import torch; write = torch.save",
        "from torch import save as keep",
        "from torch import serialization as s; s.save(x, f)",
        "import torch.serialization as s; s.save(x, f)",
        "import torch; t = torch; again = t; again.save(x, f)",
        "import torch; getattr(torch, 'save')(x, f)",
        "import importlib; importlib.import_module('pickle').dumps(x)",
        "__import__('pickle').dump(x, f)",
        "import pickle as p; p.Pickler(f)",
        "from pickle import *",
        "import numpy as n; n.save(f, x)",
    ],
)
def test_a_pickle_under_any_name_is_seen(lines: str) -> None:
    assert writers(lines)


@pytest.mark.parametrize(
    "lines",
    [
        "import pickle as p; p.loads(data)",
        "import torch as t; t.load(f)",
        "from pickle import Unpickler as U",
        "read = __import__('torch').load; read(f)",
    ],
)
def test_a_reader_of_pickles_is_seen(lines: str) -> None:
    assert readers(lines)
    assert not writers(lines)


def test_reading_and_tensors_without_pickle_are_free() -> None:
    harmless = """
        import pickle
        import safetensors.torch
        from safetensors.torch import save
        import torch
        save(tensors)
        safetensors.torch.save(tensors)
        class Reader(pickle.Unpickler): pass
        state.save(folder)
    """
    assert writers(textwrap.dedent(harmless)) == []
