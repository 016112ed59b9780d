"""The tables of docs/fair-best.md: tries, own numbers, who takes part, and rows in `results/`."""

from source_map import ROOT

from rmploss.engine.rows import Rows
from rmploss.recipes import FAIR, METHODS, Recipe
from rmploss.recipes.fair import PREFIX
from rmploss.recipes.fair_best import FULL, OWN, POCKET, Protocol, spelled
from rmploss.report.fair_best import lines

HEADS = (
    "method",
    "fair",
    "chosen",
    "change",
    "best epoch",
    "q",
    "+ RMP-Loss",
    "change",
    "of q",
    "seeds",
)


def steps() -> str:
    """Optimizer, rate and decay of every try, which all systems share, in either size."""
    table = [
        "| try | optimizer | learning rate, pocket | full size | weight decay |",
        "|---:|---|---:|---:|---:|",
    ]
    sizes = [_tries(protocol, "vanilla") for protocol in (POCKET, FULL)]
    for number, (small, large) in enumerate(zip(*sizes, strict=True), 1):
        cells = (small.optimizer.name, small.lr, large.lr, _decay(small, large))
        table.append("| " + " | ".join([f"{number}", *map(_cell, cells)]) + " |")
    return "\n".join(table)


def _tries(protocol: Protocol, system: str) -> list[Recipe]:
    return [protocol.try_of(system, setting) for setting in protocol.settings(system)]


def _decay(small: Recipe, large: Recipe) -> str:
    """That of a try in both sizes, once where it is the same."""
    decays = dict.fromkeys(f"{recipe.weight_decay:g}" for recipe in (small, large))
    return " or ".join(decays)


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def taking_part() -> str:
    """How many of the methods take part, and which do not."""
    fair = [name for name in METHODS if f"{PREFIX}{name}" in {recipe.name for recipe in FAIR}]
    absent = ", ".join(METHODS[name].title for name in fair if name not in OWN)
    if not absent:
        return f"All {len(fair)} methods of the fair comparison take part."
    return (
        f"{len(OWN)} of {len(fair)} methods of the fair comparison take part. The others have no "
        f"tries: {absent}."
    )


def tried() -> str:
    """Accuracy of every try, on the images that it was tested on."""
    rows = Rows(ROOT / "results" / POCKET.file)
    heads = [f"{recipe.optimizer.name} {recipe.lr:g}" for recipe in _tries(POCKET, "vanilla")]
    heads[0] += " (fair)"
    table = ["| method | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for system in OWN:
        found = [rows.of(recipe) for recipe in _tries(POCKET, system)]
        cells = ["" if row is None else row.outcome or f"{row.accuracy:.1f}" for row in found]
        table.append(f"| {METHODS[system].title} | " + " | ".join(cells) + " |")
    return "\n".join(table)


def own_numbers() -> str:
    """The numbers that each system may try, and their candidates."""
    rows = ["| method | own numbers and their candidates |", "|---|---|"]
    for system, candidates in OWN.items():
        parts = [
            f"`{name}`: " + ", ".join(spelled({name: value}).partition("=")[2] for value in values)
            for name, values in candidates.items()
        ]
        rows.append(f"| {METHODS[system].title} | {'; '.join(parts)} |")
    return "\n".join(rows)


def results() -> str:
    """The table of `rmploss table fair-best --pocket`, and the chosen settings."""
    found = lines(POCKET, ROOT / "results")
    table = ["| " + " | ".join(HEADS) + " |", "|---|" + "---:|" * (len(HEADS) - 1)]
    chosen = ["| method | chosen setting | accuracy of the try (%) |", "|---|---|---:|"]
    for o in found:
        known = (o.fair, o.last, o.change, o.best, o.error)
        added = (o.with_rmp, o.rmp_change, o.rmp_error_change)
        cells = (o.method, *known, *added, str(o.seeds))
        table.append("| " + " | ".join(cells) + " |")
        setting = f"`{o.setting}`" if "=" in o.setting else o.setting
        chosen.append(f"| {o.method} | {setting or 'not run'} | {o.validation} |")
    return "\n".join([*table, "", *chosen])
