"""Evaluate a network on a split: accuracy, and each layer's quantization error and firing rate."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss.engine.distributed import World
from rmploss.models import SpikingNetwork
from rmploss.ops import at_least_single
from rmploss.ops.lif.moments import ERROR, SPIKES, MomentSpec
from rmploss.stats import membrane_stats


@dataclass(frozen=True)
class LayerResult:
    """The means of q(u) (Eq. 9) and of o of one spiking layer on a split; dimensionless."""

    name: str
    quantization_error: float
    firing_rate: float


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
    def firing_rate(self) -> float:
        """The mean over the layers: spikes per neuron and time step."""
        return sum(layer.firing_rate for layer in self.layers) / max(len(self.layers), 1)


def evaluate(
    net: SpikingNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    world: World | None = None,
    p: float = 2.0,
    on_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate a network over the batches of all ranks.

    net: runs in evaluation mode; afterwards it is in the mode it had.
    batches: of this rank: (x `[B, C, H, W]` or `[T, B, C, H, W]`, labels `[B]`); B may be 0.
    world: this process among the ranks; None: a single process on the CPU.
    p: exponent of Eq. 9, independent of the training's.
    on_batch: is called after each batch.
    """
    world = world or World()
    training = net.training
    net.eval()
    spec = MomentSpec(p=p, differentiable=False)
    totals = torch.zeros(3, dtype=torch.float64)
    sums: dict[str, Tensor] = {}  # per layer: q(u), o, number of values
    try:
        with torch.no_grad():
            for images, labels in batches:
                if len(labels):
                    images, labels = images.to(world.device), labels.to(world.device)
                    with membrane_stats(net, spec) as stats:
                        logits = net(images)
                    totals += _totals(logits, labels)
                    for layer in stats:
                        rows = layer.moments[[ERROR, SPIKES]].double().sum(1).tolist()
                        row = torch.tensor([*rows, layer.elements], dtype=torch.float64)
                        sums[layer.name] = sums.get(layer.name, 0) + row
                on_batch()
    finally:
        net.train(training)
    names, table = _over_ranks(net, sums, totals, world)
    loss, correct, count = table[0].tolist()
    count = max(count, 1.0)
    layers = (
        LayerResult(name, error / elements, spikes / elements)
        for name, (error, spikes, elements) in zip(names, table[1:].tolist(), strict=True)
    )
    return Evaluation(100 * correct / count, loss / count, int(count), tuple(layers))


def _totals(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of cross-entropies, correct answers and samples of a batch; float64 `[3]`."""
    ce = F.cross_entropy(at_least_single(logits), labels, reduction="sum")
    correct = (logits.argmax(1) == labels).sum()
    return torch.tensor([ce.item(), correct.item(), len(labels)], dtype=torch.float64)


def _over_ranks(
    net: SpikingNetwork, sums: dict[str, Tensor], totals: Tensor, world: World
) -> tuple[list[str], Tensor]:
    """Layer names, and the sums over all ranks `[1 + layers, 3]`; ranks without samples add 0."""
    known = (getattr(module, "layer_name", None) for module in net.modules())
    ours = list(sums) or [name for name in known if isinstance(name, str)]
    names = world.broadcast_text("\n".join(ours)).splitlines()  # empty without a spiking layer
    zero = torch.zeros(3, dtype=torch.float64)
    table = torch.stack([totals, *(sums.get(name, zero) for name in names)])
    return names, world.all_reduce_sum(table)
