"""NeuroBench: a trained network as one of its models, for the metrics of its benchmarks.

NeuroBench counts with hooks on layers, from the values that they read and give:

    Effective_ACs, Effective_MACs   of layers that read -1, 0 and 1 alone, and of all others
    ActivationSparsity              1 - the share of outputs of neurons that are not 0

Ours (`analysis.cost`) call an operation an accumulation if its own input is 1, whatever the rest of
the layer reads; the sum of both kinds is the same wherever no weight is 0.
"""

from typing import Any

from torch import Tensor, nn

from rmploss.arguments import checked
from rmploss.engine.trained import Trained
from rmploss.errors import Problem, UserError
from rmploss.models import SpikingNetwork
from rmploss.neurons import SpikingLayer


@checked()
def to_neurobench(net: Trained | SpikingNetwork) -> Any:
    """A network as a `neurobench.models.NeuroBenchModel`; it stays the network it is.

    net: from `rmploss.load`, or any network of `rmploss.models`.

    The model takes batches as NeuroBench has them, `[B, C, H, W]` of images and `[B, T, C, H, W]`
    of events, and returns the most probable classes `[B]`. Raises `UserError` without the package.
    """
    try:
        from neurobench.models import TorchModel  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        problem = Problem("neurobench", str(error), "pip install 'rmploss[neurobench]'")
        raise UserError("a package is missing", [problem]) from error
    wrapped: Any = TorchModel(_Classes(net.net if isinstance(net, Trained) else net))
    wrapped.add_activation_module(SpikingLayer)
    return wrapped


class _Classes(nn.Module):
    """The most probable classes of a batch in NeuroBench's order of axes."""

    def __init__(self, net: SpikingNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """x: `[B, C, H, W]` or `[B, T, C, H, W]`; returns `[B]`."""
        return self.net(x.movedim(1, 0) if x.ndim == 5 else x).argmax(1)
