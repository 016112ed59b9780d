"""What runs a contestant's steps: the base class, and a network under cross-entropy and SGD."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss_bench.conditions import Conditions
from rmploss_bench.workload import Workload

LR = 1e-4
"""Learning rate, so small that all repeats have the same network and the same number of spikes."""


class Runner(ABC):
    """A contestant that is ready to run, with a network of its own.

    layout: the memory format of its convolutions, where that was chosen for it; else "".
    """

    layout = ""

    @abstractmethod
    def step(self) -> None:
        """One training step: gradients to None, forward, loss, backward, SGD."""

    @abstractmethod
    def infer(self) -> None:
        """One forward in evaluation mode, without gradients."""

    def state(self) -> list[Tensor]:
        """All tensors that a step changes in place."""
        return []


class NetRunner(Runner):
    """A network under cross-entropy and SGD with momentum, in the precision of its conditions.

    workload: gives images and labels.
    net: maps `[B, 3, H, W]` to logits `[B, K]`.
    reset: called before every forward, for peers whose neurons keep their membranes.
    around: makes the context in which forward and backward run.

    On CUDA the optimizer is PyTorch's fused one, for all contestants. Its momentum is there from
    the start, as zeros: a capture sets it back with all else. `output` and `value` are the logits
    `[B, K]` and the loss of the last run; a replay of a captured run fills them again.
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
        fused = True if workload.conditions.on_cuda else None
        self.optimizer = torch.optim.SGD(
            net.parameters(), lr=LR, momentum=0.9, weight_decay=LR, fused=fused
        )
        for parameter in net.parameters():
            zeros = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            self.optimizer.state[parameter]["momentum_buffer"] = zeros
        self.output = self.value = torch.empty(0)

    def compile(self) -> None:
        """Put the network under `torch.compile`."""
        compiled: Any = torch.compile(self.net)
        self.net = compiled

    def loss(self) -> Tensor:
        """The loss of the workload's batch: a scalar with its graph; keeps the logits."""
        logits = self.net(self.workload.images)
        self.output = logits.detach()
        return F.cross_entropy(_single(logits), self.workload.labels)

    def forget(self) -> None:
        """Free the gradients of the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self) -> None:
        """Forward, loss and backward."""
        self.reset()
        with self.around():
            with autocast(self.workload.conditions):
                loss = self.loss()
            loss.backward()
        self.value = loss.detach()

    def step(self) -> None:
        """One training step."""
        self.forget()
        self.backward()
        self.optimizer.step()

    def infer(self) -> None:
        """One forward without gradients."""
        self.logits()

    def logits(self) -> Tensor:
        """Logits `[B, K]` of the workload's batch, without gradients."""
        self.reset()
        with torch.no_grad(), self.around(), autocast(self.workload.conditions):
            self.output = self.net(self.workload.images)
        return self.output

    def gradients(self) -> Tensor:
        """The gradients of all parameters as one vector, zeros where there is none."""
        parts = [torch.zeros(1) if p.grad is None else p.grad for p in self.net.parameters()]
        return torch.cat([part.flatten().to(self.workload.images.device) for part in parts])

    def outcome(self, act: Callable[[], object]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, loss and gradients of one training step, for the gate.

        act: runs this runner's step: itself, or its replay.
        """
        act()
        return self.output.detach(), self.value, self.gradients()

    def state(self) -> list[Tensor]:
        """Parameters, buffers, and the optimizer's momentum."""
        moments = (value for held in self.optimizer.state.values() for value in held.values())
        tensors = [value for value in moments if isinstance(value, Tensor)]
        return [*self.net.parameters(), *self.net.buffers(), *tensors]


def autocast(conditions: Conditions) -> AbstractContextManager[object]:
    """The autocast context of a forward under the conditions; nothing in float32.

    Without the cache of casted weights: inside a CUDA graph it would keep those of the capture.
    """
    if conditions.precision == "float32":
        return nullcontext()
    kind = torch.device(conditions.device).type
    return torch.autocast(kind, torch.bfloat16, cache_enabled=False)


def _single(logits: Tensor) -> Tensor:
    """Logits in float32, or in float64 if they are; the loss is not computed in half precision."""
    return logits if logits.dtype == torch.float64 else logits.float()


def copied(workload: Workload) -> nn.Module:
    """A copy of our network that a contestant may change."""
    return copy.deepcopy(workload.net)
