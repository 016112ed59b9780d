"""The spike-element-wise block of SEW ResNet (Fang et al., NeurIPS 2021): neurons, then a function.

    a = SN(BN(conv2(SN(BN(conv1(x))))));   b = x, or SN(BN(conv1x1(x))) where the size changes
    y = g(a, b):   ADD  a + b        AND  a b        IAND  b (1 - a)

ADD adds spikes, so its outputs are whole numbers that grow along a stage, n + 1 at most after n
blocks; the other two stay binary. There is no neuron behind g.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from rmploss.models.flow import PassesSpikes, through
from rmploss.models.layers import ConvNorm, MakeNeuron, MakeNorm, conv3x3, placed
from rmploss.norm import TDBatchNorm2d
from rmploss.ops import Spikes, dense_of

Connect = Literal["add", "and", "iand"]
CONNECT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "and": lambda a, b: a * b,
    "iand": lambda a, b: b * (1 - a),
}
"""g(a, b) of the branch's spikes a and the shortcut's b, one shape."""


class SEWBlock(PassesSpikes):
    """Two 3x3 convolutions with their neurons beside a shortcut, `[T, B, C, H, W]` to y.

    shortcut: a projection (a `ConvNorm`, or pooling and one in sequence), which gets neurons of
    its own, `lif3`; None for the identity.
    """

    reads_bits = True

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        connect: Connect,
        shortcut: ConvNorm | nn.Sequential | None,
        neuron: MakeNeuron,
        norm: MakeNorm,
    ) -> None:
        super().__init__()
        self.connect = connect
        self.conv1 = conv3x3(in_channels, channels, norm, stride=stride)
        self.lif1 = placed(neuron(channels), "inner")
        self.conv2 = conv3x3(channels, channels, norm)
        self.lif2 = neuron(channels)
        self.shortcut: ConvNorm | nn.Sequential | None = shortcut
        self.lif3 = None if shortcut is None else neuron(channels)

    def forward_spikes(self, x: Tensor | Spikes) -> Tensor:
        """g of the two branches."""
        a = self.conv2.fire(self.conv1.fire(x, self.lif1), self.lif2)
        return CONNECT[self.connect](dense_of(a), dense_of(self._shortcut(x)))

    def start_as_identity(self) -> None:
        """Make the block pass its shortcut on: branches that are 0, or for AND always fire.

        The last norm of the branch gets the gain 0; for AND the offset 1, the published threshold.
        """
        silence(self.conv2, offset=1.0 if self.connect == "and" else 0.0)

    def _shortcut(self, x: Tensor | Spikes) -> Tensor | Spikes:
        if self.shortcut is None or self.lif3 is None:
            return x
        if isinstance(self.shortcut, ConvNorm):
            return self.shortcut.fire(x, self.lif3)
        pool, project = self.shortcut.children()
        assert isinstance(project, ConvNorm)
        return project.fire(through(pool, x), self.lif3)


def silence(stage: ConvNorm, offset: float = 0.0) -> None:
    """Start a convolution's norm with the gain 0 and an offset: its output is the offset."""
    norm = stage.norm
    if isinstance(norm, TDBatchNorm2d):
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, offset)
