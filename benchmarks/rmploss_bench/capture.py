"""A contestant whose whole step is one CUDA graph: forward, loss, backward and optimizer.

Everybody's graph is made as `rmploss train` makes its own (`rmploss.engine.capture`): a warm-up on
a side stream, since lazy initialization, autotuning and compilation are not allowed inside a
capture; what it changed is set back; then one step is recorded. Images and labels are the
workload's own tensors: a replay reads what they hold.
"""

import torch

from rmploss.engine.capture import Capturer, CudaGraphs
from rmploss.errors import Problem, UserError
from rmploss_bench.conditions import Conditions
from rmploss_bench.runners import Runner


class Captured(Runner):
    """Another runner's step, or its forward in evaluation, as one CUDA graph.

    runner: is captured; it is not run by itself afterwards.
    conditions: of its workload.
    train: True to capture a training step, False for a forward.
    capturer: makes the graph; None: the engine's.

    Raises `UserError` where the workload is not on CUDA, and `CaptureError`.
    """

    def __init__(
        self,
        runner: Runner,
        conditions: Conditions,
        train: bool,
        capturer: Capturer | None = None,
    ) -> None:
        if capturer is None:
            if not conditions.on_cuda:
                problem = Problem(
                    f"device = {conditions.device}", "has no CUDA graphs", "--device cuda"
                )
                raise UserError("cannot capture", [problem])
            capturer = CudaGraphs(torch.device(conditions.device))
        self.runner, self.layout = runner, runner.layout
        act = runner.step if train else runner.infer
        self._replay = capturer(act, runner.state())

    def step(self) -> None:
        """Replay the captured step."""
        self._replay()

    def infer(self) -> None:
        """Replay the captured forward."""
        self._replay()
