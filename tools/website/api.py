"""The pages of the API, read from the source: every public name that has a docstring."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from source_map import ROOT

from website.docstrings import inline, to_markdown

PACKAGE = ROOT / "src" / "rmploss"
HIDDEN = ("cli", "triton_kernels")
"""Packages without an interface: the command line has `--help`, kernels are called by `ops`."""
LONGEST = 12
"""Lines of a constant that are shown."""


class Item(NamedTuple):
    """A function, class or constant: name in the module, first line, code, docstring."""

    name: str
    line: int
    code: str
    docstring: str


class Module(NamedTuple):
    """A module: its name below `rmploss`, file, docstring and public items."""

    name: str
    path: Path
    docstring: str
    items: tuple[Item, ...]

    @property
    def page(self) -> str:
        """The place of the page that it stands on: that of its package."""
        within = self.path.relative_to(PACKAGE).parts
        return f"api/{within[0] if len(within) > 1 else 'modules'}.md"


def titles() -> dict[str, str]:
    """The title of each page of the API -> its place."""
    pages = dict.fromkeys(module.page for module in modules())
    named = {f"rmploss.{Path(page).stem}": page for page in pages if page != "api/modules.md"}
    return {"Public names": "api/index.md", "Modules of rmploss": "api/modules.md", **named}


@cache
def modules() -> tuple[Module, ...]:
    """Every public module that documents something."""
    return tuple(module for path in sorted(PACKAGE.rglob("*.py")) if (module := _module(path)))


def _module(path: Path) -> Module | None:
    place = path.relative_to(PACKAGE)
    parts = [*place.parts[:-1], *([] if path.stem == "__init__" else [path.stem])]
    if not parts or any(part.startswith("_") or part in HIDDEN for part in parts):
        return None
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    items = tuple(_items(tree, text.splitlines()))
    return Module(".".join(parts), path, ast.get_docstring(tree) or "", items) if items else None


def _items(tree: ast.Module | ast.ClassDef, lines: list[str], within: str = "") -> Iterator[Item]:
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            docstring = ast.get_docstring(node)
            if docstring and not node.name.startswith("_"):
                code = "\n".join(_head(node, lines))
                yield Item(within + node.name, node.lineno, code, docstring)
                if isinstance(node, ast.ClassDef):
                    yield from _items(node, lines, f"{node.name}.")
        elif isinstance(tree, ast.Module) and (name := _constant(node)) and _is_text(after):
            assert isinstance(after, ast.Expr)
            assert isinstance(after.value, ast.Constant)
            shown = lines[node.lineno - 1 : node.end_lineno]
            code = "\n".join(shown if len(shown) <= LONGEST else [*shown[: LONGEST - 1], "    ..."])
            yield Item(name, node.lineno, code, str(after.value.value).strip())


def _constant(node: ast.stmt) -> str:
    """The public name that a statement assigns, or ""."""
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    name = target.id if isinstance(target, ast.Name) else ""
    return "" if name.startswith("_") else name


def _is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _head(node: ast.FunctionDef | ast.ClassDef, lines: list[str]) -> Iterator[str]:
    """The lines of a signature; of a class with its fields and the signature of its constructor."""
    first = min(part.lineno for part in (node, *node.decorator_list))
    last = max(node.lineno, node.body[0].lineno - 1)
    cut = node.col_offset
    yield from (line[cut:] for line in lines[first - 1 : last] if line.strip())
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
                yield from (line[cut:] for line in lines[part.lineno - 1 : part.end_lineno])
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                end = max(part.lineno, part.body[0].lineno - 1)
                yield from (line[cut:] for line in lines[part.lineno - 1 : end])


@cache
def _places() -> dict[str, tuple[tuple[str, str], ...]]:
    """The last part of a name -> its (page, anchor)s."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for module in modules():
        for item in module.items:
            place = (module.page, f"{module.name}.{item.name}")
            found[item.name.rpartition(".")[2]].append(place)
    return {name: tuple(places) for name, places in found.items()}


def _linked(name: str, module: Module) -> str:
    """A quoted name as Markdown: a link if one place, or one in the same module, is meant."""
    bare = name.removeprefix("rmploss.").partition("(")[0]
    places = _places().get(bare.rpartition(".")[2], ())
    places = [place for place in places if place[1] == bare or place[1].endswith(f".{bare}")]
    places = [place for place in places if place[1] == f"{module.name}.{bare}"] or places
    if len(places) != 1:
        return f"`{name}`"
    page, anchor = places[0]
    return f"[`{name}`](site:{page}#{anchor})"


def pages() -> dict[str, str]:
    """Place -> Markdown of every page of the API."""
    texts: dict[str, list[str]] = {}
    for title, place in titles().items():
        texts[place] = [f"# {title}"]
    texts["api/index.md"] += list(_public())
    for module in modules():
        texts[module.page] += list(_of_module(module))
    return {place: "\n\n".join(parts) + "\n" for place, parts in texts.items()}


def _public() -> Iterator[str]:
    """The names of `rmploss.__all__`, each with the first line of its docstring."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (listed,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    yield "What `import rmploss` gives. The other pages have everything that has a docstring."
    rows = ["| name | |", "|---|---|"]
    for name in listed:
        whole = [module for module in modules() if module.name == name]
        package = PACKAGE / name / "__init__.py"
        if whole or package.exists():
            target = f"{whole[0].page}#{name}" if whole else f"api/{name}.md"
            path = whole[0].path if whole else package
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        else:
            (module, item), *_ = [
                (module, item) for module in modules() for item in module.items if item.name == name
            ]
            target = f"{module.page}#{module.name}.{name}"
            docstring = item.docstring
        first = inline(docstring.partition("\n")[0], lambda quoted: f"`{quoted}`")
        rows.append(f"| [`rmploss.{name}`](site:{target}) | {first} |")
    yield "\n".join(rows)


def _of_module(module: Module) -> Iterator[str]:
    def link(name: str) -> str:
        return _linked(name, module)

    source = f"repo:{module.path.relative_to(ROOT).as_posix()}"
    yield f"## {module.name} {{ #{module.name} }}"
    yield to_markdown(module.docstring, link)
    for item in module.items:
        depth = "####" if "." in item.name else "###"
        yield f"{depth} {item.name} {{ #{module.name}.{item.name} }}"
        yield f"```python\n{item.code}\n```"
        yield to_markdown(item.docstring, link)
        yield f"[source]({source}#L{item.line}){{ .source }}"
