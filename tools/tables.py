"""The tables of the documents: from the recipes, and from the rows in `results/`, `benchmarks/`."""

import csv
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from source_map import ROOT

from rmploss.recipes import METHODS, READINGS, ROWS, SUFFIX, get
from rmploss.recipes.fair import PREFIX, WITH_RMP
from rmploss.report.recorded import Recorded

FAIR_FIELDS = (
    ("last_accuracy", 1),
    ("quantization_error", 3),
    ("firing_rate", 3),
    ("microjoules", 1),
)
"""The columns of the fair table -> decimals."""
DECAYS = {"weights": "decay on weights only", "all": "decay on all parameters"}
"""The columns of the table of readings: `weight_decay_on` -> words."""
ERRORS = {
    "quantization_error": ("q of u_pre, mean of layers", 3),
    "quantization_error_of_elements": ("q of u_pre, all values", 3),
    "input_quantization_error": ("q of the input current, mean of layers", 3),
    "input_quantization_error_of_elements": ("q of the input current, all values", 3),
}
READ = ERRORS | {"firing_rate": ("firing rate", 3), "last_accuracy": ("accuracy (%)", 1)}
"""Its rows: a column of the CSV -> words, decimals."""
MEASURED = (("step", 1.0, "s"), ("memory", 2.0**20, "MiB"), ("eval", 1.0, "images/s"))
"""Topics of `rmploss bench`, their scale and unit."""
HEADLINE = (
    ("step", "training step", 1.0, "s", "rmploss+rmp"),
    ("memory", "peak memory of a step", 2.0**20, "MiB", "rmploss+rmp"),
    ("eval", "evaluation", 1.0, "images/s", "rmploss"),
    ("epoch", "training, loading and evaluation", 1.0, "epochs/hour", "rmploss+rmp"),
)
"""The rows of the headline: topic, text, scale, unit, contestant of rmploss."""


