"""rmploss: spiking neural networks whose membrane potentials stay close to their spikes.

The reference implementation of RMP-Loss (Guo et al., ICCV 2023). Everything public is below.
"""

from importlib.metadata import version

from rmploss import functional, models
from rmploss.errors import UserError
from rmploss.neurons import IF, LIF, Accumulator
from rmploss.norm import TDBatchNorm2d
from rmploss.objectives import RMPLoss
from rmploss.ops.moments import MomentSpec
from rmploss.stats import MembraneStats, checkpoint, membrane_stats
from rmploss.surrogate import Surrogate

__version__ = version("rmploss")

__all__ = [
    "IF",
    "LIF",
    "Accumulator",
    "MembraneStats",
    "MomentSpec",
    "RMPLoss",
    "Surrogate",
    "TDBatchNorm2d",
    "UserError",
    "checkpoint",
    "functional",
    "membrane_stats",
    "models",
]
