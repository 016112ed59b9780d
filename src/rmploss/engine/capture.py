"""Call a function many times: eagerly, or as a CUDA graph that is captured once and replayed.

Such a function takes and returns nothing: it reads and writes tensors that stay where they are.
During a replay Python does not run, and version counters do not rise: whatever the function does
beside its tensors happens at the capture alone.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from rmploss.engine.distributed import World
from rmploss.errors import Problem, UserError
from rmploss.ops.tracing import as_captured
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


def eager_note(mode: Capture, world: World) -> str:
    """The note at the start of a run on a GPU in which nothing can be captured; else empty."""
    if mode == "off" or world.device.type != "cuda":
        return ""
    return impossible(world)


class Repeated:
    """A function that is called many times, and captured at its first call if it can be.

    function: takes and returns nothing.
    tensors: returns all tensors that the function changes and its next run reads.
    capturer: captures; None: run eagerly.
    mode: "on" raises `UserError` where a capture fails, "auto" runs eagerly.
    what: the function is, in words.
    report: called after a capture with "" if it succeeded, otherwise with the reason.
    """

    def __init__(
        self,
        function: Function,
        tensors: Callable[[], Sequence[Tensor]],
        *,
        capturer: Capturer | None,
        mode: Capture = "auto",
        what: str = "step",
        report: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.function, self.tensors, self.capturer = function, tensors, capturer
        self.mode, self.what, self.report = mode, what, report
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
                raise _refusal(self.what, str(error)) from error
            self.capturer = None
            self.report(str(error))
            return self.function
        self.report("")
        return run


def require(mode: Capture, world: World) -> None:
    """Raise `UserError` if a capture is asked for by name and nothing can be captured here."""
    reason = impossible(world) if mode == "on" else ""
    if reason:
        raise _refusal("training step", reason)


def _refusal(what: str, reason: str) -> UserError:
    problem = Problem("--capture on", reason, "--capture auto, which then runs it eagerly")
    return UserError(f"the {what} cannot be captured", [problem])


class CudaGraphs:
    """A `Capturer`: warm up on a side stream, restore the tensors, capture.

    The default generators keep their state. A replay draws by the state that they have then: every
    graph is registered with the default generator of its device.

    device: of all tensors of the functions.

    Its graphs share one stream and one pool of memory. They may: what a function leaves lies in
    tensors from before its capture, and two replays never overlap.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._side = torch.cuda.Stream(device)
        self._alive: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def __call__(self, function: Function, tensors: Sequence[Tensor]) -> Function:
        """The replay of a graph of the function."""
        self.warm_up(function, tensors)
        return self.capture(function)

    def warm_up(self, function: Function, tensors: Sequence[Tensor]) -> None:
        """Run the function as `capture` will; `tensors` are as before."""
        current = torch.cuda.current_stream(self.device)
        with as_captured(), generators_kept(self.device), _unchanged(tensors):
            self._side.wait_stream(current)
            try:
                with torch.cuda.stream(self._side):
                    for _ in range(WARM_UPS - 1):
                        function()
                    with _host_reads_raise():
                        function()
            finally:  # after an error, too: what it has begun must not overtake the restoration
                current.wait_stream(self._side)

    def capture(self, function: Function) -> Function:
        """The replay of a graph of the function, which has been warmed up."""
        graph = torch.cuda.CUDAGraph()
        causes: list[Exception] = []
        try:
            with as_captured(), generators_kept(self.device), self._recording(graph):
                try:
                    function()
                except Exception as error:
                    causes.append(error)  # which the end of a broken capture hides
                    raise
        except RuntimeError as error:
            graph.reset()
            torch.cuda.synchronize(self.device)
            self._leave_capture()
            cause = (causes or [error])[0]
            raise CaptureError(_first_line(cause)) from cause
        self._alive.add(graph)
        return graph.replay

    @contextmanager
    def _recording(self, graph: torch.cuda.CUDAGraph) -> Iterator[None]:
        """What runs inside the block goes into the graph."""
        # A pool without a graph is given back, so its handle alone would not do.
        pool = next((other.pool() for other in self._alive), None)
        # The outer context restores the stream, which a failed capture leaves at the side stream.
        # Loader threads may use the device meanwhile, so only this thread's calls are checked.
        with (
            torch.cuda.stream(torch.cuda.current_stream(self.device)),
            torch.cuda.graph(
                graph, pool=pool, stream=self._side, capture_error_mode="thread_local"
            ),
        ):
            yield

    def _leave_capture(self) -> None:
        """Capture one kernel: a failed capture leaves the default generator as if inside of it.

        Dropout would raise from then on; the end of a successful capture sets this back.
        """
        with self._recording(torch.cuda.CUDAGraph()):
            torch.zeros((), device=self.device)


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
def _host_reads_raise() -> Iterator[None]:
    """Raise `CaptureError` where the block makes the host wait for a tensor.

    Found before the capture, such a read leaves no broken graph behind.
    """
    before = torch.cuda.get_sync_debug_mode()
    _set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchronizing CUDA operation" not in str(error):
            raise
        raise CaptureError("it reads a value of a tensor on the host") from error
    finally:
        _set_sync_debug_mode(before)


def _set_sync_debug_mode(mode: int | str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode finds some of the reads only
        torch.cuda.set_sync_debug_mode(mode)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