def headline() -> str:
    """The measurements beside SpikingJelly: a row for each topic, with its command."""
    lines = [
        "| | rmploss | SpikingJelly | ratio | ratio to it compiled | command |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for topic, what, scale, unit, contestant in HEADLINE:
        figures = _figures(_only(f"{topic}-resnet20-*.csv"))
        ours, peer = (float(figures[name]["median"]) for name in (contestant, "spikingjelly"))
        compiled = float(figures["spikingjelly-compiled"]["median"])
        cells = [
            what,
            f"**{ours / scale:.3g} {unit}**",
            f"{peer / scale:.3g}",
            f"**{ours / peer:.3g}**",
            f"{ours / compiled:.2f}",
            f"`{figures[contestant]['command']}`",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table1() -> str:
    """Table 1 of the paper beside the full-size rows in `results/`, of unchanged recipes."""
    lines = [
        "| `rmploss train ...` | T | paper: accuracy (%) | quantization error | here |",
        "|---|---:|---:|---:|---|",
    ]
    recorded = Recorded.read(ROOT / "results")
    for published in (row for row in ROWS if row.table == 1):
        found, _ = recorded.of(get(published.recipe).but(T=published.T))
        ours = [numbers["last_accuracy"] for numbers in found.values()]
        here = _mean_std(ours, 2) if ours else "not run"
        error = "" if published.error is None else f"{published.error:.3f}"
        cells = [f"`{published.recipe}`", str(published.T), published.words, error, here]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def readings() -> str:
    """The open points of the paper."""
    lines = [
        "| field | paper (default) | the group's code | `--mode code` | why |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| `{r.field}` | {r.paper} | {r.code} | {r.taken} | {r.reason} |" for r in READINGS]
    return "\n".join(lines)


def decay_readings() -> str:
    """The four readings of the quantization error by what is decayed, a table for each network."""
    paths = sorted((ROOT / "results").glob("readings-*.csv"))
    return "\n\n".join(_decay_table(_rows(path)) for path in paths)


def _decay_table(rows: list[dict[str, str]]) -> str:
    """Means over the seeds without and with RMP-Loss, and their ratio."""
    groups: dict[tuple[str, bool], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[row["weight_decay_on"], float(row["k"]) > 0].append(row)
    seeds = " or ".join(sorted({str(len(group)) for group in groups.values()}))
    heads = [f"`{rows[0]['recipe']}`, seeds: {seeds}", *DECAYS.values()]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---|" * len(DECAYS)]
    for field, (words, digits) in READ.items():
        cells = [words]
        for on in DECAYS:
            before, after = (
                statistics.mean(float(row[field]) for row in groups[on, with_rmp])
                for with_rmp in (False, True)
            )
            ratio = f" ({after / before:.2f})" if field in ERRORS else ""
            cells.append(f"{before:.{digits}f} to {after:.{digits}f}{ratio}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def methods() -> str:
    """The methods of the paper's tables: name, title, idea, and the recipe with RMP-Loss."""
    lines = ["| name | method | idea | RMP-Loss added |", "|---|---|---|---|"]
    for method in METHODS.values():
        added = method.alone or f"`fair-{method.name}{WITH_RMP}`"
        lines.append(f"| `{method.name}` | {method.title} | {method.idea} | {added} |")
    return "\n".join(lines)


def cards() -> str:
    """Every method's equations, sources, open points and recipes."""
    return "\n\n".join(card(name) for name in METHODS)


def card(name: str) -> str:
    """A method's equations, sources, open points and recipes, below a heading."""
    method = METHODS[name]
    source = f"{method.paper}. Code: {method.code}." if method.code else f"{method.paper}."
    equations = "\n".join(f"    {line}" for line in method.equations.splitlines())
    parts = [f"### {method.title}", source, f"In inference: {method.inference}.", equations]
    if method.reservation:
        parts.append(f"In the fair comparison: {method.reservation}.")
    parts += [f"`{recipe}`: {why}." for recipe, why in method.unlearnt.items()]
    if method.doubts:
        parts.append("\n".join(f"* {doubt}" for doubt in method.doubts))
    if method.recipes:
        parts.append("Recipes: " + ", ".join(f"`{recipe.name}`" for recipe in method.recipes) + ".")
    return "\n\n".join(parts)


def pocket_results() -> str:
    """The pocket runs: mean and standard deviation over seeds."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for path in sorted((ROOT / "results").glob("pocket-*.csv")):
        for row in _rows(path):
            groups[row["recipe"], row["k"]].append(row)
    lines = [
        "| recipe | k | seeds | accuracy, last epoch (%) | quantization error | firing rate |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    fields = (("last_accuracy", 2), ("quantization_error", 4), ("firing_rate", 4))
    for (recipe, k), rows in groups.items():
        cells = [_mean_std([float(row[field]) for row in rows], digits) for field, digits in fields]
        lines.append(f"| `{recipe}` | {k} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fair_results() -> str:
    """The fair comparison: every method alone, and the changes by adding RMP-Loss."""
    by_name = _fair_rows()

    def mean(name: str, field: str) -> float:
        return statistics.mean(float(row[field]) for row in by_name[name])

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
        for field, digits in FAIR_FIELDS[:2]:
            changes = _changes(by_name, name, field)
            cells.append(f"{statistics.mean(changes):+.{digits}f}" if changes else "")
        lines.append("| " + " | ".join(cells) + " |")
    told = [METHODS[name] for name in alone if METHODS[name].reservation]
    return "\n".join(lines + [f"\n{method.title}: {method.reservation}." for method in told])


def fair_effect() -> str:
    """In how many networks RMP-Loss lowers the error, raises and lowers the accuracy."""
    by_name = _fair_rows()
    found = {
        name: (
            _changes(by_name, name, "last_accuracy"),
            _changes(by_name, name, "quantization_error"),
        )
        for name in by_name
    }
    added = {name: both for name, both in found.items() if both[0]}
    lower = sum(max(errors) < 0 for _, errors in added.values())
    up = [
        METHODS[name].title.partition(" (")[0]
        for name, (gains, _) in added.items()
        if min(gains) > 0
    ]
    down = sum(max(gains) < 0 for gains, _ in added.values())
    return (
        f"With every seed RMP-Loss lowers the quantization error in {lower} of the {len(added)} "
        f"networks that it is added to, raises the accuracy in {len(up)} ({', '.join(sorted(up))}) "
        f"and lowers it in {down}."
    )


def _fair_rows() -> dict[str, list[dict[str, str]]]:
    """The rows of the fair comparison in pocket size, by method, with RMP-Loss too ("im-rmp")."""
    by_name: dict[str, list[dict[str, str]]] = defaultdict(list)
    for path in sorted((ROOT / "results").glob("fair-*pocket-2xEPYC.csv")):
        for row in _rows(path):
            by_name[row["recipe"].removeprefix(PREFIX).removesuffix(SUFFIX)].append(row)
    return by_name


def _changes(by_name: Mapping[str, list[dict[str, str]]], name: str, field: str) -> list[float]:
    """What adding RMP-Loss changes, of each common seed; empty where it was not added."""
    both = "rmp" if name == "vanilla" else name + WITH_RMP
    first, second = (
        {row["seed"]: float(row[field]) for row in by_name.get(key, ())} for key in (name, both)
    )
    return [second[seed] - first[seed] for seed in sorted(second.keys() & first)]


def _costs() -> dict[str, str]:
    """The time of a training step of every method, over that of the vanilla network."""
    figures = _figures(_only("methods-resnet20-*.csv"))
    medians = {name: float(row["median"]) for name, row in figures.items()}
    return {name: f"{seconds / medians['vanilla']:.2f}" for name, seconds in medians.items()}


def speed() -> str:
    """A table per network: every contestant, its figures, and their ratios to SpikingJelly's."""
    tables = []
    for network in ("resnet20", "resnet19", "vgg16"):
        figures = {
            topic: _figures(path)
            for topic, *_ in MEASURED
            for path in (ROOT / "benchmarks").rglob(f"{topic}-{network}-*.csv")
        }
        first = next(iter(figures["step"].values()))
        conditions = "{network}, T = {T}, batch {batch}, {threads} threads".format(**first)
        units = [(topic, scale, unit) for topic, scale, unit in MEASURED if topic in figures]
        heads = [conditions, *(f"{topic} ({unit})" for topic, _, unit in units)]
        heads[0] = heads[0].replace("resnet", "ResNet").replace("vgg", "VGG")
        lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * len(units)]
        for name, row in figures["step"].items():
            cells = [_cell(figures[topic].get(name), scale) for topic, scale, _ in units]
            contestant = f"{name} {row['version']}".replace(" 0.1.0", "").strip()
            lines.append(f"| {contestant} | " + " | ".join(cells) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _cell(row: dict[str, str] | None, scale: float) -> str:
    if row is None or not row["median"]:
        return "" if row is None else row["gate"]
    ratio = f" ({float(row['ratio_to_spikingjelly']):.2f})" if row["ratio_to_spikingjelly"] else ""
    return f"{float(row['median']) / scale:.3g}{ratio}"


def _only(pattern: str) -> Path:
    """The only file in `benchmarks/` whose name matches."""
    (path,) = (ROOT / "benchmarks").rglob(pattern)
    return path


def _figures(path: Path) -> dict[str, dict[str, str]]:
    return {row["contestant"]: row for row in _rows(path)}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [*csv.DictReader(lines)]


def _mean_std(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
