"""How a CUDA graph is made: the order of what is asked of CUDA, written down by a stand-in."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from rmploss.engine import capture
from rmploss.engine.capture import CaptureError, CudaGraphs
from rmploss.neurons.dsr import weighted_mean
from rmploss.ops.tracing import is_capturing
from tests.fake_gpu import HostError, Strict

CUDA = torch.device("cuda", 0)


class StandIn:
    """In place of `torch.cuda`; `log` is what was asked for, in order.

    broken: the end of a capture raises.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.graphs: list[Any] = []
        self.broken = False

    def stream(self, name: str) -> Any:
        log = self.log

        class Stream:
            def __init__(self) -> None:
                self.name = name

            def wait_stream(self, other: Any) -> None:
                log.append(f"{name} waits for {other.name}")

        return Stream()

    def graph_of(self, number: int) -> Any:
        log = self.log

        class Graph:
            def replay(self) -> None:
                log.append(f"replay {number}")

            def reset(self) -> None:
                log.append(f"reset {number}")

            def pool(self) -> str:
                return f"pool of {number}"

        return Graph()

    def new_graph(self) -> Any:
        self.graphs.append(graph := self.graph_of(len(self.graphs)))
        return graph

    @contextmanager
    def capturing(self, graph: Any, *, pool: object, stream: Any, **rest: object) -> Iterator[None]:
        self.log.append(f"capture on {stream.name} in {pool}")
        try:
            yield
        finally:
            if self.broken:
                self.broken = False
                raise RuntimeError("capture_end: the capture is invalid")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    for name, value in {
        "Stream": lambda device=None: made.stream("side"),
        "current_stream": lambda device=None: made.stream("current"),
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": made.new_graph,
        "graph": made.capturing,
        "synchronize": lambda device=None: made.log.append("synchronize"),
        "is_current_stream_capturing": lambda: False,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(capture, "generators_kept", lambda device: nullcontext())
    monkeypatch.setattr(capture, "_host_reads_raise", nullcontext)
    # Memory of the real CPU in place of that of the device.
    monkeypatch.setattr(torch, "zeros", lambda *size, device: made.log.append("one kernel"))
    return made


class Noting(Tensor):
    """A tensor that notes that it is set back."""

    lines: list[str]

    def copy_(self, *_: Any, **__: Any) -> "Noting":
        self.lines.append("set back")
        return self


def noting(cuda: StandIn) -> Sequence[Tensor]:
    tensor = torch.ones(()).as_subclass(Noting)
    tensor.lines = cuda.log
    return [tensor]


def test_the_tensors_are_set_back_once_the_side_stream_is_done(cuda: StandIn) -> None:
    runs: list[int] = []

    def reads() -> None:
        runs.append(0)
        if len(runs) == 2:
            raise CaptureError("it reads")

    with pytest.raises(CaptureError):
        CudaGraphs(CUDA)(reads, noting(cuda))
    assert cuda.log == ["side waits for current", "current waits for side", "set back"]


def test_a_capture_that_breaks_names_its_cause_and_leaves_nothing(cuda: StandIn) -> None:
    runs: list[int] = []

    def breaks() -> None:
        runs.append(0)
        if len(runs) == 3:
            cuda.broken = True
            raise RuntimeError("not permitted when the stream is capturing\nmore of it")

    with pytest.raises(CaptureError, match=r"^not permitted when the stream is capturing$"):
        CudaGraphs(CUDA)(breaks, [])
    ours = ["capture on side in None", "reset 0", "synchronize"]
    assert cuda.log[2:] == [*ours, "capture on side in None", "one kernel"]


def test_all_graphs_share_a_stream_and_a_pool(cuda: StandIn) -> None:
    graphs = CudaGraphs(CUDA)
    first = graphs(lambda: None, [])
    second = graphs(lambda: None, [])
    asked = [line for line in cuda.log if line.startswith("capture")]
    assert asked == ["capture on side in None", "capture on side in pool of 0"]
    assert first != second
    del first, second
    cuda.graphs.clear()  # with its last graph a pool is given back: its handle must not be used
    graphs(lambda: None, [])
    assert cuda.log[-1] == "capture on side in None"


def test_the_warm_up_runs_the_code_of_the_capture(cuda: StandIn) -> None:
    with FakeTensorMode():
        x = torch.empty((), device=CUDA)
    found: list[bool] = []
    CudaGraphs(CUDA)(lambda: found.append(is_capturing(x)), [])
    assert found == [True] * (capture.WARM_UPS + 1)
    assert not is_capturing(x)
    assert not is_capturing(torch.ones(()))


def test_the_mode_that_finds_reads_comes_and_goes_without_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modes: list[object] = []

    def set_mode(mode: object) -> None:
        modes.append(mode)
        warnings.warn("this mode is a prototype", UserWarning, stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    with capture._host_reads_raise():
        pass
    assert modes == ["error", 0]


def test_the_gradient_of_dsr_copies_nothing_from_the_host() -> None:
    with FakeTensorMode(), Strict():
        x = torch.empty(4, 2, 3, 5, 5, device=CUDA)
        assert weighted_mean(x, 0.5).shape == (2, 3, 5, 5)
        with pytest.raises(HostError, match="copy"):
            torch.empty(4).to(CUDA)
