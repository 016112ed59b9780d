"""Activation checkpointing: each layer and each running statistic counts once, gradients equal."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from rmploss import LIF, MomentSpec, RMPLoss, UserError, checkpoint, membrane_stats
from rmploss.stats import open_stats, recomputing
from tests.given import normal
from tests.test_stats import convnet, names, same_gradients

IMAGES = (2, 1, 8, 8)


class Parts(nn.Module):
    """The network in parts: `run` runs each."""

    def __init__(self, run: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> None:
        super().__init__()
        self.net = convnet()
        self.run = run
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        for part in (self.first, self.second):
            x = self.run(part, x)
        return net.readout(net.head(net.pool(x)))  # pyright: ignore[reportCallIssue]

    def first(self, x: Tensor) -> Tensor:
        self.calls += 1
        net = self.net
        return net.halve(net.lif1(net.conv1(x.expand(3, -1, -1, -1, -1))))  # pyright: ignore

    def second(self, x: Tensor) -> Tensor:
        self.calls += 1
        net = self.net
        return net.lif3(net.conv3(net.halve(net.lif2(net.conv2(x)))))  # pyright: ignore


def unchanged(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run a part without a checkpoint."""
    return part(x)


def nested(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A checkpoint inside a checkpoint."""
    return checkpoint(lambda y: checkpoint(part, y), x)


def another_block() -> AbstractContextManager[object]:
    """An open block of other moments than those of the forward."""
    return membrane_stats(spec=MomentSpec(p=1, potential="input"))


SPECS = {
    "u_pre": RMPLoss(),
    "p=1.5": RMPLoss(p=1.5),
    "input, target not constant": RMPLoss(potential="input", detach_target=False),
}
AROUND = {"outside": nullcontext, "in another block": another_block}


@pytest.mark.parametrize("run", [checkpoint, nested])
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("spec", SPECS)
def test_backward_after_the_block(
    spec: str, around: str, run: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
) -> None:
    rmp = SPECS[spec]
    first, second = Parts(run), Parts(unchanged)
    recorded = []
    for net in (first, second):
        with membrane_stats(net.net, rmp.spec) as stats:
            y = net(normal(1, *IMAGES))
        with AROUND[around]() as other:
            (y.square().sum() + rmp.value(stats)).backward()
        if other is not None:
            assert len(other) == 0  # pyright: ignore[reportArgumentType]
        recorded.append(stats)
    # Run twice: it was not just remembered. Nested, the inner one is run once more.
    assert first.calls >= 4
    assert second.calls == 2
    assert names(recorded[0]) == names(recorded[1]) == ["lif1", "lif2", "lif3"]
    for one, two in zip(*recorded, strict=True):
        assert torch.equal(one.moments, two.moments)
    same_gradients(first, second)
    assert not recomputing()


def test_backward_inside_the_block() -> None:
    rmp = RMPLoss()
    first, second = Parts(checkpoint), Parts(unchanged)
    for net in (first, second):
        with membrane_stats(net.net, rmp.spec) as stats:
            y = net(normal(1, *IMAGES))
            (y.square().sum() + rmp.value(stats)).backward()
            assert open_stats() is stats
        assert names(stats) == ["lif1", "lif2", "lif3"]
    same_gradients(first, second)


@pytest.mark.parametrize("around", AROUND)
def test_without_a_block(around: str) -> None:
    first, second = Parts(checkpoint), Parts(unchanged)
    for net in (first, second):
        y = net(normal(1, *IMAGES))
        with AROUND[around]() as other:
            y.square().sum().backward()
        if other is not None:
            assert len(other) == 0  # pyright: ignore[reportArgumentType]
    same_gradients(first, second)


def test_backward_twice() -> None:
    rmp = RMPLoss()
    first, second = Parts(checkpoint), Parts(unchanged)
    for net in (first, second):
        with membrane_stats(net.net, rmp.spec) as stats:
            y = net(normal(1, *IMAGES))
        loss = y.square().sum() + rmp.value(stats)
        loss.backward(retain_graph=True)
        loss.backward()
    same_gradients(first, second)


def test_an_error_in_the_second_run_leaves_nothing_open() -> None:
    lines = iter([None, ZeroDivisionError])

    def fails_again(x: Tensor) -> Tensor:
        if error := next(lines):
            raise error
        return x.exp()

    with membrane_stats():
        y = checkpoint(fails_again, normal(3).requires_grad_())
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    assert open_stats() is None
    assert not recomputing()


def test_a_carried_membrane_cannot_be_carried_twice() -> None:
    lif = LIF(carry_state=True)
    y = checkpoint(lif, normal(2, 2, 3).requires_grad_())
    with pytest.raises(UserError, match=r"carry_state=True(?s:.*)rmploss.checkpoint"):
        y.sum().backward()


# Dynamo asks non-leaf tensors for their gradient, and hides the warning only from printing.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_checkpointed_part_may_be_compiled() -> None:
    rmp = RMPLoss()
    torch.compiler.reset()

    def compiled(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return checkpoint(torch.compile(part, backend="eager"), x)

    first, second = Parts(compiled), Parts(unchanged)
    for net in (first, second):
        with membrane_stats(net.net, rmp.spec) as stats:
            y = net(normal(1, *IMAGES))
        (y.square().sum() + rmp.value(stats)).backward()
        assert names(stats) == ["lif1", "lif2", "lif3"]
    same_gradients(first, second)
