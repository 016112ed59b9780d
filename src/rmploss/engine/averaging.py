"""Averages of the weights over training, tested beside the weights that are trained.

    a <- a + c(n) (w - a)    after optimizer step n = 1, 2, ...

w: the parameters and buffers of the network; a: their average, from a = w before the first step.

ema    c(n) = max(1 - decay, 9 / (n + 10)): an exponential moving average, whose decay rises as
       (n + 1) / (n + 10) at first, so that short runs forget their initial weights, too
swa    c(n) = 1 / (n - N) after step N, 1 before: the mean since step N (Izmailov et al., UAI 2018)

The running statistics of the norms are averaged like the weights (docs/decisions.md).
"""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rmploss.engine.flat import flat, parts
from rmploss.errors import Problem, UserError
from rmploss.lifecycle import evolve
from rmploss.models import SpikingNetwork
from rmploss.registry import Registry

COUNT = "count"
"""The name of n in `WeightAverage.tensors`."""


class WeightAverage:
    """The average of a network's weights.

    network: is trained. It is not changed.
    coefficient: c of n; n and c are 0-d tensors, int64 and float64.

    net: a copy of the network that holds the average. To evaluate with the average, evaluate it:
        the trained network keeps its weights, and a checkpoint written meanwhile holds both.
    """

    def __init__(self, network: SpikingNetwork, coefficient: Callable[[Tensor], Tensor]) -> None:
        self.net = copy.deepcopy(network).requires_grad_(False)
        self.coefficient = coefficient
        # Both share the storage of the networks: loading and training write in place.
        trained, averaged = network.state_dict(), self.net.state_dict()
        pairs = [(averaged[name], trained[name]) for name in averaged]
        kinds = sorted({averaged.dtype for averaged, _ in pairs}, key=str)
        self._kinds = [[pair for pair in pairs if pair[0].dtype == kind] for kind in kinds]
        device = next(network.parameters()).device
        self._count = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, skip: Tensor | None = None) -> None:
        """Take the weights after an optimizer step into the average, in place.

        skip: bool, 0-d; where it is True, nothing changes, whatever the weights are; None: never.

        Reads nothing on the host, so that a CUDA graph can contain it.
        """
        self._count += 1 if skip is None else ~skip
        c = self.coefficient(self._count)
        for pairs in self._kinds:
            averaged, trained = zip(*pairs, strict=True)
            # Of all tensors of a type at once: a step must launch little.
            if averaged[0].is_floating_point():
                change = torch._foreach_sub(trained, averaged)  # pyright: ignore[reportPrivateImportUsage]
                torch._foreach_mul_(change, c.to(change[0].dtype))  # pyright: ignore[reportPrivateImportUsage]
                if skip is not None:  # c = 0 would not do: 0 times an infinite change is NaN
                    change = parts(torch.where(skip, 0, flat(change)), averaged)
                torch._foreach_add_(averaged, change)  # pyright: ignore[reportPrivateImportUsage]
            else:
                if skip is not None:
                    trained = parts(torch.where(skip, flat(averaged), flat(trained)), averaged)
                torch._foreach_copy_(averaged, trained)  # pyright: ignore[reportPrivateImportUsage]

    def evolve(self, progress: float) -> None:
        """Let the modules of the average evolve like the trained ones; progress: n / N.

        Its tensors stay: they are averages of those of the trained network, which evolve there.
        """
        averaged = self.net.state_dict()
        before = {name: tensor.clone() for name, tensor in averaged.items()}
        evolve(self.net, progress)
        with torch.no_grad():
            for name, tensor in averaged.items():
                tensor.copy_(before[name])

    def tensors(self) -> dict[str, Tensor]:
        """Everything that `load` needs, by name: the average, and the number of updates."""
        return {**self.net.state_dict(), COUNT: self._count}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the average from `tensors`, in place."""
        rest = dict(tensors)
        self._count.copy_(rest.pop(COUNT))
        self.net.load_state_dict(rest)


def none(network: SpikingNetwork, steps: int) -> None:
    """No average: only the trained weights are tested."""


def ema(network: SpikingNetwork, steps: int, *, decay: float = 0.999) -> WeightAverage:
    """The exponential moving average of the weights.

    network: is trained.
    steps: the number of optimizer steps of the run; not used.
    decay: in [0, 1), dimensionless; the average reaches back about 1 / (1 - decay) steps.

    Raises `UserError`.
    """
    if not 0 <= decay < 1:
        problem = Problem(f"decay = {decay!r}", "must lie in [0, 1)", "0.999")
        raise UserError("bad average", [problem])

    def coefficient(n: Tensor) -> Tensor:
        return (9 / (n.double() + 10)).clamp(min=1 - decay)

    return WeightAverage(network, coefficient)


def swa(network: SpikingNetwork, steps: int, *, start: float = 0.75) -> WeightAverage:
    """The mean of the weights of all steps after a share of the training.

    network: is trained.
    steps: the number of optimizer steps of the run.
    start: the share of the steps before the mean begins, in [0, 1), dimensionless.

    Raises `UserError`.
    """
    if not 0 <= start < 1:
        problem = Problem(f"start = {start!r}", "must lie in [0, 1)", "0.75")
        raise UserError("bad average", [problem])
    first = round(start * steps)

    def coefficient(n: Tensor) -> Tensor:
        return 1 / (n - first).clamp(min=1).double()

    return WeightAverage(network, coefficient)


AVERAGES: Registry[Callable[..., WeightAverage | None]] = Registry(
    "average",
    {
        "none": "rmploss.engine.averaging:none",
        "ema": "rmploss.engine.averaging:ema",
        "swa": "rmploss.engine.averaging:swa",
    },
    family="average",
)
"""The average of the weights, as a function of the network and the number of optimizer steps."""
