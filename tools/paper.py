"""Generated lists of docs/paper.md: the functions and classes that name an equation."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from source_map import EQUATIONS, ROOT, equations_in

PACKAGE = ROOT / "src" / "rmploss"
USERS = ("engine", "export", "interop")
"""Packages that use the equations and have none of their own."""


class Named(NamedTuple):
    """A function or class: file, name there ("LIF.forward"), first line of its docstring."""

    path: Path
    name: str
    line: str


def blocks() -> dict[str, Callable[[], str]]:
    """The generated parts of docs/paper.md: one per row of `EQUATIONS`."""
    return {
        f"eqs-{first}": lambda wanted=frozenset(range(first, last + 1)): _table(wanted)
        for first, last in EQUATIONS
    }


def _table(wanted: frozenset[int]) -> str:
    found = [
        named
        for path in sorted(PACKAGE.rglob("*.py"))
        for named, numbers in _named_in(path)
        if numbers & wanted and path.relative_to(PACKAGE).parts[0] not in USERS
    ]
    if not found:
        sys.exit(f"no function names Eq. {min(wanted)}")
    found.sort(key=lambda named: named.path.name != "reference.py")
    lines = ["| function | what it does |", "|---|---|"]
    for path, name, line in found:
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        shown = f"{module}.{name}".replace("/__init__.", ".")
        place = path.relative_to(ROOT)
        lines.append(f"| [`{shown}`](../{place}#{name}) | {line.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def _named_in(path: Path) -> Iterator[tuple[Named, set[int]]]:
    """Every public function and class of a file, with the equations that it names.

    It names those of its docstring's first line and of the comments in its own lines ("# Eq. 1").
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for name, node in definitions(ast.parse(text)):
        first = (ast.get_docstring(node) or "").partition("\n")[0]
        if not first or any(part.startswith("_") for part in name.split(".")):
            continue
        own = [first]
        if isinstance(node, ast.FunctionDef):
            own += re.findall(r"# (Eqs?\. .*)", "\n".join(lines[node.lineno - 1 : node.end_lineno]))
        yield Named(path, name, first), {number for line in own for number in equations_in(line)}


def definitions(
    tree: ast.Module | ast.ClassDef, within: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """The functions and classes of a module, and those in its classes: ("LIF.forward", node)."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield within + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from definitions(node, f"{within}{node.name}.")
