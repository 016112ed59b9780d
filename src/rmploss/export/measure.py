"""Accuracy and time of ONNX files in ONNX Runtime: the 8-bit one beside the one in float32."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rmploss.export.extras import require

REPEATS = 5
BATCH = 10
"""Inputs of a call that is timed."""


@dataclass(frozen=True)
class Measured:
    """What a file does on one thread of this machine.

    file: its name.
    accuracy: in percent, of `samples` inputs.
    ms: the median CPU time of one input, in milliseconds, in batches of `BATCH`; the one thread
        is the caller's, so that other work on the machine hardly matters.
    bytes: its size.
    """

    file: str
    accuracy: float
    samples: int
    ms: float
    bytes: int

    def line(self) -> str:
        """One line for people."""
        return (
            f"{self.file}: {self.accuracy:.1f} % of {self.samples}, {self.ms:.2f} ms per input on "
            f"one thread, {self.bytes:,} bytes"
        )


def measure(files: dict[str, bytes], x: Tensor, labels: Tensor) -> list[Measured]:
    """Run files of `onnx_model` on inputs with labels; rounds of timing are interleaved.

    x: `[B, C, H, W]` or `[T, B, C, H, W]`.
    labels: `[B]`.
    """
    (runtime,) = require("onnxruntime")
    sessions = {name: _session(runtime, content) for name, content in files.items()}
    few = x.narrow(x.ndim - 4, 0, min(BATCH, len(labels)))
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(REPEATS + 1):
        for name, session in sessions.items():
            begin = time.thread_time()
            session.run(["logits"], {"x": few.numpy()})
            times[name].append(1000 * (time.thread_time() - begin) / few.shape[x.ndim - 4])
    found = []
    for name, session in sessions.items():
        (logits,) = session.run(["logits"], {"x": x.numpy()})
        right = 100 * float((logits.argmax(1) == labels.numpy()).mean())
        ms = statistics.median(times[name][1:])  # the first call prepares
        found.append(Measured(name, right, len(labels), ms, len(files[name])))
    return found


def _session(runtime: Any, content: bytes) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
