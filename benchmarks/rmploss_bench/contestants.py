"""Who takes part: ours in three forms, every peer, and the dense bound; one line each."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss.errors import Problem, UserError, unknown
from rmploss.tables import Table
from rmploss_bench.case import Case

LR = 1e-4
"""So small that all repeats see the same network: an event-driven step depends on what fires."""


class Runner(ABC):
    """A contestant with a network of its own, ready to run."""

    @abstractmethod
    def step(self) -> None:
        """One training step: gradients to None, forward, loss, backward, SGD."""

    @abstractmethod
    def infer(self) -> None:
        """One forward in evaluation mode, without gradients."""


class NetRunner(Runner):
    """A network under cross-entropy and SGD with momentum.

    net: `[B, 3, 32, 32]` to logits `[B, K]`; reset: called before every forward, for peers whose
    neurons remember; around: a block around forward and backward.
    """

    def __init__(
        self,
        case: Case,
        net: nn.Module,
        *,
        reset: Callable[[], None] = lambda: None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.case = case
        self.net = net
        self.reset = reset
        self.around = around
        self.optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=LR)

    def loss(self) -> Tensor:
        """The loss of the case's batch, a scalar with its graph."""
        return F.cross_entropy(self.net(self.case.images), self.case.labels)

    def forget(self) -> None:
        """Let the gradients of the last step go."""
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
        """Logits `[B, K]` of the case's batch, without gradients."""
        self.reset()
        with torch.no_grad(), self.around():
            return self.net(self.case.images)


def copied(case: Case) -> nn.Module:
    """A copy of our network that may be changed."""
    return copy.deepcopy(case.net)


Make = Callable[[Case, bool], Runner]
"""Makes a contestant for a case; the second argument: for training (else for evaluation)."""
CONTESTANTS: Table[Make] = Table(
    "contestant",
    {
        "rmploss+rmp": "rmploss_bench.ours:with_rmp",
        "rmploss": "rmploss_bench.ours:plain",
        "rmploss-reference": "rmploss_bench.ours:reference",
        "dense-bound": "rmploss_bench.dense:bound",
        "spikingjelly": "rmploss_bench.peers:make_spikingjelly",
        "spikingjelly-compiled": "rmploss_bench.peers:make_compiled_spikingjelly",
        "spikingjelly-memopt": "rmploss_bench.peers:make_lean_spikingjelly",
        "spikingjelly-triton": "rmploss_bench.peers:make_triton_spikingjelly",
        "snntorch": "rmploss_bench.peers:make_snntorch",
        "norse": "rmploss_bench.peers:make_norse",
    },
)
DENSE, RIVAL = "dense-bound", "spikingjelly"
"""The two that ratios are told against."""
TRAINING_ONLY = ("rmploss+rmp", "spikingjelly-memopt")
"""Who is somebody else in evaluation: there is no loss, and nothing is kept for backward."""
GPU_ONLY = ("spikingjelly-triton",)


def usual(device: str, *, train: bool = True) -> tuple[str, ...]:
    """All contestants that mean something there."""
    left_out = (*(() if device.startswith("cuda") else GPU_ONLY), *(() if train else TRAINING_ONLY))
    return tuple(name for name in CONTESTANTS if name not in left_out)


def chosen(names: Iterable[str], otherwise: Iterable[str] = CONTESTANTS) -> list[str]:
    """The contestants asked for, in the order of the table; the other ones if none is."""
    asked = list(names) or list(otherwise)
    wrong: list[Problem] = [
        unknown("--only", name, CONTESTANTS) for name in asked if name not in CONTESTANTS
    ]
    if wrong:
        raise UserError("no such contestant", wrong)
    return [name for name in CONTESTANTS if name in asked]
