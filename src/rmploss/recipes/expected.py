"""Measured results and costs of the recipes.

Copied from the rows of results/ and benchmarks/, which are not installed; a test compares them. A
recipe without an entry has not been run unchanged. No full-size recipe has been run
completely; those of ResNet20 on CIFAR-10 have the cost of an epoch. (A run of 45 epochs on one
NVIDIA H200 used another learning rate, weight decay, precision and augmentation: it is not a result
of these recipes.)
"""

from dataclasses import dataclass

HARDWARE = "2 cores of an AMD EPYC"
"""The machine of all entries."""


@dataclass(frozen=True)
class Measured:
    """Finished runs of one recipe that differ only in their seed.

    accuracy: of the last epoch, on the test split, mean over the seeds, in percent.
    std: its standard deviation over the seeds, in percent; None for a single seed.
    seeds: the number of runs.
    wall_s: wall time of the training of one run in seconds, mean; None on a shared machine.
    cpu_s: CPU time of the training of one run in seconds, over all threads, mean; None: not
        recorded.
    backend: the backend, if it was not the present choice of "auto".
    """

    accuracy: float
    std: float | None
    seeds: int
    wall_s: float | None = None
    cpu_s: float | None = None
    backend: str = ""

    @property
    def words(self) -> str:
        """`test accuracy 41.27 ± 0.80 % (3 seeds), 4 min on 2 cores of an AMD EPYC`."""
        deviation = "" if self.std is None else f" ± {self.std:.2f}"
        seeds = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
        parts = [f"test accuracy {self.accuracy:.2f}{deviation} % ({seeds})"]
        if self.wall_s is not None:
            parts.append(f"{_spelled(self.wall_s)} on {HARDWARE}")
        if self.cpu_s is not None:
            parts.append(f"{_spelled(self.cpu_s)} of CPU time on {HARDWARE}")
        if self.backend:
            parts.append(f"with the {self.backend} backend")
        return ", ".join(parts)


@dataclass(frozen=True)
class EpochCost:
    """Cost of the epochs of a full-size recipe that has not been run completely.

    per_hour: epochs per hour, including loading and evaluation, median.
    batch: the batch size of the measurement.
    """

    per_hour: float
    batch: int

    @property
    def words(self) -> str:
        """`not run completely; 12.7 min an epoch (batch 32) on 2 cores of an AMD EPYC`."""
        minutes = 60 / self.per_hour
        return f"not run completely; {minutes:.1f} min an epoch (batch {self.batch}) on {HARDWARE}"


