"""Evaluate a network on a split: accuracy, and each layer's quantization error and firing rate."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss.engine.capture import Function
from rmploss.engine.distributed import World
from rmploss.engine.precision import Precision
from rmploss.engine.static_batch import StaticBatch
from rmploss.lifecycle import evaluating
from rmploss.models import SpikingNetwork
from rmploss.ops import at_least_single
from rmploss.ops.lif.moments import ERROR, MomentSpec
from rmploss.stats import membrane_stats


@dataclass(frozen=True)
class LayerResult:
    """The means of q(u) (Eq. 9) and of o of one spiking layer on a split; dimensionless.

    elements: the number of membrane values: time steps, samples, channels and space.
    """

    name: str
    quantization_error: float
    firing_rate: float
    elements: int


@dataclass(frozen=True)
class Evaluation:
    """The results of a network on a split.

    accuracy: in percent.
    loss: the mean cross-entropy, dimensionless.
    samples: the number of samples of all ranks.
    layers: of every spiking layer, in order of execution.
    """

    accuracy: float
    loss: float
    samples: int
    layers: tuple[LayerResult, ...]

    @property
    def quantization_error(self) -> float:
        """The mean over the layers: our reading of Table 1, which leaves it open."""
        return sum(layer.quantization_error for layer in self.layers) / max(len(self.layers), 1)

    @property
    def quantization_error_of_elements(self) -> float:
        """The mean over all membrane values: Eq. 10 read literally."""
        total = sum(layer.quantization_error * layer.elements for layer in self.layers)
        return total / max(sum(layer.elements for layer in self.layers), 1)

    @property
    def firing_rate(self) -> float:
        """The mean over the layers: spikes per neuron and time step."""
        return sum(layer.firing_rate for layer in self.layers) / max(len(self.layers), 1)


def evaluate(
    net: SpikingNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    world: World | None = None,
    p: float = 2.0,
    potential: Literal["u_pre", "input"] = "u_pre",
    precision: Precision = nullcontext,
    on_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate a network over the batches of all ranks.

    net: runs in evaluation mode; afterwards it is in the mode it had.
    batches: of this rank: (x `[B, C, H, W]` or `[T, B, C, H, W]`, labels `[B]`); B may be 0.
    world: this process among the ranks; None: a single process on the CPU.
    p: exponent of Eq. 9, independent of the training's.
    potential: u in Eq. 9, see `MomentSpec`; independent of the training's.
    precision: returns the autocast context of the forward.
    on_batch: is called after each batch.
    """
    evaluator = Evaluator(net, world or World(), p=p, potential=potential, precision=precision)
    return evaluator(batches, on_batch)


class Evaluator:
    """Evaluates a network again and again; all sums stay on the device up to the end.

    net, p, potential, precision: see `evaluate`.
    world: this process among the ranks.
    repeat: makes a function that may be captured of one and of the tensors that it changes, as
        `capture.Repeated` does; None: every batch runs eagerly. With it, batches of the size of the
        first are captured from the second on; the partial one runs eagerly.
    """

    def __init__(
        self,
        net: SpikingNetwork,
        world: World,
        *,
        p: float = 2.0,
        potential: Literal["u_pre", "input"] = "u_pre",
        precision: Precision = nullcontext,
        repeat: Callable[[Function, Callable[[], list[Tensor]]], Function] | None = None,
    ) -> None:
        self.net, self.world, self.precision = net, world, precision
        self.spec = MomentSpec(p=p, potential=potential, differentiable=False)
        self.batch = StaticBatch(world.device)
        self.totals = torch.zeros(2, dtype=torch.float64, device=world.device)
        """Sums of cross-entropies and of correct answers."""
        self.sums: dict[str, Tensor] = {}
        """Per layer the sums of q(u) and o."""
        self.elements: dict[str, int] = {}
        """Per layer the number of membrane values of a sample."""
        self._full = repeat(self._run, self._tensors) if repeat else self._run
        self._begun = False
        """A batch was seen, so that the layers are known."""

    def __call__(
        self, batches: Iterable[tuple[Tensor, Tensor]], on_batch: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """The results over the batches of all ranks; for the arguments see `evaluate`."""
        for tensor in self._tensors():
            tensor.zero_()
        samples = 0
        with evaluating(self.net), torch.no_grad():
            for images, labels in batches:
                if len(labels):
                    self._add(images, labels)
                    samples += len(labels)
                on_batch()
        return self._result(samples)

    def _add(self, images: Tensor, labels: Tensor) -> None:
        if not self.batch.fits(images, labels):
            self._count(images.to(self.world.device), labels.to(self.world.device))
            return
        self.batch.fill(images, labels)
        (self._full if self._begun else self._run)()

    def _run(self) -> None:
        self._count(*self.batch())

    def _count(self, images: Tensor, labels: Tensor) -> None:
        """Add a batch to the sums. Reads no tensor on the host."""
        with self.precision(), membrane_stats(self.net, self.spec) as stats:
            logits = self.net(images)
        if not self._begun:
            self._begun = True
            for layer in stats:
                of_sample = layer.elements // len(labels)
                self.elements[layer.name] = self.elements.get(layer.name, 0) + of_sample
                self.sums[layer.name] = self.totals.new_zeros(2)
        ce = F.cross_entropy(at_least_single(logits), labels, reduction="sum")
        correct = (logits.argmax(1) == labels).sum()
        self.totals.add_(torch.stack([ce.double(), correct.double()]))
        for layer in stats:
            self.sums[layer.name].add_(layer.moments[ERROR:].double().sum(1))

    def _tensors(self) -> list[Tensor]:
        return [self.totals, *self.sums.values()]

    def _result(self, samples: int) -> Evaluation:
        """Sum over the ranks; those without samples add 0."""
        known = (getattr(module, "layer_name", None) for module in self.net.modules())
        ours = list(self.sums) or [name for name in known if isinstance(name, str)]
        names = self.world.broadcast_text("\n".join(ours)).splitlines()  # empty without a layer
        rows = torch.stack([self.totals, *(self.sums.get(n, self.totals * 0) for n in names)]).cpu()
        elements = [samples, *(samples * self.elements.get(name, 0) for name in names)]
        counts = torch.tensor(elements, dtype=torch.float64)
        table = self.world.all_reduce_sum(torch.cat([rows, counts[:, None]], 1)).tolist()
        loss, correct, count = table[0]
        count = max(count, 1.0)
        layers = (
            LayerResult(name, error / values, spikes / values, int(values))
            for name, (error, spikes, values) in zip(names, table[1:], strict=True)
        )
        return Evaluation(100 * correct / count, loss / count, int(count), tuple(layers))
