"""Results as text for a terminal: a table with a row, or a grid with a column per contestant."""

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from rmploss_bench.contestants import DENSE, RIVAL
from rmploss_bench.hardware import hardware, package_version
from rmploss_bench.methods import VANILLA
from rmploss_bench.rows import Race
from rmploss_bench.timing import Result


def title(race: Race) -> str:
    """The heading of a table: network, size, hardware and images."""
    conditions = race.conditions
    return f"{conditions.network}  {size(race)}, {hardware(conditions.device)}, {race.images}"


def size(race: Race) -> str:
    """T, batch, width, precision and threads in words."""
    conditions = race.conditions
    several = "s" * (conditions.threads > 1)
    head = f"T={conditions.T} batch={conditions.batch} width={conditions.width:g}"
    return f"{head} {conditions.precision} {conditions.threads} thread{several}"


def table(race: Race) -> Table:
    """A row per contestant; in place of a missing figure stands the reason."""
    filled = Table(box=None, pad_edge=False, header_style="bold")
    filled.add_column("")
    units = [*dict.fromkeys(result.what for result in race.results)]
    unit = units[0] if len(units) == 1 else ""
    for head in (unit, "min", "max", *(head for _, head in _against(race))):
        filled.add_column(head, justify="right")
    filled.add_column("gate", overflow="fold")
    for result in race.results:
        name = _name(result) + f", {result.what}" * (not unit)
        filled.add_row(name, *_cells(race, result), escape(result.status))
    return filled


def grid(lines: Mapping[str, Sequence[Result]]) -> Table:
    """A line per measurement, a column per contestant; medians in milliseconds.

    lines: what was measured -> the results of its contestants.
    """
    names = dict.fromkeys(result.contestant for line in lines.values() for result in line)
    filled = Table(box=None, pad_edge=False, header_style="bold")
    filled.add_column("milliseconds")
    for name in names:
        filled.add_column(name, justify="right")
    for head, line in lines.items():
        shown = {result.contestant: result for result in line}
        filled.add_row(escape(head), *(_milliseconds(shown.get(name)) for name in names))
    return filled


def reasons(results: Iterable[Result]) -> list[str]:
    """The reasons of the results that have no figure, each once."""
    return [
        *dict.fromkeys(
            f"{result.contestant}: {result.status}" for result in results if not result.figures
        )
    ]


def _milliseconds(result: Result | None) -> str:
    if result is None:
        return ""
    return f"{1000 * result.median:.4g}" if result.figures else "-"


def _name(result: Result) -> str:
    peer = package_version(result.contestant)
    ours = result.contestant.startswith("rmploss")
    return result.contestant if ours or not peer else f"{result.contestant} ({peer})"


def _against(race: Race) -> list[tuple[str, str]]:
    there = {result.contestant for result in race.results}
    known = ((RIVAL, "SpikingJelly = 1"), (DENSE, "dense bound = 1"), (VANILLA, "vanilla = 1"))
    return [(name, head) for name, head in known if name in there]


def _cells(race: Race, result: Result) -> Sequence[str]:
    if not result.figures:
        return ["-"] * (3 + len(_against(race)))
    ratios = (race.ratio(result, name) for name, _ in _against(race))
    shown = (result.median, min(result.figures), max(result.figures))
    return [
        *(figure(value, result.what) for value in shown),
        *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
    ]


def figure(value: float, what: str) -> str:
    """A figure with as many digits as a reader needs; bytes are shown in MiB.

    value: in the unit that `what` names.
    what: what was measured, such as "step (s)".
    """
    if "bytes" in what:
        return f"{value / 2**20:,.1f} MiB"
    return f"{value:,.1f}" if "images" in what else f"{value:.4g}"
