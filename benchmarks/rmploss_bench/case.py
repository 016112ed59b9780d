"""One benchmark: which network, of what size, on what images, with how many threads."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmploss.errors import Problem, UserError, unknown
from rmploss.randomness import generator, seeded
from rmploss_bench.plan import NETWORKS, Plan, plan

SIZES = {"resnet20": (4, 32), "resnet19": (2, 8), "vgg16": (4, 32)}
"""T and batch of each network, where nothing else is asked for."""
IMAGE = (3, 32, 32)
CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What decides a figure, apart from the machine: plain data, the same in every process.

    T: time steps; batch: images; width: factor on all channels; threads: of torch; device: "cpu",
    "cuda" or "cuda:N"; data_dir: where CIFAR-10 may be, "" for seeded noise.
    """

    network: str
    T: int
    batch: int
    width: float = 1.0
    threads: int = 1
    device: str = "cpu"
    data_dir: str = ""
    seed: int = 0

    def but(self, **changes: Any) -> "Setting":
        """The same setting with some fields changed."""
        return replace(self, **changes)

    def plain(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return asdict(self)


def setting(
    network: str, *, T: int | None = None, batch: int | None = None, **fields: Any
) -> Setting:
    """A setting, with the usual T and batch of its network; raises `UserError`."""
    if network not in NETWORKS:
        raise UserError("cannot benchmark", [unknown("network", network, NETWORKS)])
    usual_T, usual_batch = SIZES[network]
    made = Setting(network=network, T=T or usual_T, batch=batch or usual_batch, **fields)
    wrong = [
        Problem(f"{name} = {value}", "must be positive")
        for name, value in (("T", T), ("batch", batch), ("width", made.width))
        if value is not None and not 0 < value < math.inf
    ]
    if not 1 <= made.threads <= 4096:
        wrong.append(Problem(f"threads = {made.threads}", "must lie between 1 and 4096"))
    if not re.fullmatch(r"cpu|cuda(:\d+)?", made.device):
        wrong.append(Problem(f"device = {made.device}", "is not a device", "cpu, cuda or cuda:N"))
    if made.device.startswith("cuda") and not torch.cuda.is_available():
        wrong.append(Problem(f"device = {made.device}", "no CUDA device here", "--device cpu"))
    if wrong:
        raise UserError("cannot benchmark", wrong)
    return made


@dataclass(frozen=True)
class Case:
    """A setting made real: our network with its weights, and one batch.

    net: ours, in training mode, never trained itself: every contestant takes a copy; images
    `[B, 3, 32, 32]` float32, dimensionless; labels `[B]`; source: where the images come from.
    """

    setting: Setting
    net: nn.Module
    images: Tensor
    labels: Tensor
    source: str

    @property
    def parts(self) -> Plan:
        """The network as plain data."""
        return plan(self.setting.network)

    @property
    def state(self) -> dict[str, Tensor]:
        """The weights that every contestant starts with."""
        return self.net.state_dict()


def case(made: Setting, *, calibrated: bool = True) -> Case:
    """The case of a setting, the same in every process: weights and noise are seeded.

    calibrated: with running statistics, which only evaluation needs, of the batch itself.
    """
    from rmploss import models

    with seeded(made.seed, "bench weights"):
        options = {"num_classes": CLASSES, "T": made.T, "width": made.width}
        net = models.create(made.network, **options)
    images, labels, source = _batch(made)
    device = torch.device(made.device)
    real = Case(made, net.to(device), images.to(device), labels.to(device), source)
    if calibrated:
        _calibrate(real)
    return real


@contextmanager
def threads(count: int) -> Iterator[None]:
    """That many threads of torch inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batch(made: Setting) -> tuple[Tensor, Tensor, str]:
    """The first test images of CIFAR-10 if they are here, else seeded noise of their statistics."""
    from rmploss.data import DATASETS, Key

    if made.data_dir:
        data = DATASETS.make("cifar10")
        test = data.open(Path(made.data_dir), seed=0, T=made.T).test
        if made.batch <= len(test):
            pairs = [test[Key(0, index)] for index in range(made.batch)]
            images = torch.stack([image for image, _ in pairs])
            return images, torch.tensor([label for _, label in pairs]), "CIFAR-10 test images"
    random = generator(made.seed, "bench images")
    images = torch.randn(made.batch, *IMAGE, generator=random)
    return images, torch.randint(CLASSES, (made.batch,), generator=random), "seeded noise"


def data_dir(asked: Path | None) -> str:
    """Where CIFAR-10 is, for `Setting.data_dir`: "" if it is not there and nobody asked for it."""
    from rmploss.data import DATASETS, data_root

    data = DATASETS.make("cifar10")
    missing = data.missing(asked)
    if missing and asked is not None:
        raise UserError("CIFAR-10 is not complete", missing)
    return "" if missing else str(data_root(asked))


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _calibrate(real: Case) -> None:
    """Set the running statistics to those of the batch, so that evaluation fires as training does.

    At mean 0 and variance 1, where they start, a network that was never trained is silent or always
    on, and an event-driven figure would mean nothing.
    """
    from rmploss.norm import TDBatchNorm2d

    norms = [module for module in real.net.modules() if isinstance(module, TDBatchNorm2d)]
    before = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        real.net.train()(real.images)
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
