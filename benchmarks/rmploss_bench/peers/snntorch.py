"""snnTorch 1: `Leaky`, with a loop over time written by its user.

beta is the decay. Its reset is always detached from the gradient and it fires at u > V_th, not at
equality; surrogate: fast_sigmoid, its tutorials' choice.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rmploss_bench.peers._network import Flat, Kit, peer_module


class SnnTorch(Kit):
    """Plain PyTorch layers and `Leaky`."""

    package = "snntorch"

    def __init__(self) -> None:
        self.snntorch = peer_module("snntorch")
        self.surrogate = peer_module("snntorch.surrogate")

    def over_time(self, *layers: nn.Module) -> nn.Module:
        """The layers applied to T*B maps."""
        return Flat(*layers)

    def neurons(self) -> nn.Module:
        """`Leaky` in a loop over time."""
        surrogate = self.surrogate.fast_sigmoid()
        cell = self.snntorch.Leaky(
            beta=0.25, threshold=0.5, reset_mechanism="zero", spike_grad=surrogate
        )
        return _Loop(cell)


class _Loop(nn.Module):
    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of all time steps."""
        membrane, spikes = self.cell.reset_mem(), []
        for current in x:
            spike, membrane = self.cell(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes).to(
            x.dtype
        )  # `Leaky` returns float32 spikes for float64 currents
