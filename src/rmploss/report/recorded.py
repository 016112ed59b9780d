"""Results that were recorded earlier, in the CSV files that `tools/results.py` writes."""

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rmploss.engine.build import make_objective
from rmploss.engine.files import read_regular
from rmploss.objectives.rmp import RMPLoss
from rmploss.objectives.weighting import terms_of
from rmploss.recipes import Recipe

NUMBERS = (
    "last_accuracy",
    "best_accuracy",
    "quantization_error",
    "firing_rate",
    "microjoules",
    "train_cpu_s",
)
"""The columns that a table shows."""
EARLIER = "before-"
"""The prefix of files about earlier recipes of the same names: no results of present ones."""


SOURCE_TREE = Path(__file__).parents[3]
"""The clone, where the package is imported from one."""


def default_folder() -> Path:
    """./results, else that of the source tree which the package is imported from."""
    here = Path("results")
    return here if here.is_dir() else SOURCE_TREE / "results"


def rmp_amplitude(recipe: Recipe) -> float:
    """The amplitude k of a recipe's RMP-Loss, alone or among several terms; 0 without it.

    Raises `UserError` for an objective that cannot be made.
    """
    terms = terms_of(make_objective(recipe))
    return sum(term.amplitude for term in terms if isinstance(term, RMPLoss))


@dataclass(frozen=True)
class Recorded:
    """Rows of CSV files.

    rows: (file, row) by the name of the recipe.
    """

    rows: dict[str, list[tuple[Path, dict[str, str]]]]

    @staticmethod
    def read(folder: Path) -> "Recorded":
        """The rows of every CSV file in a folder; none if it does not exist."""
        rows: dict[str, list[tuple[Path, dict[str, str]]]] = defaultdict(list)
        for path in sorted(folder.glob("*.csv")) if folder.is_dir() else ():
            if path.name.startswith(EARLIER):
                continue
            try:
                text = read_regular(path).decode()
            except (OSError, UnicodeDecodeError):
                continue
            for row in csv.DictReader(io.StringIO(text)):
                rows[row.get("recipe") or ""].append((path, row))
        return Recorded(rows)

    def of(self, recipe: Recipe) -> tuple[dict[int, dict[str, float]], tuple[str, ...]]:
        """The results of a recipe by seed, and the files that hold them; of a seed the first one.

        Rows of other T, k, epochs or samples, and of runs with changed fields, are left out.
        """
        found: dict[int, dict[str, float]] = {}
        files: dict[str, None] = {}
        for path, row in self.rows.get(recipe.name, ()):
            if _is_of(row, recipe) and (seed := int(row["seed"])) not in found:
                found[seed] = {name: float(row[name]) for name in NUMBERS if row.get(name)}
                files[str(path)] = None
        return found, tuple(files)


def _is_of(row: dict[str, str], recipe: Recipe) -> bool:
    """True for the row of an unchanged recipe with all its numbers."""
    expected = {
        "T": recipe.T,
        "epochs": recipe.epochs,
        "train_samples": recipe.train_samples or "all",
        "test_samples": recipe.test_samples or "all",
    }
    try:
        float(row["last_accuracy"])
        int(row["seed"])
        k = float(row["k"])
    except (KeyError, TypeError, ValueError):
        return False
    return (
        all(row.get(name) == str(value) for name, value in expected.items())
        and k == rmp_amplitude(recipe)
        and not {"--set", "--mode", "--fork"} & set((row.get("command") or "").split())
    )
