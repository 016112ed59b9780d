"""The conditions of one measurement as plain data: network, size, threads, device, data, seed."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rmploss.errors import Problem, UserError, unknown
from rmploss_bench.blueprint import NETWORKS

SIZES = {"resnet20": (4, 32), "resnet19": (2, 8), "vgg16": (4, 32), "resnet18": (4, 4)}
"""Network -> default (T, batch)."""
PRECISIONS = ("float32", "bf16")
"""float32 (on CUDA, convolutions take TF32, PyTorch's default), and autocast to bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Everything that decides a figure, apart from the machine and the versions.

    Plain data, so that another process can build the same workload from it.

    network: a name of `NETWORKS`.
    T: number of time steps.
    batch: number of images.
    width: factor on the number of channels of every layer, dimensionless.
    threads: number of threads of torch.
    device: "cpu", "cuda" or "cuda:N".
    precision: of `PRECISIONS`.
    data_dir: the folder of CIFAR-10; "" for seeded noise instead of images.
    seed: of the weights, the noise and every random tensor.
    """

    network: str
    T: int
    batch: int
    width: float = 1.0
    threads: int = 1
    device: str = "cpu"
    precision: str = "float32"
    data_dir: str = ""
    seed: int = 0

    def but(self, **changes: Any) -> "Conditions":
        """The same conditions with some fields changed."""
        return replace(self, **changes)

    @property
    def on_cuda(self) -> bool:
        """True on a CUDA device."""
        return self.device.startswith("cuda")

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self)


def make_conditions(
    network: str, *, T: int | None = None, batch: int | None = None, **fields: Any
) -> Conditions:
    """Checked conditions, with the default T and batch of the network where None is given.

    network, T, batch, fields: see `Conditions`.
    Raises `UserError` with every field that is out of range.
    """
    if network not in NETWORKS:
        raise UserError("cannot benchmark", [unknown("network", network, NETWORKS)])
    default_T, default_batch = SIZES[network]
    asked = Conditions(network=network, T=T or default_T, batch=batch or default_batch, **fields)
    wrong = [
        Problem(f"{name} = {value}", "must be positive")
        for name, value in (("T", T), ("batch", batch), ("width", asked.width))
        if value is not None and not 0 < value < math.inf
    ]
    if not 1 <= asked.threads <= 4096:
        wrong.append(Problem(f"threads = {asked.threads}", "must lie between 1 and 4096"))
    if asked.precision not in PRECISIONS:
        wrong.append(unknown("precision", asked.precision, PRECISIONS))
    if not re.fullmatch(r"cpu|cuda(:\d+)?", asked.device):
        wrong.append(Problem(f"device = {asked.device}", "is not a device", "cpu, cuda or cuda:N"))
    if asked.on_cuda and not torch.cuda.is_available():
        wrong.append(Problem(f"device = {asked.device}", "no CUDA device here", "--device cpu"))
    if wrong:
        raise UserError("cannot benchmark", wrong)
    return asked


def data_dir(asked: Path | None) -> str:
    """The folder of CIFAR-10 for `Conditions.data_dir`, or "" if CIFAR-10 is not there.

    asked: where to look; None for the default folder of the data sets.
    Raises `UserError` if a folder was asked for and CIFAR-10 is not complete in it.
    """
    from rmploss.data import DATASETS, data_root

    data = DATASETS.make("cifar10")
    missing = data.missing(asked)
    if missing and asked is not None:
        raise UserError("CIFAR-10 is not complete", missing)
    return "" if missing else str(data_root(asked))


@contextmanager
def settings(conditions: Conditions) -> Iterator[None]:
    """Let torch use the conditions' threads and, on CUDA, cuDNN's autotuner inside the block.

    The autotuner gives every contestant the fastest convolutions of its memory format.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or conditions.on_cuda
    try:
        with threads(conditions.threads):
            yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpus() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
