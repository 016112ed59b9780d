"""A contestant whose whole step is one CUDA graph: forward, loss, backward and optimizer.

The runner first runs `WARM_UP` times eagerly on a side stream: lazy initialization, autotuning and
compilation are not allowed inside a capture. What these steps changed is set back, then one step is
recorded. Images and labels are the workload's own tensors: a replay reads what they hold.
"""

from collections.abc import Callable

import torch

from rmploss.errors import Problem, UserError
from rmploss_bench.conditions import Conditions
from rmploss_bench.runners import NetRunner, Runner

WARM_UP = 3
"""Number of eager steps before the capture."""
Act = Callable[[], object]
Record = Callable[[Act, Act], Act]
"""Takes an act and what sets back its changes; returns the function that repeats the act."""


def cuda_graph(act: Act, set_back: Act) -> Act:
    """Record an act as a CUDA graph; returns the function that replays it.

    act: the work; it must not wait for the device.
    set_back: called between the warm-up and the capture, which itself changes nothing.
    """
    here, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(here)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            act()
        set_back()
    here.wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # Of other threads, such as a compiler's, nothing is captured and nothing checked.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        act()
    return graph.replay


class Captured(Runner):
    """Another runner's step, or its forward in evaluation, as one CUDA graph.

    runner: is captured; it is not run by itself afterwards.
    conditions: of its workload.
    train: True to capture a training step, False for a forward.
    record: makes the graph; tests give one that needs no CUDA.

    Raises `UserError` where the workload is not on CUDA.
    """

    def __init__(
        self,
        runner: Runner,
        conditions: Conditions,
        train: bool,
        record: Record | None = None,
    ) -> None:
        if record is None and not conditions.on_cuda:
            problem = Problem(
                f"device = {conditions.device}", "has no CUDA graphs", "--device cuda"
            )
            raise UserError("cannot capture", [problem])
        self.runner, self.layout = runner, runner.layout
        act = runner.step if train else runner.infer
        self._replay = (record or cuda_graph)(act, _Saved(runner).set_back)

    def step(self) -> None:
        """Replay the captured step."""
        self._replay()

    def infer(self) -> None:
        """Replay the captured forward."""
        self._replay()


class _Saved:
    """Copies of the tensors that a runner's steps change."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.held = [(tensor, tensor.detach().clone()) for tensor in runner.state()]

    @torch.no_grad()
    def set_back(self) -> None:
        """Write the values back in place, zeros into new momentum, and free the gradients."""
        for tensor, value in self.held:
            tensor.copy_(value)
        known = {id(tensor) for tensor, _ in self.held}
        for tensor in self.runner.state():
            if id(tensor) not in known:
                tensor.zero_()
        if isinstance(self.runner, NetRunner):
            self.runner.forget()
