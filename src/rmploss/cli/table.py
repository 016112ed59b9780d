"""`rmploss table N`: a table of the paper, or the fair comparison, beside your runs."""

import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from rmploss.cli.wrapping import say
from rmploss.errors import DamagedRunError, Problem, UserError

if TYPE_CHECKING:
    from rmploss.report.tables import Line


@dataclass(frozen=True)
class Table:
    """Print a table of the paper, the results of your runs, and the command of each empty cell.

    $ rmploss table 1
    $ rmploss table 2 --pocket
    $ rmploss table fair --pocket     every method on one protocol, ranked

    Runs with a damaged record are counted in the last column, and named in an error; the exit code
    is then 9.
    """

    which: Annotated[Positional[str], arg(metavar="1|2|3|4|fair")]
    """1: ablation; 2: CIFAR; 3: CIFAR10-DVS; 4: ImageNet; fair: only the method differs."""
    pocket: bool = False
    """The pocket variants of its recipes, without the published numbers."""
    runs_dir: Path = Path("runs")
    """The folder of run folders."""
    json: bool = False
    """One JSON object per row on standard output, for programs."""

    def run(self) -> int:
        """Print it; raises `DamagedRunError` for damaged runs."""
        from rmploss.report.tables import damaged_runs, fair_table, table, unreadable_runs

        fair = self.which == "fair"
        if not fair and not self.which.isdecimal():
            raise UserError(
                "no such table", [Problem(self.which, "is not a table", "1, 2, 3, 4 or fair")]
            )
        if self.runs_dir != Path("runs") and not self.runs_dir.is_dir():
            fix = "rmploss table without --runs-dir reads ./runs"
            raise UserError("no runs", [Problem(str(self.runs_dir), "is not a folder", fix)])
        if fair:
            lines = fair_table(self.runs_dir, pocket=self.pocket)
        else:
            lines = table(int(self.which), self.runs_dir, pocket=self.pocket)
        damaged = damaged_runs(self.runs_dir)
        told = {str(Path(problem.where).parent) for problem in damaged}
        for problem in unreadable_runs(self.runs_dir):
            if problem.where.partition(": ")[0] in told:
                continue
            text = f"left out: {problem.where}: {problem.what}   {problem.fix}"
            print(text.rstrip(), file=sys.stderr)
        self._print(lines, fair)
        if damaged:
            raise DamagedRunError("damaged runs, which the table leaves out", damaged)
        return 0

    def _print(self, lines: Sequence["Line"], fair: bool) -> None:
        if self.json:
            for line in lines:
                print(json_module.dumps(asdict(line)))
            return
        title = "Fair comparison" if fair else f"Table {self.which}"
        print(title + ", pocket size: not comparable with the paper" * self.pocket)
        print("accuracy in %, of the last and of the best epoch; q: quantization error")
        if fair:
            print("rate: spikes per neuron and step; energy: synaptic operations of an inference;")
            print("train: processor time of all threads")
        print("ours: mean ± standard deviation over the seeds")
        _print(_fair_rows(lines) if fair else _rows(lines))
        if self.which == "1" and any(line.ours for line in lines):
            print("\nq in four readings of Eq. 10: of u_pre or of the input current x,")
            print("as the mean of the layers' means or as the mean of all values")
            _print(_readings(lines))
        for line in lines:
            if line.reservation and not line.method.endswith("+ RMP-Loss"):
                say(f"{line.method}: {line.reservation}.", indent=2)
        empty = [line.command for line in lines if line.ours is None]
        if empty:
            print("\nto fill the empty cells:")
            print("\n".join(f"  {command}" for command in dict.fromkeys(empty)))


def _rows(lines: Sequence["Line"]) -> list[tuple[str, ...]]:
    heads = ("method", "recipe", "T", "paper", "q", "ours, last", "best", "q", "seeds")
    rows: list[tuple[str, ...]] = [heads]
    for line in lines:
        ours = line.ours
        filled = ("damaged" if line.damaged else "not run", "", "", _seeds(line))
        if ours:
            filled = (ours.last, ours.best, ours.error, _seeds(line))
        known = (line.method, line.recipe, str(line.T), line.published, line.published_error)
        rows.append((*known, *filled))
    return rows


def _readings(lines: Sequence["Line"]) -> list[tuple[str, ...]]:
    heads = ("recipe", "paper", "u_pre, layers", "u_pre, all", "x, layers", "x, all")
    return [
        heads,
        *(
            (line.recipe, line.published_error, *(value or "-" for value in line.ours.readings))
            for line in lines
            if line.ours
        ),
    ]


def _fair_rows(lines: Sequence["Line"]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("method", "last", "best", "q", "rate", "energy (uJ)", "train (s)", "seeds")
    ]
    for line in lines:
        o = line.ours
        if o is None:
            empty = "damaged" if line.damaged else "not run"
            rows.append((line.method, empty, *[""] * 5, _seeds(line)))
            continue
        measured = (o.last, o.best, o.error, o.rate, o.energy, o.seconds)
        rows.append((line.method, *measured, _seeds(line)))
    return rows


def _seeds(line: "Line") -> str:
    """The number of runs that count, and of those that are damaged."""
    counted = str(line.ours.seeds) if line.ours else ""
    return f"{counted} ({line.damaged} damaged)".strip() if line.damaged else counted


def _print(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
