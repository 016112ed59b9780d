"""rmploss: spiking neural networks whose membrane potentials stay close to their spikes.

An implementation of RMP-Loss (Guo et al., ICCV 2023). The public names are below; each is imported
on first use, so that the command line does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmploss import export, functional, models, register
    from rmploss.conv import SpikeConv2d
    from rmploss.engine.trained import load
    from rmploss.errors import UserError
    from rmploss.interop.attach import attach
    from rmploss.neurons import IF, LIF, Accumulator
    from rmploss.norm import TDBatchNorm2d
    from rmploss.objectives import RMPLoss, rmp_loss
    from rmploss.ops.lif.moments import MomentSpec
    from rmploss.recompute import checkpoint
    from rmploss.stats import MembraneStats, membrane_stats
    from rmploss.surrogate import Surrogate

__version__ = "0.1.0"

__all__ = [
    "IF",
    "LIF",
    "Accumulator",
    "MembraneStats",
    "MomentSpec",
    "RMPLoss",
    "SpikeConv2d",
    "Surrogate",
    "TDBatchNorm2d",
    "UserError",
    "attach",
    "checkpoint",
    "export",
    "functional",
    "load",
    "membrane_stats",
    "models",
    "register",
    "rmp_loss",
]

_PLACES = {
    "IF": "rmploss.neurons",
    "LIF": "rmploss.neurons",
    "Accumulator": "rmploss.neurons",
    "MembraneStats": "rmploss.stats",
    "MomentSpec": "rmploss.ops.lif.moments",
    "RMPLoss": "rmploss.objectives",
    "SpikeConv2d": "rmploss.conv",
    "Surrogate": "rmploss.surrogate",
    "TDBatchNorm2d": "rmploss.norm",
    "UserError": "rmploss.errors",
    "attach": "rmploss.interop.attach",
    "checkpoint": "rmploss.recompute",
    "load": "rmploss.engine.trained",
    "membrane_stats": "rmploss.stats",
    "rmp_loss": "rmploss.objectives",
}


def __getattr__(name: str) -> Any:
    if name in ("export", "functional", "models", "register"):
        return importlib.import_module(f"rmploss.{name}")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'rmploss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
