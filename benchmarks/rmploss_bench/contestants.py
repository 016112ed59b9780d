"""The contestants: rmploss in three forms, every peer, and the dense bound; one line each."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss.errors import Problem, UserError, unknown
from rmploss.registry import Registry
from rmploss_bench.workload import Workload

LR = 1e-4
"""Learning rate, so small that all repeats have the same network and the same number of spikes."""


class Runner(ABC):
    """A contestant that is ready to run, with a network of its own."""

    @abstractmethod
    def step(self) -> None:
        """One training step: gradients to None, forward, loss, backward, SGD."""

    @abstractmethod
    def infer(self) -> None:
        """One forward in evaluation mode, without gradients."""


class NetRunner(Runner):
    """A network under cross-entropy and SGD with momentum.

    workload: gives images and labels.
    net: maps `[B, 3, 32, 32]` to logits `[B, K]`.
    reset: called before every forward, for peers whose neurons keep their membranes.
    around: makes the context in which forward and backward run.
    """

    def __init__(
        self,
        workload: Workload,
        net: nn.Module,
        *,
        reset: Callable[[], None] = lambda: None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.workload = workload
        self.net = net
        self.reset = reset
        self.around = around
        self.optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=LR)

    def loss(self) -> Tensor:
        """The loss of the workload's batch: a scalar with its graph."""
        return F.cross_entropy(self.net(self.workload.images), self.workload.labels)

    def forget(self) -> None:
        """Free the gradients of the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """One training step."""
        self.forget()
        self.reset()
        with self.around():
            self.loss().backward()
        self.optimizer.step()

    def infer(self) -> None:
        """One forward without gradients."""
        self.logits()

    def logits(self) -> Tensor:
        """Logits `[B, K]` of the workload's batch, without gradients."""
        self.reset()
        with torch.no_grad(), self.around():
            return self.net(self.workload.images)


def copied(workload: Workload) -> nn.Module:
    """A copy of our network that a contestant may change."""
    return copy.deepcopy(workload.net)


Make = Callable[[Workload, bool], Runner]
"""Makes a contestant for a workload; the second argument is True for training, else False."""
CONTESTANTS: Registry[Make] = Registry(
    "contestant",
    {
        "rmploss+rmp": "rmploss_bench.ours:make_rmploss_with_rmp",
        "rmploss": "rmploss_bench.ours:make_rmploss",
        "rmploss-reference": "rmploss_bench.ours:make_reference",
        "dense-bound": "rmploss_bench.dense:make_dense_bound",
        "spikingjelly": "rmploss_bench.peers:make_spikingjelly",
        "spikingjelly-compiled": "rmploss_bench.peers:make_compiled_spikingjelly",
        "spikingjelly-memopt": "rmploss_bench.peers:make_lean_spikingjelly",
        "spikingjelly-triton": "rmploss_bench.peers:make_triton_spikingjelly",
        "snntorch": "rmploss_bench.peers:make_snntorch",
        "norse": "rmploss_bench.peers:make_norse",
    },
)
DENSE, RIVAL = "dense-bound", "spikingjelly"
"""The contestants that the two ratios of a row divide by."""
TRAINING_ONLY = ("rmploss+rmp", "spikingjelly-memopt")
"""Left out of evaluation, which has no loss and no backward: there they equal other contestants."""
GPU_ONLY = ("spikingjelly-triton",)


def usual(device: str, *, train: bool = True) -> tuple[str, ...]:
    """The contestants that differ from each other on a device, in training or in evaluation.

    device: "cpu", "cuda" or "cuda:N".
    train: True for training, False for evaluation.
    """
    left_out = (*(() if device.startswith("cuda") else GPU_ONLY), *(() if train else TRAINING_ONLY))
    return tuple(name for name in CONTESTANTS if name not in left_out)


def chosen(names: Iterable[str], otherwise: Iterable[str] = CONTESTANTS) -> list[str]:
    """The contestants that were asked for, in the order of `CONTESTANTS`.

    names: the contestants asked for.
    otherwise: taken if `names` is empty.
    Raises `UserError` for an unknown name.
    """
    asked = list(names) or list(otherwise)
    wrong: list[Problem] = [
        unknown("--only", name, CONTESTANTS) for name in asked if name not in CONTESTANTS
    ]
    if wrong:
        raise UserError("no such contestant", wrong)
    return [name for name in CONTESTANTS if name in asked]
