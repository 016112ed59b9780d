"""Norse 1: `LIFBoxCell` lifted over time.

Norse scales the input: v(t) = v(t-1) + dt/tau (x - v(t-1)). With dt/tau = 3/4 the decay is 1/4, and
v is 3/4 of the paper's u, so a threshold of 3/8 fires where u reaches 1/2: exactly the paper's
neuron, in another unit. It fires at v > V_th, not at equality; its reset carries gradient;
surrogate: SuperSpike, its default.
"""

import torch
from torch import Tensor, nn

from rmploss_bench.peers._network import Flat, Kit, peer_module

RATE = 0.75
"""dt / tau, which makes the decay 1 - RATE."""


class Norse(Kit):
    """Plain PyTorch layers and `Lift(LIFBoxCell)`."""

    package = "norse"
    memory_format = torch.contiguous_format

    def __init__(self) -> None:
        self.torch = peer_module("norse.torch")
        self.parameters = peer_module("norse.torch.functional.lif_box").LIFBoxParameters

    def over_time(self, *layers: nn.Module) -> nn.Module:
        """The layers applied to T*B maps."""
        return Flat(*layers)

    def neurons(self) -> nn.Module:
        """`LIFBoxCell` over all time steps; the last membrane is dropped."""

        def exact(value: float) -> Tensor:
            return torch.as_tensor(value, dtype=torch.float64)  # 0-dim: does not widen the maps

        parameters = self.parameters(
            tau_mem_inv=exact(RATE), v_th=exact(0.5 * RATE), v_reset=exact(0.0), v_leak=exact(0.0)
        )
        cell = self.torch.LIFBoxCell(parameters, dt=1.0)
        return nn.Sequential(self.torch.Lift(cell), _Spikes())


class _Spikes(nn.Module):
    def forward(self, both: tuple[Tensor, object]) -> Tensor:
        """The spikes of a pair (spikes, state)."""
        return both[0]
