"""ONNX Runtime on the files that `rmploss export` writes: float32, and weights of 8 bits.

The gate of the float file compares every spike on `IMAGES` images with those of our reference.
Folded weights and other orders of summation may move a membrane over the threshold, and every spike
behind it then differs with it; `FLIPS` is the allowed share. The file of 8 bits holds other
weights, so it computes another network by intent and has no gate; its scales are calibrated on the
batch.
"""

from typing import Any

import torch
from torch import Tensor

from rmploss import ops
from rmploss.errors import UserError
from rmploss_bench.conditions import Conditions
from rmploss_bench.peers import MissingPeerError
from rmploss_bench.runners import Runner, copied
from rmploss_bench.workload import Workload

IMAGES = 8
"""Images on which spikes are compared."""
FLIPS = 1e-3
"""Allowed share of spikes that differ; dimensionless."""


class Onnx(Runner):
    """A session of ONNX Runtime with as many threads as torch has.

    content: the file.
    """

    def __init__(self, workload: Workload, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = workload.conditions.threads
        options.log_severity_level = 3
        chosen: Any = {"sess_options": options, "providers": ["CPUExecutionProvider"]}
        self.session: Any = onnxruntime.InferenceSession(content, **chosen)
        self.workload = workload

    def step(self) -> None:
        """Nothing is trained here."""
        raise UserError("ONNX Runtime trains no network: rmploss bench latency")

    def infer(self) -> None:
        """One forward."""
        self.logits()

    def logits(self) -> Tensor:
        """Logits `[B, K]` of the workload's batch."""
        (found,) = self.session.run(["logits"], {"x": self.workload.images.numpy()})
        return torch.from_numpy(found)


def make_onnx(workload: Workload, train: bool) -> Runner:
    """The float32 file."""
    return Onnx(workload, _content(workload, eight=False))


def make_onnx_int8(workload: Workload, train: bool) -> Runner:
    """The file with convolutions of 8 bits."""
    return Onnx(workload, _content(workload, eight=True))


def differences(workload: Workload) -> list[str]:
    """Why the gate of the float32 file is red, in words; empty if it is green."""
    from rmploss.export import parity

    few = workload.images[:IMAGES]
    graph = _graph(workload, few)
    with ops.use_backend("reference"):
        given = parity.reference(_network(workload), few)
    found = parity.of_onnx("model.onnx", _content(workload, eight=False), graph, given)
    if found.failure:
        return [found.failure]
    differ, count = sum(found.spikes_that_differ.values()), sum(found.spikes.values())
    return [] if differ <= FLIPS * count else [f"{differ} of {count} spikes differ"]


def _content(workload: Workload, *, eight: bool) -> bytes:
    _require(workload.conditions)
    from rmploss.export.int8 import calibrate
    from rmploss.export.to_onnx import onnx_model

    graph = _graph(workload, workload.images[:1])
    rounded = calibrate(graph, workload.images) if eight else None
    return onnx_model(graph, rounded=rounded).SerializeToString()


def _graph(workload: Workload, sample: Tensor) -> Any:
    from rmploss.export.graph import graph_of

    return graph_of(_network(workload), sample)


def _network(workload: Workload) -> Any:
    return copied(workload).eval()


def _require(conditions: Conditions) -> None:
    if conditions.on_cuda or conditions.precision != "float32":
        raise MissingPeerError("measured on the CPU and in float32 only")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingPeerError("not installed: pip install 'rmploss[export]'") from None
