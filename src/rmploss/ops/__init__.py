"""The operations, each once as an equation and once per backend, with one signature.

    lif/            leaky integrate-and-fire neurons over time, tdBN in front of them, the moments
    spike_conv2d/   the convolution of spikes
    spikes/         spikes as a value with bits; packing and unpacking
    pooling.py      average pooling that keeps nothing
    inference.py    a layer without gradient: convolution, norm, shortcut and neurons in one pass

`backend="auto"` picks by device and by what the backend can do; a backend that is asked for by name
and cannot run raises. Nothing falls back silently: `rmploss doctor` and the record of every run
name the backend that runs, and the reason (`backends.py`).
"""

from rmploss.ops.backends import (
    BACKENDS,
    asked,
    check_backend,
    choose,
    describe,
    pick,
    use_backend,
)
from rmploss.ops.inference import Affine, Convolution, Kept, conv_lif
from rmploss.ops.layout import as_handed_out, at_least_single
from rmploss.ops.lif.inputs import NeuronOptions, check_current
from rmploss.ops.lif.moments import MomentSpec
from rmploss.ops.lif.op import lif, lif_layer, norm_lif
from rmploss.ops.pooling import avg_pool2d
from rmploss.ops.spike_conv2d.inputs import require_fit, require_map
from rmploss.ops.spike_conv2d.op import spike_conv2d
from rmploss.ops.spike_conv2d.reference import conv2d
from rmploss.ops.spikes.value import Spikes, dense_of

__all__ = [
    "BACKENDS",
    "Affine",
    "Convolution",
    "Kept",
    "MomentSpec",
    "NeuronOptions",
    "Spikes",
    "as_handed_out",
    "asked",
    "at_least_single",
    "avg_pool2d",
    "check_backend",
    "check_current",
    "choose",
    "conv2d",
    "conv_lif",
    "dense_of",
    "describe",
    "lif",
    "lif_layer",
    "norm_lif",
    "pick",
    "require_fit",
    "require_map",
    "spike_conv2d",
    "use_backend",
]
