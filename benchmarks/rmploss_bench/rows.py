"""Results as rows: ratios, and the CSV that `benchmarks/` keeps, with the hardware in its name."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmploss import store
from rmploss_bench.case import Setting
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
    """All results of one setting; images: where its batch came from, and how much it makes fire."""

    setting: Setting
    images: str
    results: Sequence[Result]

    def ratio(self, result: Result, to: str) -> float | None:
        """A figure over that of the contestant `to`; None where either is missing.

        Seconds and bytes: below 1 is better. Images per second: above 1 is better.
        """
        for other in self.results:
            if (other.contestant, other.what) == (to, result.what):
                both = other.figures and result.figures
                return result.median / other.median if both else None
        return None


def rows(races: Sequence[Race], command: str) -> list[dict[str, str]]:
    """The rows of a CSV; a contestant without a figure has one too, with the reason as its gate."""
    return [_row(race, result, command) for race in races for result in race.results]


def _row(race: Race, result: Result, command: str) -> dict[str, str]:
    made, figures = race.setting, result.figures
    return {
        **facts(made.device),
        "threads": str(made.threads),
        "network": made.network,
        "T": str(made.T),
        "batch": str(made.batch),
        "width": f"{made.width:g}",
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
    """Write `folder/TOPIC-NETWORK-HARDWARE.csv`, which it replaces; returns its path.

    Raises `StoreError` if the disk refuses.
    """
    made = races[0].setting
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(FIELDS)
    out.writerows([row[field] for field in FIELDS] for row in rows(races, command))
    store.make_folder(folder)
    path = folder / f"{topic}-{made.network}-{label(made.device)}.csv"
    store.write_text(path, text.getvalue())
    return path
