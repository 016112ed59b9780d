"""Only `store` changes the disk: no other module opens a file for writing, moves or removes one."""

import ast
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import rmploss
import rmploss_bench
from tests.names import full_names

PACKAGE = Path(rmploss.__file__).parent
BENCH = Path(rmploss_bench.__file__).parent
DOOR = {"store.py", "_disk.py"}

# Whatever they are called on; on the module `store` they are the right way.
METHODS = {
    "write_text", "write_bytes", "touch", "mkdir", "makedirs", "unlink", "rmdir", "removedirs",
    "rename", "renames", "rmtree", "copytree", "copyfile", "copy2", "symlink", "symlink_to", "link",
    "hardlink_to", "chmod", "chown", "utime", "mkfifo", "mknod", "ftruncate", "mkstemp", "mkdtemp",
    "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "urlretrieve", "extract",
    "extractall", "tofile", "savetxt", "memmap", "save_file", "save_model", "savefig",
    "imsave", "to_csv", "FileHandler", "RotatingFileHandler", "unpack_archive", "make_archive",
}  # fmt: skip
# Of these modules only: elsewhere the names mean something else (a list, a tensor).
FUNCTIONS = {
    "os": {"remove", "replace", "truncate", "write", "fdopen"},
    "shutil": {"copy", "move", "copymode", "copystat"},
    "numpy": {"save", "savez", "savez_compressed"},
    "torch": {"save"},
    "torch.onnx": {"export"},
    "onnx": {"save"},
    "nir": {"write"},
    "pickle": {"dump", "dumps"},
}
# Functions that open a file or an archive with a mode; of these modules, or of a path.
OPENERS = {"open", "ZipFile", "TarFile", "GzipFile", "BZ2File", "LZMAFile"}
MODULES_THAT_OPEN = {"io", "gzip", "bz2", "lzma", "tarfile", "zipfile", "builtins", "codecs"}


def violations(source: str) -> list[str]:
    """The expressions of a module that change the disk without `store`, as "line: code"."""
    tree = ast.parse(source)
    memory, full_name = _in_memory(tree), full_names(tree)
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if (isinstance(node, ast.Call) and _writes(node, memory, full_name))
        or (isinstance(node, ast.Import | ast.ImportFrom) and _takes(node))
    ]


def _takes(node: ast.Import | ast.ImportFrom) -> bool:
    """True if an import takes a writing function out of its module, or internals of `store`."""
    if isinstance(node, ast.Import):
        return any(alias.name == "rmploss._disk" for alias in node.names)
    writing = FUNCTIONS.get(node.module or "", set()) | {"_disk"}
    return node.module == "rmploss._disk" or any(alias.name in writing for alias in node.names)


def _in_memory(tree: ast.AST) -> set[str]:
    """The names that are only ever bound to an `io.BytesIO()` or `io.StringIO()`."""
    buffers: dict[str, bool] = {}
    for node in ast.walk(tree):
        pairs: list[tuple[ast.expr | None, ast.expr | None]] = []
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.withitem):
            pairs = [(node.optional_vars, node.context_expr)]
        for target, value in pairs:
            if isinstance(target, ast.Name):
                called = value.func if isinstance(value, ast.Call) else None
                buffer = _name(called) in {"BytesIO", "StringIO"}
                buffers[target.id] = buffers.get(target.id, True) and buffer
    return {name for name, buffer in buffers.items() if buffer}


def _name(function: ast.expr | None) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _writes(call: ast.Call, memory: set[str], full_name: Callable[[ast.expr], str]) -> bool:
    name, owner = _name(call.func), ""
    if isinstance(call.func, ast.Attribute):
        owner = full_name(call.func.value) or ast.unparse(call.func.value)
    into_memory = (
        bool(call.args) and isinstance(call.args[0], ast.Name) and call.args[0].id in memory
    )
    if owner in ("store", "rmploss.store") or into_memory:
        return False
    if name in METHODS or name in FUNCTIONS.get(owner, set()):
        return True
    if name == "replace":  # str.replace takes two words, Path.replace one path.
        return bool(owner) and len(call.args) == 1 and not call.keywords
    return name in OPENERS and owner != "Image" and _mode_writes(call, owner)


def _mode_writes(call: ast.Call, owner: str) -> bool:
    """True if the mode of an opening call is, or may be, one of writing."""
    if owner == "os":  # os.open(path, flags)
        path, flags = map(ast.unparse, call.args[:2])
        return flags != "os.O_RDONLY" and path != "os.devnull"
    method = bool(owner) and owner not in MODULES_THAT_OPEN
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    modes += call.args[:1] if method else call.args[1:2]
    for mode in modes:
        if isinstance(mode, ast.Constant):
            if re.fullmatch(r"[rbt]*[wax+][wbt+]*([:|]\w*)?", str(mode.value)):
                return True
        elif not method or ast.unparse(mode) == "mode":  # Much else has a method `open`.
            return True
    return False


MODULES = [path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in DOOR])
def test_nothing_else_changes_the_disk(name: str) -> None:
    assert violations((PACKAGE / name).read_text()) == []


@pytest.mark.parametrize("file", sorted(BENCH.rglob("*.py")), ids=lambda file: file.name)
def test_the_benchmarks_write_through_store_as_well(file: Path) -> None:
    assert violations(file.read_text()) == []


def test_the_door_itself_is_seen_to_write() -> None:
    for name in DOOR:
        assert violations((PACKAGE / name).read_text())


@pytest.mark.parametrize(
    "line",
    [
        "open(path, 'w')",
        "open(path, mode='a')",
        "open(path, mode)",
        "io.open(path, 'x')",
        "path.open('r+')",
        "path.open(mode='wb')",
        "path.open(mode)",
        "gzip.open(path, 'wb')",
        "os.open(path, os.O_WRONLY)",
        "path.write_text(text)",
        "path.rename(other)",
        "path.replace(other)",
        "os.replace(path, other)",
        "from os import remove",
        "shutil.move(path, other)",
        "shutil.rmtree(path)",
        "zipfile.ZipFile(path, 'w')",
        "tarfile.open(path, 'w:gz')",
        "archive.extractall(path)",
        "tempfile.mkdtemp()",
        "import numpy as np\nnp.save(path, array)",
        "torch.save(state, path)",
        "import torch as t\nt.save(state, path)",
        "import shutil as s\ns.move(path, other)",
        "safetensors.torch.save_file(tensors, path)",
        "figure.savefig(path)",
        "buffer = io.BytesIO()\nbuffer = path\nfigure.savefig(buffer)",
        "torch.onnx.export(net, x, path)",
        "from rmploss import _disk",
        "from rmploss._disk import create",
        "import rmploss._disk",
    ],
)
def test_each_way_around_is_seen(line: str) -> None:
    assert len(violations(line)) == 1


def test_reading_and_writing_to_memory_are_free() -> None:
    harmless = """
        open(path)
        open(path, "rb")
        path.open()
        path.open("rb")
        path.open(encoding="utf-8")
        dataset.open(root, seed=1)
        zipfile.ZipFile(path)
        tarfile.open(path, "r:gz")
        os.open(path, os.O_RDONLY)
        os.open(os.devnull, os.O_WRONLY)
        word.replace("w", "a")
        dataclasses.replace(value, field=1)
        store.write_bytes(path, data)
        store.rename(path, other)
        names.remove("x")
        archive = io.BytesIO()
        zipfile.ZipFile(archive, "w")
        with io.StringIO() as text:
            figure.savefig(text, format="svg")
        safetensors.torch.save(tensors)
    """
    assert violations(textwrap.dedent(harmless)) == []
