"""A captured step is the eager one, and its warm-up leaves no trace."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rmploss.engine.capture import WARM_UPS, Function, _unchanged
from rmploss.errors import UserError
from rmploss_bench import capture
from rmploss_bench.capture import Captured
from rmploss_bench.contestants import contestant
from rmploss_bench.runners import NetRunner
from rmploss_bench.workload import Workload
from tests.benchmarks.kits import tiny_workload


def uncaptured(function: Function, tensors: Sequence[Tensor]) -> Function:
    """What `CudaGraphs` does, for a machine without CUDA: the warm-up, and a replay by a call."""
    with _unchanged(tensors):
        for _ in range(WARM_UPS):
            function()
    return function


def made(workload: Workload) -> NetRunner:
    runner = contestant("rmploss+rmp")(workload, True)
    assert isinstance(runner, NetRunner)
    return runner


def test_a_replayed_step_is_the_eager_step() -> None:
    workload = tiny_workload()
    eager, inner = made(workload), made(workload)
    captured = Captured(inner, workload.conditions, True, uncaptured)
    for _ in range(2):
        eager.step()
        captured.step()
    assert inner.output.equal(eager.output)
    assert inner.value.equal(eager.value)
    assert inner.gradients().equal(eager.gradients())
    for mine, other in zip(inner.state(), eager.state(), strict=True):
        assert mine.equal(other)


def test_the_warm_up_is_set_back() -> None:
    workload = tiny_workload()
    inner = made(workload)
    before = [tensor.clone() for tensor in inner.state()]
    Captured(inner, workload.conditions, True, uncaptured)
    after = inner.state()
    assert all(a.equal(b) for a, b in zip(after, before, strict=True))
    momentum = [state["momentum_buffer"] for state in inner.optimizer.state.values()]
    assert len(momentum) == len([*inner.net.parameters()])
    assert not any(tensor.any() for tensor in momentum)


def test_the_step_of_the_engine_is_captured_like_the_others() -> None:
    workload = tiny_workload()
    eager = contestant("rmploss-engine+rmp")(workload, True)
    inner = contestant("rmploss-engine+rmp")(workload, True)
    captured = Captured(inner, workload.conditions, True, uncaptured)
    for _ in range(2):
        eager.step()
        captured.step()
    assert all(a.equal(b) for a, b in zip(inner.state(), eager.state(), strict=True))


def test_without_cuda_nothing_is_captured() -> None:
    with pytest.raises(UserError, match="has no CUDA graphs"):
        contestant("rmploss-captured")(tiny_workload(), True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["rmploss+rmp", "rmploss-engine+rmp", "rmploss"])
def test_a_graph_computes_what_the_eager_step_does(name: str) -> None:
    from rmploss_bench.gate import in_float64
    from rmploss_bench.workload import make_workload
    from tests.benchmarks.kits import tiny

    workload = in_float64(make_workload(tiny(device="cuda")))
    eager = contestant(name)(workload, True)
    captured = contestant(f"{name}-captured")(workload, True)
    assert isinstance(captured, capture.Captured)
    inner = captured.runner
    assert isinstance(eager, NetRunner)
    assert isinstance(inner, NetRunner)
    found, wanted = inner.outcome(captured.step), eager.outcome(eager.step)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)
