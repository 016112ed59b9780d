"""Results as rows of a CSV file, which is named after topic, network and hardware."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmploss import store
from rmploss_bench.conditions import Conditions
from rmploss_bench.contestants import DENSE, RIVAL
from rmploss_bench.hardware import facts, label, package_version
from rmploss_bench.timing import Result

FIELDS = (
    "hardware",
    "cpus",
    "threads",
    "torch",
    "backend",
    "rmploss",
    "network",
    "T",
    "batch",
    "width",
    "images",
    "contestant",
    "version",
    "what",
    "repeats",
    "median",
    "min",
    "max",
    "ratio_to_spikingjelly",
    "ratio_to_dense",
    "gate",
    "command",
)


@dataclass(frozen=True)
class Race:
    """The results of all contestants under the same conditions.

    conditions: network, size, device, ...
    images: the source of the batch and the firing rate of the network on it, in words.
    results: one per contestant.
    """

    conditions: Conditions
    images: str
    results: Sequence[Result]

    def ratio(self, result: Result, to: str) -> float | None:
        """The figure of `result` divided by that of contestant `to`; None if either is missing.

        Dimensionless. Below 1 is better for seconds and bytes, above 1 for images per second.
        """
        for other in self.results:
            if (other.contestant, other.what) == (to, result.what):
                both = other.figures and result.figures
                return result.median / other.median if both else None
        return None


def rows(races: Sequence[Race], command: str) -> list[dict[str, str]]:
    """The rows of a CSV file; of a contestant without a figure, `gate` holds the reason."""
    return [_row(race, result, command) for race in races for result in race.results]


def _row(race: Race, result: Result, command: str) -> dict[str, str]:
    conditions, figures = race.conditions, result.figures
    return {
        **facts(conditions.device),
        "threads": str(conditions.threads),
        "network": conditions.network,
        "T": str(conditions.T),
        "batch": str(conditions.batch),
        "width": f"{conditions.width:g}",
        "images": race.images,
        "contestant": result.contestant,
        "version": package_version(result.contestant),
        "what": result.what,
        "repeats": str(len(figures)),
        "median": f"{result.median:.6g}" if figures else "",
        "min": f"{min(figures):.6g}" if figures else "",
        "max": f"{max(figures):.6g}" if figures else "",
        "ratio_to_spikingjelly": _ratio(race.ratio(result, RIVAL)),
        "ratio_to_dense": _ratio(race.ratio(result, DENSE)),
        "gate": result.status,
        "command": command,
    }


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def write(folder: Path, topic: str, races: Sequence[Race], command: str) -> Path:
    """Write `folder/TOPIC-NETWORK-HARDWARE.csv` and return its path; an older file is replaced.

    folder: is made if it does not exist.
    topic: of `rmploss bench`.
    races: what to write; all of one network and device.
    command: the command line that measured it.
    Raises `StoreError` if the file cannot be written.
    """
    conditions = races[0].conditions
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(FIELDS)
    out.writerows([row[field] for field in FIELDS] for row in rows(races, command))
    store.make_folder(folder)
    path = folder / f"{topic}-{conditions.network}-{label(conditions.device)}.csv"
    store.write_text(path, text.getvalue())
    return path