def _spelled(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


MEASURED: dict[str, dict[str, Measured]] = {
    "backends-pocket-2xEPYC.csv": {
        "cifar10-resnet20-pocket": Measured(41.27, 0.80, 3, wall_s=243),
        "cifar10-resnet20-rmp-pocket": Measured(40.83, 1.20, 3, wall_s=250),
    },
    "diet-pocket-2xEPYC.csv": {
        "cifar10-diet-vgg16-ann-pocket": Measured(35.80, None, 1, cpu_s=48),
        "cifar10-diet-vgg16-pocket": Measured(29.15, None, 1, cpu_s=153),
    },
    "digits-2xEPYC.csv": {
        "digits": Measured(97.78, 0.74, 3, cpu_s=3),
        "digits-events-convnet-rmp": Measured(97.68, 0.70, 3, cpu_s=18),
        "digits-rmp": Measured(97.59, 0.16, 3, cpu_s=3),
    },
    "events-2xEPYC.csv": {
        "dvs128-objects-resnet20-rmp": Measured(92.86, None, 1, wall_s=1787, backend="reference"),
        "nmnist-convnet-rmp": Measured(96.00, None, 1, wall_s=2165, backend="reference"),
    },
    "fair-plif-pocket-2xEPYC.csv": {
        "fair-plif-pocket": Measured(34.20, 1.27, 2, cpu_s=94),
        "fair-plif-rmp-pocket": Measured(31.95, 1.20, 2, cpu_s=94),
    },
    "fair-pocket-2xEPYC.csv": {
        "fair-diet-pocket": Measured(14.05, 0.64, 2),
        "fair-diet-rmp-pocket": Measured(14.60, 2.12, 2, cpu_s=96),
        "fair-dsr-pocket": Measured(34.65, 2.19, 2),
        "fair-im-pocket": Measured(37.35, 0.07, 2),
        "fair-im-rmp-pocket": Measured(39.80, 1.27, 2, cpu_s=97),
        "fair-inflor-pocket": Measured(39.10, 0.42, 2),
        "fair-inflor-rmp-pocket": Measured(38.05, 0.35, 2, cpu_s=92),
        "fair-joint-pocket": Measured(38.55, 0.21, 2, cpu_s=158),
        "fair-joint-rmp-pocket": Measured(38.65, 2.19, 2, cpu_s=170),
        "fair-liaf-pocket": Measured(45.25, 1.63, 2),
        "fair-real-pocket": Measured(39.90, 0.99, 2),
        "fair-real-rmp-pocket": Measured(38.75, 1.20, 2, cpu_s=123),
        "fair-recdis-pocket": Measured(39.65, 1.34, 2),
        "fair-recdis-rmp-pocket": Measured(37.65, 0.35, 2, cpu_s=98),
        "fair-rmp-pocket": Measured(38.70, 1.41, 2),
        "fair-sew-pocket": Measured(38.10, 0.71, 2),
        "fair-sew-rmp-pocket": Measured(36.90, 0.85, 2, cpu_s=97),
        "fair-spiking_resnet-pocket": Measured(33.80, 1.13, 2),
        "fair-spiking_resnet-rmp-pocket": Measured(33.35, 0.92, 2, cpu_s=91),
        "fair-stbp-pocket": Measured(18.95, 0.64, 2),
        "fair-stbp-rmp-pocket": Measured(16.55, 0.78, 2, cpu_s=92),
        "fair-tdbn-pocket": Measured(41.55, 0.35, 2),
        "fair-tdbn-rmp-pocket": Measured(40.50, 0.42, 2, cpu_s=92),
        "fair-tet-pocket": Measured(33.05, 4.31, 2),
        "fair-tet-rmp-pocket": Measured(33.70, 1.13, 2, cpu_s=97),
        "fair-tssl-pocket": Measured(19.35, 7.14, 2),
        "fair-vanilla-pocket": Measured(38.65, 1.20, 2),
    },
    "fair-since-pocket-2xEPYC.csv": {
        "fair-mpd_agl-pocket": Measured(38.55, 1.20, 2, cpu_s=86),
        "fair-mpd_agl-rmp-pocket": Measured(41.40, 3.39, 2, cpu_s=78),
        "fair-mpd_sgr-pocket": Measured(38.50, 2.40, 2, cpu_s=118),
        "fair-mpd_sgr-rmp-pocket": Measured(38.10, 0.28, 2, cpu_s=122),
        "fair-tgo-pocket": Measured(36.65, 1.06, 2, cpu_s=121),
        "fair-tgo-rmp-pocket": Measured(39.10, 3.11, 2, cpu_s=126),
        "fair-weak2strong-pocket": Measured(37.30, 1.13, 2, cpu_s=92),
        "fair-weak2strong-rmp-pocket": Measured(38.75, 1.06, 2, cpu_s=87),
    },
    "fast-pocket-2xEPYC.csv": {
        "cifar10-resnet20-fast-pocket": Measured(41.1, None, 1, cpu_s=192),
        "cifar10-resnet20-rmp-fast-pocket": Measured(43.35, None, 1, cpu_s=197),
    },
    "pocket-table1-2xEPYC.csv": {
        "cifar10-vgg16-pocket": Measured(42.72, 1.07, 3, backend="reference"),
        "cifar10-vgg16-rmp-pocket": Measured(41.65, 0.91, 3, backend="reference"),
    },
}
"""File of results/ -> recipe -> its runs there. A recipe is listed once, under its latest file."""
EPOCHS = {
    "cifar10-resnet20": EpochCost(4.84, 32),
    "cifar10-resnet20-rmp": EpochCost(4.72, 32),
    "fair-vanilla": EpochCost(4.84, 32),  # the same two under the names of the fair comparison
    "fair-rmp": EpochCost(4.72, 32),
}
"""Recipe -> the cost of its epochs, from benchmarks/rows/epoch-resnet20-2xEPYC.csv."""


def expectation(name: str) -> str:
    """The expected result and cost of a recipe, as text; "" if it has not been run."""
    for entries in (*MEASURED.values(), EPOCHS):
        if name in entries:
            return entries[name].words
    return ""
