"""What is done on a GPU, in order, as plain data; and the same in small, for a CPU."""

from dataclasses import dataclass, replace

from rmploss_bench.whole_training import USUAL

FAST = (
    "rmploss+rmp",
    "rmploss+rmp-captured",
    "rmploss-engine+rmp",
    "rmploss-engine+rmp-captured",
    "rmploss",
    "rmploss-captured",
    "dense-bound",
    "dense-bound-captured",
    "spikingjelly",
    "spikingjelly-compiled",
    "spikingjelly-captured",
    "spikingjelly-compiled-captured",
)
"""The contestants of the main tables."""
SLOW = ("rmploss-reference", "spikingjelly", "spikingjelly-memopt", "snntorch", "norse")
"""Those of a table of their own, beside SpikingJelly."""
HALF = ("--precision", "bf16", "--capture", "on")
SINGLE = ("--precision", "float32", "--capture", "on")


@dataclass(frozen=True)
class Table:
    """One call of `rmploss bench`.

    name: of the folder of its CSV in OUT/tables.
    words: the words of the command line behind `bench`.
    seconds: a rough time on an H100; the table is not begun with less left.
    """

    name: str
    words: tuple[str, ...]
    seconds: int


@dataclass(frozen=True)
class Row:
    """One full-size run of `rmploss train`.

    name: of its archive in OUT/rows.
    recipe: of the recipe.
    words: further words of the command line: seed, time steps, changed fields.
    speed: rows with the same value take about the same time per epoch: it is measured once.
    """

    name: str
    recipe: str
    words: tuple[str, ...]
    speed: str


@dataclass(frozen=True)
class Plan:
    """Everything that is done.

    device: of the training.
    tests: the words of the tests' command line behind `pytest`.
    tables, rows: in order.
    probe: words that make a short run of a recipe, from which the time of an epoch is measured.
    """

    device: str
    tests: tuple[str, ...]
    tables: tuple[Table, ...]
    rows: tuple[Row, ...]
    probe: tuple[str, ...]


def _table(topic: str, network: str, size: str, precision: tuple[str, ...], seconds: int) -> Table:
    name = f"{topic}-{network}-{precision[1]}"
    fast = FAST
    if topic == "train":
        fast = USUAL
    if topic == "eval":
        fast = tuple(each for each in FAST if "+rmp" not in each)
    if topic == "memory":
        fast = tuple(each for each in FAST if not each.startswith("dense"))
    words = (topic, "--network", network, *size.split(), "--device", "cuda", *precision)
    return Table(name, (*words, "--only", *fast), seconds)


R20, R19, VGG, R18 = (
    "--T 4 --batch 128",
    "--T 4 --batch 64",
    "--T 4 --batch 128",
    "--T 4 --batch 32",
)
"""The sizes of the networks in the tables."""
TABLES = (
    _table("step", "resnet20", R20, HALF, 120),
    _table("memory", "resnet20", R20, HALF, 150),
    _table("eval", "resnet20", R20, HALF, 60),
    _table("train", "resnet20", R20, HALF, 90),
    _table("step", "resnet20", R20, SINGLE, 120),
    _table("step", "resnet19", R19, HALF, 120),
    _table("step", "vgg16", VGG, HALF, 120),
    _table("step", "resnet18", R18, HALF, 150),
    _table("memory", "resnet18", R18, HALF, 150),
    Table(
        "others-resnet20-bf16",
        ("step", "--network", "resnet20", *R20.split(), "--device", "cuda", *HALF, "--only", *SLOW),
        120,
    ),
    _table("eval", "resnet18", R18, HALF, 90),
    _table("memory", "resnet20", R20, SINGLE, 150),
    _table("memory", "resnet19", R19, HALF, 150),
    _table("memory", "vgg16", VGG, HALF, 150),
)


def _pair(base: str, variant: str, seed: int, *words: str, mark: str = "") -> tuple[Row, Row]:
    """A row without and one with RMP-Loss.

    base: the recipe without, by its name before the variant.
    variant: the end of the recipe's name.
    seed: of the run.
    words: further words of the command line, the time steps first.
    mark: the end of the row's name.
    """
    made = []
    for recipe in (f"{base}{variant}", f"{base}-rmp{variant}"):
        given = ("--seed", str(seed), *words)
        made.append(
            Row(f"{recipe}{mark}-s{seed}", recipe, given, speed=" ".join((base, *words[:2])))
        )
    return made[0], made[1]


ALL = ("--set", "weight_decay_on=all")
"""Weight decay on all parameters, norms included."""
ROWS = (
    *_pair("cifar10-resnet20", "-fast45", 0, "--T", "4"),
    *_pair("cifar10-resnet20", "-fast45", 0, "--T", "4", *ALL, mark="-all"),
    *_pair("cifar10-resnet20", "-fast", 0, "--T", "4"),
    *_pair("cifar10-resnet20", "-fast", 0, "--T", "4", *ALL, mark="-all"),
    *_pair("cifar10-resnet20", "-fast45", 1, "--T", "4"),
    *_pair("cifar10-resnet20", "-fast45", 2, "--T", "4"),
    *_pair("cifar10-resnet19", "-fast45", 0, "--T", "2"),
    *_pair("cifar10-vgg16", "-fast45", 0, "--T", "4"),
)
GPU = Plan(
    device="cuda",
    tests=("-q", "-m", "gpu", "--continue-on-collection-errors", "tests"),
    tables=TABLES,
    rows=ROWS,
    probe=("--epochs", "2", "--train-samples", "5120", "--test-samples", "2000"),
)
"""The plan of `benchmarks/on_gpu.sh`."""


def small(plan: Plan = GPU) -> Plan:
    """The plan in small: the same parts and order in a minute or two on a CPU, without a GPU.

    Networks of 1/16 of the width, 64 images, 2 epochs, two rows, a table of each topic.
    """
    size = ("--width", "0.0625", "--T", "2", "--batch", "4", "--repeats", "1", "--threads", "1")
    tables = tuple(
        Table(name, (topic, "--network", "resnet20", *size, "--only", "rmploss"), 5)
        for name, topic in (("step", "step"), ("eval", "eval"), ("train", "train"))
    )
    less = ("--width", "0.0625", "--train-samples", "64", "--test-samples", "40")
    rows = tuple(
        replace(row, words=(*row.words, *less, "--batch-size", "16", "--epochs", "3"))
        for row in plan.rows[:2]
    )
    tests = ("-q", "-m", "gpu", "tests/benchmarks/test_capture.py")
    return Plan("cpu", tests, tables, rows, ("--epochs", "1", "--train-samples", "32"))
