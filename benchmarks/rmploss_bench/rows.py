"""Results as rows of a CSV file, which is named after topic, network and hardware."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmploss import store
from rmploss_bench.conditions import Conditions
from rmploss_bench.contestants import CONTESTANTS, DENSE, RIVAL, Contestant
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
    "precision",
    "images",
    "contestant",
    "execution",
    "layout",
    "version",
    "what",
    "repeats",
    "median",
    "min",
    "max",
    "ratio_to_spikingjelly",
    "ratio_to_best_spikingjelly",
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

    def ratio_to_best(self, result: Result) -> float | None:
        """The figure divided by the best one of all executions of SpikingJelly, as `ratio`."""
        rivals = [
            other.median
            for other in self.results
            if other.contestant.startswith(RIVAL) and other.what == result.what and other.figures
        ]
        if not rivals or not result.figures:
            return None
        more_is_better = not result.what.endswith(("(s)", "(bytes)"))
        return result.median / (max(rivals) if more_is_better else min(rivals))

    def ratio_to_dense(self, result: Result) -> float | None:
        """The figure divided by that of the dense bound, captured for captured contestants."""
        captured = CONTESTANTS.get(result.contestant, Contestant("")).captured
        return self.ratio(result, DENSE + "-captured" * captured)


def rows(races: Sequence[Race], command: str) -> list[dict[str, str]]:
    """The rows of a CSV file; of a contestant without a figure, `gate` holds the reason."""
    return [_row(race, result, command) for race in races for result in race.results]


def execution(contestant: str) -> str:
    """How a contestant executes its step; "eager" for what is no contestant, such as a method."""
    return CONTESTANTS.get(contestant, Contestant("")).execution


def _row(race: Race, result: Result, command: str) -> dict[str, str]:
    conditions, figures = race.conditions, result.figures
    return {
        **facts(conditions.device),
        "threads": str(conditions.threads),
        "network": conditions.network,
        "T": str(conditions.T),
        "batch": str(conditions.batch),
        "width": f"{conditions.width:g}",
        "precision": conditions.precision,
        "images": race.images,
        "contestant": result.contestant,
        "execution": execution(result.contestant),
        "layout": result.layout,
        "version": package_version(result.contestant),
        "what": result.what,
        "repeats": str(len(figures)),
        "median": f"{result.median:.6g}" if figures else "",
        "min": f"{min(figures):.6g}" if figures else "",
        "max": f"{max(figures):.6g}" if figures else "",
        "ratio_to_spikingjelly": _ratio(race.ratio(result, RIVAL)),
        "ratio_to_best_spikingjelly": _ratio(race.ratio_to_best(result)),
        "ratio_to_dense": _ratio(race.ratio_to_dense(result)),
        "gate": result.status,
        "command": command,
    }


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def write(folder: Path, topic: str, races: Sequence[Race], command: str) -> Path:
    """Write the rows and return the path; an older file is replaced.

    It is `folder/TOPIC-NETWORK-HARDWARE.csv`, in bf16 `folder/TOPIC-NETWORK-bf16-HARDWARE.csv`.

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
    half = "-bf16" * (conditions.precision == "bf16")
    path = folder / f"{topic}-{conditions.network}{half}-{label(conditions.device)}.csv"
    store.write_text(path, text.getvalue())
    return path
