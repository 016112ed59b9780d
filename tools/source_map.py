"""Generated lists of the documents: file tree, files of each equation, index of decisions."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
EQUATIONS = {
    (1, 3): "LIF neuron: leak and input, spike, reset",
    (4, 4): "read-out: the output neuron accumulates",
    (5, 5): "surrogate gradient",
    (6, 7): "tdBN",
    (8, 10): "quantization error and L_RMP",
    (11, 12): "total loss and lambda(n)",
    (13, 17): "information loss (section 4.3)",
}
"""(first, last) equation of the paper -> topic."""


def packages() -> list[Path]:
    """`rmploss`, and the packages in `benchmarks/`."""
    beside = sorted((ROOT / "benchmarks").glob("*/__init__.py"))
    return [
        ROOT / "src" / "rmploss",
        *(file.parent for file in beside if file.parent.name != "tests"),
    ]


def package_map() -> str:
    """The file tree of every package, each file with the first line of its docstring."""
    trees = ["\n".join(_tree(package)) for package in packages()]
    return "```\n" + "\n\n".join(trees) + "\n```"


def _tree(package: Path) -> Iterator[str]:
    for path in sorted(package.rglob("*.py"), key=lambda p: (p.parent.relative_to(package), p)):
        place = path.relative_to(package)
        if place.name == "__main__.py":
            continue
        folder = place.name == "__init__.py"
        depth = len(place.parts) - (2 if folder and len(place.parts) > 1 else 1)
        name = f"{place.parent.name}/" if folder else place.name
        root = folder and len(place.parts) == 1
        name = f"{package.name}/" if root else "  " * (depth + 1) + name
        yield f"{name:<26}{_first_line(path)}"


def native_map() -> str:
    """The C++ files, each with the first sentence of its head comment."""
    files = sorted((ROOT / "native").glob("*.[ch]*"))
    lines = [f"{path.name:<26}{_first_line(path)}" for path in files]
    return "```\n" + "\n".join(lines) + "\n```"


def equations() -> str:
    """The files of each equation of the paper, by the first lines of the files."""
    files = [path for package in packages() for path in sorted(package.rglob("*.py"))]
    files += sorted((ROOT / "native").glob("*.[ch]*"))
    named = {path: set(equations_in(_first_line(path))) for path in files}
    lines = ["| Eq. | what | files |", "|---|---|---|"]
    for (first, last), what in EQUATIONS.items():
        wanted = set(range(first, last + 1))
        matching = [path for path in files if named[path] & wanted]
        matching.sort(key=lambda path: path.name != "reference.py")
        if not matching:
            sys.exit(f"no file names Eq. {first} in its first line")
        links = [_link(path) for path in matching]
        number = str(first) if first == last else f"{first}-{last}"
        lines.append(f"| {number} | {what} | {', '.join(links)} |")
    return "\n".join(lines)


def equations_in(line: str) -> Iterator[int]:
    """Numbers of equations in "Eqs. 1-3, 6 and 9"."""
    for listed in re.findall(r"Eqs?\. ((?:\d+(?:-\d+)?(?:, | and )?)+)", line):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", listed):
            yield from range(int(first), int(last or first) + 1)


def _link(path: Path) -> str:
    place = path.relative_to(ROOT)
    shown = place.relative_to("src/rmploss") if place.parts[0] == "src" else place
    return f"[`{shown}`](../{place})"


def _first_line(path: Path) -> str:
    """The first line of a Python docstring, or the first sentence of a C++ head comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
    comment = re.match(r"(?://.*\n)+", text)
    if comment is None:
        sys.exit(f"{path} has no head comment")
    words = " ".join(line.removeprefix("//").strip() for line in comment[0].splitlines())
    return re.split(r"(?<=\.) +(?=[A-Z])", words)[0]


def decisions() -> str:
    """The index of `docs/decisions.md`: number, title, date, status."""
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (\d+)\. (.+)$", text, re.MULTILINE)
    entry = re.compile(r"^## (\d+)\. (.+)\n\n\*(\d{4}-\d\d-\d\d) · (.+)\*$", re.MULTILINE)
    entries = entry.findall(text)
    if [number for number, _ in heads] != [str(i + 1) for i in range(len(heads))]:
        sys.exit("docs/decisions.md: the entries are not numbered 1, 2, 3, ...")
    if len(entries) != len(heads):
        lack = {number for number, _ in heads} - {number for number, *_ in entries}
        sys.exit(f"docs/decisions.md: no line '*DATE · STATUS*' below {', '.join(sorted(lack))}")
    lines = ["| | decision | date | status |", "|---:|---|---|---|"]
    for number, title, date, status in entries:
        anchor = anchor_of(f"{number}. {title}")
        lines.append(f"| {number} | [{title}](#{anchor}) | {date} | {status} |")
    return "\n".join(lines)


def anchor_of(heading: str) -> str:
    """The anchor of a Markdown heading: lower case, no punctuation, hyphens for spaces."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")
