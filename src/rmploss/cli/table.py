"""`rmploss table N`: a table of the paper, or the fair comparison, beside your runs."""

import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from rmploss.cli.best_table import print_best
from rmploss.cli.columns import print_rows
from rmploss.cli.common import Flag
from rmploss.cli.wrapping import say, width_of
from rmploss.errors import DamagedRunError, Problem, UserError

if TYPE_CHECKING:
    from rmploss.report.tables import Line


@dataclass(frozen=True)
class Table:
    """Print a table of the paper, the results of your runs, and the command of each empty cell.

    $ rmploss table 1
    $ rmploss table 2 --pocket
    $ rmploss table fair --pocket     every method on one protocol, ranked
    $ rmploss table fair-best --pocket     every system at its best

    Recipes that you have not run show the results of --results, marked with *. A clone of rmploss
    has those of the pocket recipes in its folder results; an installed package has none.

    Runs with a damaged record are counted in the last column, and named in an error; the exit code
    is then 9.
    """

    which: Annotated[Positional[str], arg(metavar="1|2|3|4|fair|fair-best")]
    """1: ablation; 2: CIFAR; 3: CIFAR10-DVS; 4: ImageNet; fair, fair-best: one protocol for all."""
    pocket: Flag = False
    """The pocket variants of its recipes, without the published numbers."""
    runs_dir: Annotated[Path, arg(metavar="DIR")] = Path("runs")
    """The folder of run folders."""
    results: Annotated[
        Path | None,
        arg(metavar="DIR", help_behavior_hint="(default: ./results, or the source tree's)"),
    ] = None
    """CSV files of results, for recipes that you have not run."""
    json: Flag = False
    """One JSON object per row on standard output, for programs."""

    def run(self) -> int:
        """Print it; raises `DamagedRunError` for damaged runs."""
        from rmploss.report.recorded import default_folder
        from rmploss.report.tables import damaged_runs, fair_table, table, unreadable_runs

        fair = self.which == "fair"
        if not fair and self.which != BEST and not self.which.isdecimal():
            problem = Problem(self.which, "is not a table", f"1, 2, 3, 4, fair or {BEST}")
            raise UserError("no such table", [problem])
        if self.runs_dir != Path("runs") and not self.runs_dir.is_dir():
            fix = "rmploss table without --runs-dir reads ./runs"
            raise UserError("no runs", [Problem(str(self.runs_dir), "is not a folder", fix)])
        if self.results is not None and not self.results.is_dir():
            fix = "rmploss table without --results"
            raise UserError("no results", [Problem(str(self.results), "is not a folder", fix)])
        results = self.results or default_folder()
        if self.which == BEST:
            shown = print_best(results, self.pocket, self.json)
            self._tell_missing(results, shown)
            return 0
        if fair:
            lines = fair_table(self.runs_dir, pocket=self.pocket, results=results)
        else:
            number = int(self.which)
            lines = table(number, self.runs_dir, pocket=self.pocket, results=results)
        damaged = damaged_runs(self.runs_dir)
        told = {str(Path(problem.where).parent) for problem in damaged}
        for problem in unreadable_runs(self.runs_dir):
            if problem.where.partition(": ")[0] in told:
                continue
            text = f"left out: {problem.where}: {problem.what}   {problem.fix}"
            print(text.rstrip(), file=sys.stderr)
        self._print(lines, fair)
        self._tell_missing(results, any(line.ours for line in lines))
        if damaged:
            raise DamagedRunError("damaged runs, which the table leaves out", damaged)
        return 0

    def _tell_missing(self, results: Path, shown: bool) -> None:
        """Say where recorded results are if a folder, or a table of full size, holds none."""
        from rmploss.report.recorded import Recorded

        if self.json:
            return
        if any(Recorded.read(results).rows):  # of recipes, not of anything else
            if not shown and not self.pocket:
                print()
                say("nothing of full size has been run here; in pocket size:", 2)
                print(f"  rmploss table {self.which} --pocket")
            return
        where = "here" if self.results is None else f"in {self.results}"
        print()
        say(f"no recorded results {where}; a clone of rmploss has those of the pocket recipes:", 2)
        print(f"  rmploss table {self.which} --pocket --results CLONE/results")

    def _print(self, lines: Sequence["Line"], fair: bool) -> None:
        if self.json:
            for line in lines:
                print(json_module.dumps(asdict(line)))
            return
        title = "Fair comparison" if fair else f"Table {self.which}"
        say(title + ", pocket size: not comparable with the paper" * self.pocket, 2)
        say("accuracy in %, of the last and of the best epoch; q: quantization error", 2)
        if fair:
            say("rate: spikes per neuron and step; energy: synaptic operations of an inference;", 2)
            say("train: processor time of all threads", 2)
        say("ours: mean ± standard deviation over the seeds", 2)
        rows = _fair_rows(lines) if fair else _rows(lines)
        print_rows(rows, FAIR_STACKED if fair else STACKED, width_of(sys.stdout))
        files = sorted({file for line in lines for file in line.recorded})
        if files:
            print()
            say(f"*: not of your runs, but of {', '.join(files)}", 3)
        if self.which == "1" and any(line.ours and not line.recorded for line in lines):
            print()
            say("q in four readings of Eq. 10: of u_pre or of the input current x,", 2)
            say("as the mean of the layers' means or as the mean of all values", 2)
            print_rows(_readings(lines), READINGS_STACKED, width_of(sys.stdout))
        told = [r for r in lines if r.reservation and not r.method.endswith("+ RMP-Loss")]
        for text in dict.fromkeys(f"{line.method}: {line.reservation}." for line in told):
            say(text, indent=2)
        empty = [line.command for line in lines if line.ours is None]
        if empty:
            print("\nto fill the empty cells:")
            print("\n".join(f"  {command}" for command in dict.fromkeys(empty)))


BEST = "fair-best"
STACKED = ((0, 1), (2,), (3, 4), (5, 7), (6, 8))
"""Method over recipe, T, paper over its q, last over q, best over seeds."""
FAIR_STACKED = ((0,), (1, 2), (3, 4), (5, 6, 7))
"""Method, last over best, q over rate, energy over time over seeds."""
READINGS_STACKED = ((0,), (1,), (2, 4), (3, 5))
"""Recipe, paper, the two potentials over each other."""


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
            if line.ours and not line.recorded  # CSV files hold one reading
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
    counted += "*" * bool(line.recorded)
    return f"{counted} ({line.damaged} damaged)".strip() if line.damaged else counted
