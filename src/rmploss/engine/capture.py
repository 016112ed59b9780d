"""Call a function many times: eagerly, or as a CUDA graph that is captured once and replayed.

Such a function takes and returns nothing: it reads and writes tensors that stay where they are.
During a replay Python does not run, and version counters do not rise: whatever the function does
beside its tensors happens at the capture alone.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor

from rmploss.engine.distributed import World
from rmploss.errors import Problem, UserError
from rmploss.randomness import generators_kept

Function = Callable[[], None]
Capture = Literal["auto", "on", "off"]
"""Of `rmploss train --capture`: "on" raises where "auto" says why it runs eagerly."""
WARM_UPS = 2
"""Runs before a capture, in which kernels are compiled, chosen and measured."""


class CaptureError(Exception):
    """The reason why a function cannot be captured, for people; one line."""


class Capturer(Protocol):
    """Makes a replay of a function."""

    def __call__(self, function: Function, tensors: Sequence[Tensor]) -> Function:
        """A function that does what `function` does, without running its Python again.

        function: is run and captured; afterwards `tensors` are as before.
        tensors: all that the function changes and its next run reads.

        Raises `CaptureError`; `tensors` are then as before, too.
        """
        ...


def impossible(world: World) -> str:
    """Why nothing can be captured here; empty: it can."""
    if world.device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, this is {world.device}"
    if world.size > 1:
        return f"{world.size} ranks run eagerly: collectives are not captured"
    return ""


class Repeated:
    """A function that is called many times, and captured at its first call if it can be.

    function: takes and returns nothing.
    tensors: returns all tensors that the function changes and its next run reads.
    capturer: captures; None: run eagerly.
    mode: "on" raises `UserError` where a capture fails, "auto" runs eagerly.
    report: is told what became of the capture: "" if it succeeded, otherwise the reason.
    """

    def __init__(
        self,
        function: Function,
        tensors: Callable[[], Sequence[Tensor]],
        *,
        capturer: Capturer | None,
        mode: Capture = "auto",
        report: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.function, self.tensors, self.capturer = function, tensors, capturer
        self.mode, self.report = mode, report
        self._run: Function | None = None

    def __call__(self) -> None:
        """Run the function once."""
        if self._run is None:
            self._run = self._captured()
        self._run()

    def forget(self) -> None:
        """Capture again at the next call: Python that the function runs has changed."""
        self._run = None

    def _captured(self) -> Function:
        if self.capturer is None:
            return self.function
        try:
            run = self.capturer(self.function, self.tensors())
        except CaptureError as error:
            if self.mode == "on":
                raise _refusal(str(error)) from error
            self.capturer = None
            self.report(str(error))
            return self.function
        self.report("")
        return run


def require(mode: Capture, world: World) -> None:
    """Raise `UserError` if a capture is asked for by name and nothing can be captured here."""
    reason = impossible(world) if mode == "on" else ""
    if reason:
        raise _refusal(reason)


def _refusal(reason: str) -> UserError:
    problem = Problem("--capture on", reason, "--capture auto, which runs such a step eagerly")
    return UserError("the step cannot be captured", [problem])


def cuda_graph(function: Function, tensors: Sequence[Tensor]) -> Function:
    """A `Capturer`: warm up on a side stream, restore the tensors, capture.

    The default generators keep their state. A replay draws by the state that they have then: every
    graph is registered with the default generator of its device.
    """
    device = tensors[0].device
    current = torch.cuda.current_stream(device)
    side = torch.cuda.Stream(device)
    with generators_kept(device), _unchanged(tensors):
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS - 1):
                function()
            with _host_reads_raise():
                function()
        current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # The outer context restores the stream, which a failed capture leaves at `side`. Loader threads
    # may use the device meanwhile, so only this thread's calls are checked.
    capture = torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local")
    with generators_kept(device), _explained(), torch.cuda.stream(current), capture:
        function()
    return graph.replay


@contextmanager
def _unchanged(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Give the tensors back the values from before the block, in place."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


@contextmanager
def _explained() -> Iterator[None]:
    """Errors of a capture as `CaptureError`, once the device is done with what came before."""
    try:
        yield
    except RuntimeError as error:
        torch.cuda.synchronize()
        raise CaptureError(_first_line(error)) from error


@contextmanager
def _host_reads_raise() -> Iterator[None]:
    """Raise `CaptureError` where the block makes the host wait for a tensor.

    Found before the capture, such a read leaves no broken graph behind.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode finds some of the reads only
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchronizing CUDA operation" not in str(error):
            raise
        raise CaptureError("it reads a value of a tensor on the host") from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
