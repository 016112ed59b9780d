"""The tables of docs/fair-best.md: own numbers of the systems, and the rows in `results/`."""

from source_map import ROOT

from rmploss.recipes import METHODS
from rmploss.recipes.fair_best import OWN, POCKET, spelled
from rmploss.report.fair_best import lines

HEADS = (
    "method",
    "fair",
    "at its best",
    "change",
    "best epoch",
    "q",
    "+ RMP-Loss",
    "change",
    "of q",
    "seeds",
)


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
