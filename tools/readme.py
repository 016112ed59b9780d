"""Write the generated parts of README.md: `python tools/readme.py`; `--check` only compares.

The map of the package comes from the first docstring line of each file, the table of open readings
from `recipes/readings.py`, the results from the CSV files in `results/`. A test runs the check.
"""

import ast
import csv
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from rmploss.recipes import METHODS, READINGS, SUFFIX
from rmploss.recipes.fair import PREFIX, WITH_RMP

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def package_map() -> str:
    """The annotated file tree."""
    source = ROOT / "src" / "rmploss"
    lines = []
    for path in sorted(source.rglob("*.py"), key=lambda p: (p.parent.relative_to(source), p.name)):
        place = path.relative_to(source)
        if place.name == "__main__.py":
            continue
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        folder = place.name == "__init__.py"
        depth = len(place.parts) - (2 if folder and len(place.parts) > 1 else 1)
        name = f"{place.parent.name}/" if folder else place.name
        name = "rmploss/" if folder and len(place.parts) == 1 else "  " * (depth + 1) + name
        lines.append(f"{name:<26}{first}")
    return "```\n" + "\n".join(lines) + "\n```"


def readings() -> str:
    """What the paper leaves open."""
    lines = ["| field | paper (default) | `--mode code` | why |", "|---|---|---|---|"]
    lines += [f"| `{r.field}` | {r.paper} | {r.code} | {r.reason} |" for r in READINGS]
    return "\n".join(lines)


def pocket_results() -> str:
    """The pocket runs: mean and standard deviation over seeds."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for path in sorted((ROOT / "results").glob("pocket-*.csv")):
        with path.open() as lines:
            for row in csv.DictReader(lines):
                groups[row["recipe"], row["k"]].append(row)
    lines = [
        "| recipe | k | seeds | accuracy, last epoch (%) | quantization error | firing rate |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for (recipe, k), rows in groups.items():
        cells = [
            _mean_std([float(row[field]) for row in rows], digits)
            for field, digits in (
                ("last_accuracy", 2),
                ("quantization_error", 4),
                ("firing_rate", 4),
            )
        ]
        lines.append(f"| `{recipe}` | {k} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fair_results() -> str:
    """The fair comparison: every method alone, and what RMP-Loss changes when it is added."""
    by_name: dict[str, list[dict[str, str]]] = defaultdict(list)
    for path in sorted((ROOT / "results").glob("fair-*.csv")):
        with path.open() as lines:
            for row in csv.DictReader(lines):
                name = row["recipe"].removeprefix(PREFIX).removesuffix(SUFFIX)
                by_name[name].append(row)

    def mean(name: str, field: str) -> float:
        return statistics.mean(float(row[field]) for row in by_name[name])

    def change(name: str, both: str, field: str) -> float:
        """The mean difference over the seeds that both have."""
        with_rmp, without = (
            {row["seed"]: float(row[field]) for row in by_name[n]} for n in (both, name)
        )
        return statistics.mean(with_rmp[s] - without[s] for s in with_rmp.keys() & without)

    costs = _costs()
    alone = sorted(
        (name for name in by_name if not name.endswith(WITH_RMP)),
        key=lambda name: -mean(name, "last_accuracy"),
    )
    lines = [
        "| method | accuracy (%) | q | rate | energy (uJ) | step | + RMP-Loss: accuracy | q |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in alone:
        cells = [METHODS[name].title]
        for field, digits in FAIR_FIELDS:
            values = [float(row[field]) for row in by_name[name] if row[field]]
            cells.append(_mean_std(values, digits) if values else "")
        cells.append(costs.get(name, ""))
        both = "rmp" if name == "vanilla" else name + WITH_RMP
        if both in by_name:
            for field, digits in FAIR_FIELDS[:2]:
                cells.append(f"{change(name, both, field):+.{digits}f}")
        else:
            cells += ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _costs() -> dict[str, str]:
    """A training step of every method, over that of the vanilla network."""
    found: dict[str, float] = {}
    for path in sorted((ROOT / "benchmarks" / "rows").glob("methods-resnet20-*.csv")):
        found = {name: float(row["median"]) for name, row in _figures(path).items()}
    return {name: f"{seconds / found['vanilla']:.2f}" for name, seconds in found.items()}


FAIR_FIELDS = (
    ("last_accuracy", 1),
    ("quantization_error", 3),
    ("firing_rate", 3),
    ("microjoules", 1),
)
"""What the fair table tells, and with how many digits."""
MEASURED = (("step", 1.0, "s"), ("memory", 2.0**20, "MiB"), ("eval", 1.0, "images/s"))
"""Topics of `rmploss bench`, and their units."""


def speed() -> str:
    """A table per network: every contestant, what was measured, and the ratio to SpikingJelly's."""
    tables = []
    for network in ("resnet20", "resnet19", "vgg16"):
        found = {
            topic: _figures(path)
            for topic, *_ in MEASURED
            for path in (ROOT / "benchmarks" / "rows").glob(f"{topic}-{network}-*.csv")
        }
        first = next(iter(found["step"].values()))
        setting = "{network}, T = {T}, batch {batch}, {threads} threads".format(**first)
        units = [(topic, scale, unit) for topic, scale, unit in MEASURED if topic in found]
        heads = [setting, *(f"{topic} ({unit})" for topic, _, unit in units)]
        heads[0] = heads[0].replace("resnet", "ResNet").replace("vgg", "VGG")
        lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * len(units)]
        for name, row in found["step"].items():
            cells = [_cell(found[topic].get(name), scale) for topic, scale, _ in units]
            who = f"{name} {row['version']}".replace(" 0.1.0", "").strip()
            lines.append(f"| {who} | " + " | ".join(cells) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _figures(path: Path) -> dict[str, dict[str, str]]:
    with path.open() as lines:
        return {row["contestant"]: row for row in csv.DictReader(lines)}


def _cell(row: dict[str, str] | None, scale: float) -> str:
    if row is None or not row["median"]:
        return "" if row is None else row["gate"]
    ratio = f" ({float(row['ratio_to_spikingjelly']):.2f})" if row["ratio_to_spikingjelly"] else ""
    return f"{float(row['median']) / scale:.3g}{ratio}"


def _mean_std(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


BLOCKS: dict[str, Callable[[], str]] = {
    "map": package_map,
    "readings": readings,
    "pocket": pocket_results,
    "fair": fair_results,
    "speed": speed,
}


def generated(text: str) -> str:
    """The text with every generated block made anew."""
    for name, make in BLOCKS.items():
        text = _filled(text, name, make())
    return text


def _filled(text: str, name: str, made: str) -> str:
    block = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    text, found = block.subn(lambda match: f"{match[1]}{made}\n{match[2]}", text)
    if found != 1:
        sys.exit(f"README.md has {found} blocks named {name}, not 1")
    return text


if __name__ == "__main__":
    before = README.read_text()
    after = generated(before)
    if sys.argv[1:] != ["--check"]:
        README.write_text(after)
    elif before != after:
        sys.exit("README.md is out of date: run python tools/readme.py")
