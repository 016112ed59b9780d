"""The package's modules against the training step that `oracle.py` computes by hand."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rmploss import LIF, RMPLoss, membrane_stats
from rmploss.models.layers import conv3x3, encode
from rmploss.models.network import PooledNetwork
from rmploss.models.resnet import BasicBlock, pooled, strided
from rmploss.norm import TDBatchNorm2d
from tests import oracle
from tests.given import labels, normal
from tests.lif_oracle import Neuron

T, BATCH, CLASSES = 3, 4, 5
RESETS: dict[str, float | None] = {"hard": 0.0, "hard to -0.2": -0.2, "soft": None}


class Tiny(PooledNetwork):
    """A stem and one residual block, from the package's own parts."""

    def __init__(self, neuron: Neuron, shortcut: oracle.Shortcut) -> None:
        channels = 3 if shortcut == "identity" else 4
        super().__init__(in_channels=2, num_classes=CLASSES, T=T, features=channels, readout="sum")
        stride = 1 if shortcut == "identity" else 2
        project = pooled if shortcut == "pooled" else strided

        def lif(channels: int) -> LIF:
            return LIF(
                decay=neuron.decay,
                v_reset=neuron.v_reset,
                detach_reset=neuron.detach_reset,
                surrogate=neuron.surrogate,
            )

        self.conv1, self.lif1 = conv3x3(2, 3, TDBatchNorm2d), lif(3)
        self.block = BasicBlock(
            3,
            channels,
            stride=stride,
            shortcut=project(3, channels, stride, TDBatchNorm2d),
            neuron=lif,
            norm=TDBatchNorm2d,
        )
        self.finish()

    def spikes(self, x: Tensor) -> Tensor:
        return self.block(encode(self.conv1, self.lif1, x, self.T))


def tiny(neuron: Neuron, shortcut: oracle.Shortcut) -> Tiny:
    """The network in float64, every parameter moved away from its initial value."""
    net = Tiny(neuron, shortcut).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "norm" not in name:
                parameter.copy_(0.3 * normal(*parameter.shape, name=name))
            else:
                parameter.add_(0.3 * normal(*parameter.shape, name=name))
    return net


def close(got: Tensor | float, want: oracle.Array | float) -> None:
    """Equal to 1e-9: some thousand float64 operations of condition below a thousand."""
    found = got.detach().numpy() if isinstance(got, Tensor) else got
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shortcut", ["identity", "strided", "pooled"])
@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("reset", RESETS)
def test_one_training_step(reset: str, p: float, shortcut: oracle.Shortcut) -> None:
    neuron = Neuron(v_reset=RESETS[reset], p=p)
    check_step(neuron, shortcut, RMPLoss(k=5.0, p=p))


@pytest.mark.parametrize(
    ("potential", "detach_target", "detach_reset"),
    [*itertools.product(["u_pre", "input"], [True, False], [True, False])],
)
def test_one_training_step_in_the_other_readings(
    potential: str, detach_target: bool, detach_reset: bool
) -> None:
    readings = {"potential": potential, "detach_target": detach_target}
    neuron = Neuron(surrogate="triangle", detach_reset=detach_reset, **readings)  # pyright: ignore[reportArgumentType]
    check_step(neuron, "strided", RMPLoss(k=5.0, **readings))  # pyright: ignore[reportArgumentType]


def check_step(neuron: Neuron, shortcut: oracle.Shortcut, rmp: RMPLoss) -> None:
    """Loss, logits, all gradients and all running statistics of one step are the oracle's."""
    net = tiny(neuron, shortcut)
    images, target = normal(BATCH, 2, 6, 6, name="images"), labels(BATCH, CLASSES)
    before = {name: value.detach().numpy().copy() for name, value in net.named_parameters()}
    with membrane_stats(net, rmp.spec) as stats:
        logits = net(images)
    cross = cross_entropy(logits, target)
    loss = cross + rmp(stats, progress=0.25)
    loss.backward()

    options = oracle.StepOptions(T=T, neuron=neuron, weight=2 * 5.0 * 0.25, shortcut=shortcut)
    expected = oracle.training_step(before, images.numpy(), target.numpy(), options)
    assert min(entry.firing_rate.item() for entry in stats) > 0.05
    close(logits, expected.logits)
    close(cross, expected.cross_entropy)
    close(rmp.value(stats), expected.rmp)
    close(loss, expected.loss)
    assert {name for name, _ in net.named_parameters()} == set(expected.gradients)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        close(parameter.grad, expected.gradients[name])
    assert {name for name, _ in net.named_buffers()} == set(expected.buffers)
    for name, buffer in net.named_buffers():
        close(buffer, expected.buffers[name])
