"""The gate is green for what is right and red for what is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rmploss import ops
from rmploss.ops.backends import asked
from rmploss_bench import gate_ops
from rmploss_bench.contestants import TRAINING_ONLY
from rmploss_bench.gate import gate
from rmploss_bench.operations import PAPER
from rmploss_bench.peers import PEERS
from rmploss_bench.runners import NetRunner
from rmploss_bench.workload import make_workload
from tests.benchmarks.kits import tiny, tiny_workload

OURS = ("rmploss+rmp", "rmploss-engine+rmp", "rmploss", "rmploss-reference")


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("network", ["resnet20", "resnet19", "vgg16"])
def test_our_own_are_green(network: str, train: bool) -> None:
    judge = gate(tiny_workload(network), train=train)
    names = [name for name in OURS if train or name not in TRAINING_ONLY]
    assert [judge(name) for name in names] == [""] * len(names)


def test_our_own_are_green_in_bf16() -> None:
    judge = gate(make_workload(tiny("resnet20", batch=8, precision="bf16")), train=True)
    assert [judge(name) for name in OURS] == [""] * len(OURS)


def test_a_wrong_gradient_in_bf16_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    right = NetRunner.backward

    def wrong(self: NetRunner) -> None:
        right(self)
        if self.workload.conditions.precision == "bf16" and asked() == "auto":
            for parameter in self.net.parameters():
                assert parameter.grad is not None
                parameter.grad.mul_(4)

    monkeypatch.setattr(NetRunner, "backward", wrong)
    judge = gate(make_workload(tiny("resnet20", batch=8, precision="bf16")), train=True)
    assert "gradients differ" in judge("rmploss+rmp")


@pytest.mark.parametrize(("kit", "red"), [("Plain", ""), ("Leakier", "logits"), ("Forgetful", "l")])
def test_a_peer_that_computes_something_else_is_red(
    kit: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PEERS._places, "norse", f"tests.benchmarks.kits:{kit}")
    why = gate(tiny_workload(), train=True)("norse")
    assert (red in why) if red else why == ""
    assert bool(why) == bool(red)


def test_a_wrong_operation_of_ours_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops.lif

    def wrong(x: Tensor, *args: Any, backend: str = "auto", **options: Any) -> Any:
        if backend == "auto" and x.dtype == torch.float32:
            options["decay"] = 0.25001
        return right(x, *args, backend=backend, **options)

    monkeypatch.setattr(ops, "lif", wrong)
    monkeypatch.setattr(gate_ops, "OPERATIONS", ("lif",))
    reds: list[str] = []
    with gate_ops.judged(reds, train=True) as calls:
        ops.lif(torch.randn(4, 2, 8, 4, 4), **PAPER)
    assert calls() == 1
    assert reds
    assert ops.lif is wrong  # nothing is left patched


def disturbed(change: Callable[[list[Tensor]], None]) -> Callable[..., Any]:
    """The right operation, with its outputs changed for all backends but the reference."""

    def operation(*args: Any, backend: str, **options: Any) -> Any:
        spikes, sums, last = ops.lif(*args, backend="reference", **options)
        assert sums is not None
        outputs = [spikes, sums, last]
        if backend != "reference":
            change(outputs)
        return tuple(outputs)

    return operation


class _Bent(torch.autograd.Function):
    """The identity with a gradient that is a little off."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0] * 1.001


def no_change(outputs: list[Tensor]) -> None:
    """Change nothing."""


def more_spikes(outputs: list[Tensor]) -> None:
    """Flip 20 spikes."""
    outputs[0] = outputs[0] + 0
    outputs[0].detach().view(-1)[:20].sub_(1).abs_()


def other_moments(outputs: list[Tensor]) -> None:
    """Scale the moments by 1.001."""
    outputs[1] = outputs[1] * 1.001


def other_gradient(outputs: list[Tensor]) -> None:
    """Keep the spikes, scale their gradient."""
    outputs[0] = _Bent.apply(outputs[0])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_change, None),
        (more_spikes, "spikes differ"),
        (other_moments, "output 1"),
        (other_gradient, "gradient of input 0"),
    ],
)
def test_every_kind_of_error_is_found(
    change: Callable[[list[Tensor]], None], reason: str | None
) -> None:
    x = torch.randn(4, 2, 8, 4, 4)
    reds = gate_ops.judge("lif", disturbed(change), (x,), PAPER, train=True)
    if reason is None:
        assert reds == []
    else:
        assert any(reason in red for red in reds), reds
