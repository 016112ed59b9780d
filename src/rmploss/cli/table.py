"""`rmploss table N`: the paper's table beside your runs."""

import json as json_module
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Table:
    """Print a table of the paper, what your runs came to, and the command for each empty cell.

    $ rmploss table 1
    $ rmploss table 1 --pocket
    """

    number: Annotated[Positional[int], arg(metavar="N")]
    """1: ablation; 2: CIFAR; 3: CIFAR10-DVS; 4: ImageNet."""
    pocket: bool = False
    """The pocket variants of its recipes, which no published number stands beside."""
    runs_dir: Path = Path("runs")
    """Where to look for runs."""
    json: bool = False
    """One JSON object per row on standard output, for programs."""

    def run(self) -> int:
        """Print it."""
        from rmploss.report.tables import Line, table

        lines = table(self.number, self.runs_dir, pocket=self.pocket)
        if self.json:
            for line in lines:
                print(json_module.dumps(asdict(line)))
            return 0
        print(
            f"Table {self.number}" + (", pocket size: not comparable with the paper" * self.pocket)
        )
        print("accuracy in %, of the last and of the best epoch; q: quantization error")
        print("ours: mean ± standard deviation over the seeds")
        heads = ("recipe", "T", "paper", "q", "ours, last", "best", "q", "seeds")

        def cells(line: Line) -> tuple[str, ...]:
            ours = line.ours
            filled = (
                (ours.last, ours.best, ours.error, str(ours.seeds))
                if ours
                else ("not run", "", "", "")
            )
            return (line.recipe, str(line.T), line.published, line.published_error, *filled)

        rows = [heads, *map(cells, lines)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
        for row in rows:
            print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
        empty = [line.command for line in lines if line.ours is None]
        if empty:
            print("\nto fill the empty cells:")
            print("\n".join(f"  {command}" for command in dict.fromkeys(empty)))
        return 0
