"""`rmploss table N`: a table of the paper, or the fair comparison, beside your runs."""

import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from rmploss.errors import Problem, UserError

if TYPE_CHECKING:
    from rmploss.report.tables import Line


@dataclass(frozen=True)
class Table:
    """Print a table of the paper, the results of your runs, and the command of each empty cell.

    $ rmploss table 1
    $ rmploss table 2 --pocket
    $ rmploss table fair --pocket     every method on one protocol, ranked
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
        """Print it."""
        from rmploss.report.tables import fair_table, table, unreadable_runs

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
        for problem in unreadable_runs(self.runs_dir):
            text = f"left out: {problem.where}: {problem.what}   {problem.fix}"
            print(text.rstrip(), file=sys.stderr)
        if self.json:
            for line in lines:
                print(json_module.dumps(asdict(line)))
            return 0
        title = "Fair comparison" if fair else f"Table {self.which}"
        print(title + ", pocket size: not comparable with the paper" * self.pocket)
        print("accuracy in %, of the last and of the best epoch; q: quantization error")
        if fair:
            print("rate: spikes per neuron and step; energy: synaptic operations of an inference;")
            print("train: processor time of all threads")
        print("ours: mean ± standard deviation over the seeds")
        _print(_fair_rows(lines) if fair else _rows(lines))
        empty = [line.command for line in lines if line.ours is None]
        if empty:
            print("\nto fill the empty cells:")
            print("\n".join(f"  {command}" for command in dict.fromkeys(empty)))
        return 0


def _rows(lines: Sequence["Line"]) -> list[tuple[str, ...]]:
    heads = ("method", "recipe", "T", "paper", "q", "ours, last", "best", "q", "seeds")
    rows: list[tuple[str, ...]] = [heads]
    for line in lines:
        ours = line.ours
        filled = ("not run", "", "", "")
        if ours:
            filled = (ours.last, ours.best, ours.error, str(ours.seeds))
        known = (line.method, line.recipe, str(line.T), line.published, line.published_error)
        rows.append((*known, *filled))
    return rows


def _fair_rows(lines: Sequence["Line"]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("method", "last", "best", "q", "rate", "energy (uJ)", "train (s)", "seeds")
    ]
    for line in lines:
        o = line.ours
        if o is None:
            rows.append((line.method, "not run", *[""] * 6))
            continue
        measured = (o.last, o.best, o.error, o.rate, o.energy, o.seconds)
        rows.append((line.method, *measured, str(o.seeds)))
    return rows


def _print(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
