"""The layers of the package: imports point downward only. And every file says what it is."""

import ast
from collections.abc import Iterator, Set
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import rmploss
import rmploss_bench

ROOT = Path(rmploss.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
BENCH = Path(rmploss_bench.__file__).parent
BENCH_FILES = sorted(BENCH.rglob("*.py"))
"""The benchmarks, a distribution above all layers: it imports rmploss, never the reverse."""

LAYERS = (
    (
        "errors",
        "plugins",
        "registry",
        "arguments",
        "entry",
        "sizes",
        "randomness",
        "_disk",
        "_watched",
        "store",
        "surrogate",
        "ops",
        "functional",
    ),
    (
        *("lifecycle", "stats", "recompute", "norm", "norm_step", "conv", "neurons"),
        *("objectives", "data", "recipes"),
    ),
    ("models", "analysis", "selftest", "register", "interop"),
    ("engine",),
    ("export", "track"),
    ("report",),
    ("cli", "__main__"),
)
LAYER = {family: level for level, families in enumerate(LAYERS) for family in families}
NOT_NEURAL = {
    *("errors", "plugins", "registry", "arguments", "randomness", "_disk", "_watched", "store"),
}
"""The modules that `data` and `recipes` may import."""
FACADE = ""
"""The package itself: its `__init__` offers the layers below the report, to those above."""


def module_of(file: Path, root: Path = ROOT) -> str:
    """rmploss/models/vgg.py -> "models.vgg"; a folder's `__init__` -> the folder."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file) for file in FILES}


def family(module: str) -> str:
    """The first part: "models.vgg" -> "models"."""
    return module.partition(".")[0]


def imported(file: Path) -> Iterator[str]:
    """The names that a file imports, wherever in the file: "rmploss.ops.lif"."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            # `from rmploss.ops import reference` imports ops and ops.reference.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(file: Path, package: str = "rmploss", modules: Set[str] = MODULES) -> Iterator[str]:
    """The modules of a package that a file imports, wherever in the file."""
    for name in imported(file):
        top, _, inner = name.partition(".")
        if top == package:
            yield inner if inner in modules else inner.rpartition(".")[0]


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_point_downward(file: Path) -> None:
    here = family(module_of(file))
    if here == FACADE:
        assert all(LAYER[family(target)] < LAYER["report"] for target in imports(file))
        return
    for target in imports(file):
        there = family(target)
        if there == here:
            continue
        if there == FACADE:
            assert LAYER[here] > LAYER["report"], f"{here} imports the package itself"
            continue
        assert LAYER[there] <= LAYER[here], f"{here} imports {target}"
        if here in ("data", "recipes"):
            assert there in NOT_NEURAL, f"{here} imports {target}, which is neural"
        if here in NOT_NEURAL:
            assert there in NOT_NEURAL, f"{here} imports {target}, which is neural"
        if LAYER[there] == 1 == LAYER[here]:
            assert there not in ("data", "recipes"), f"{here} imports {target}"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_nothing_imports_the_benchmarks(file: Path) -> None:
    assert [name for name in imported(file) if family(name) == rmploss_bench.__name__] == []


def test_no_family_imports_itself_through_another() -> None:
    graph: dict[str, set[str]] = {}
    for file in FILES:
        here = family(module_of(file))
        graph.setdefault(here, set()).update(family(target) for target in imports(file))
    for here, others in graph.items():
        others.discard(here)
    graph.pop(FACADE)
    order = [*TopologicalSorter(graph).static_order()]  # raises CycleError
    assert order.index("errors") < order.index("models")


@pytest.mark.parametrize("root", [ROOT, BENCH], ids=lambda root: root.name)
def test_no_file_imports_itself_through_another(root: Path) -> None:
    files = {module_of(file, root): file for file in sorted(root.rglob("*.py"))}
    graph = {
        module: {*imports(file, root.name, files.keys())} - {module}
        for module, file in files.items()
    }
    assert [*TopologicalSorter(graph).static_order()]


def test_every_module_has_its_layer() -> None:
    families = {family(module) for module in MODULES} - {FACADE}
    assert families <= set(LAYER)


def name_of(file: Path) -> str:
    """rmploss_bench/peers/norse.py -> "rmploss_bench/peers/norse.py", of either package."""
    return file.relative_to((ROOT if ROOT in file.parents else BENCH).parent).as_posix()


@pytest.mark.parametrize("file", [*FILES, *BENCH_FILES], ids=name_of)
def test_every_file_says_what_it_is(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    doc = ast.get_docstring(tree)
    assert doc, "no module docstring"
    first = doc.splitlines()[0]
    assert 15 < len(first) <= 100


@pytest.mark.parametrize("file", [*FILES, *BENCH_FILES], ids=name_of)
def test_every_public_name_is_documented(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not [*undocumented(tree, "")]


def undocumented(node: ast.AST, path: str) -> Iterator[str]:
    """Public functions, classes and methods without a docstring (those inside functions aside)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_"):
                continue
            name = f"{path}{child.name}"
            if not ast.get_docstring(child) and not _is_overload(child):
                yield name
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{name}.")


def _is_overload(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in decorators)
