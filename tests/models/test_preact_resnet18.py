"""PreAct-ResNet18: its size, its blocks in plain operations, its read-outs."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss import LIF, UserError, membrane_stats
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork, create
from rmploss.models.preact_resnet18 import PreActBlock
from rmploss.neurons import Accumulator
from rmploss.neurons.dsr import DSRIF, DSRLIF, WeightedMean
from rmploss.norm import TDBatchNorm2d
from tests.given import normal

COUNTS = {10: 11_176_945, 100: 11_223_295}
"""Of the authors' code, with a threshold for each layer of neurons."""


def neurons(_: int) -> DSRLIF:
    """DSR neurons that fire at T = 3."""
    return DSRLIF(threshold=0.2, alpha=0.5, dt=0.1)


def norms(channels: int) -> TDBatchNorm2d:
    """Plain batch norms."""
    return TDBatchNorm2d(channels, factor="none")


def tiny(**options: Any) -> SpikingNetwork:
    """A narrow one in float64."""
    torch.manual_seed(0)
    given = {"num_classes": 3, "T": 3, "width": 1 / 16, "neuron": neurons, "norm": norms}
    return create("preact-resnet18", **{**given, **options}).double()


@pytest.mark.parametrize("classes", COUNTS)
def test_parameter_counts(classes: int) -> None:
    with torch.device("meta"):
        net = create("preact-resnet18", num_classes=classes, neuron=DSRLIF)
    assert sum(p.numel() for p in net.parameters()) == COUNTS[classes]
    assert sum(isinstance(m, DSRLIF) for m in net.modules()) == 19


def test_every_layer_fires_and_every_parameter_has_a_gradient() -> None:
    net = tiny(readout="weighted")
    with membrane_stats(net) as stats:
        logits = net(normal(8, 3, 16, 16, name="images"))
    assert [entry.name for entry in stats] == [
        *(f"layer{s}.{b}.lif{i}" for s in range(1, 5) for b in range(2) for i in (1, 2)),
        "lif1", "lif2", "lif3",
    ]  # fmt: skip
    assert min(entry.firing_rate.item() for entry in stats) > 0
    logits.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        # A bias before a norm changes nothing; V_th learns only where an input is above it.
        if not name.endswith(("conv1.conv.bias", "head.conv.bias", "threshold")):
            assert parameter.grad.abs().max() > 0, name


def test_a_block_is_its_equations() -> None:
    torch.manual_seed(0)
    block = PreActBlock(4, 6, stride=2, neuron=neurons, norm=norms).double()
    x = normal(3, 2, 4, 8, 8, name="x")

    def sn(y: Tensor) -> Tensor:
        return neurons(0).double()(y.unflatten(0, (3, 2))).flatten(0, 1)

    def bn(y: Tensor) -> Tensor:
        return F.batch_norm(y, None, None, training=True)

    convs: list[Any] = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size, c.stride, c.bias is not None) for c in convs] == [
        ((3, 3), (2, 2), True), ((3, 3), (1, 1), True), ((1, 1), (2, 2), True)
    ]  # fmt: skip
    spikes = sn(bn(x.flatten(0, 1)))
    h = F.conv2d(spikes, convs[0].weight, convs[0].bias, 2, 1)
    h = F.conv2d(sn(bn(h)), convs[1].weight, convs[1].bias, 1, 1)
    y = h + F.conv2d(spikes, convs[2].weight, convs[2].bias, 2)
    torch.testing.assert_close(block(x).flatten(0, 1), y, rtol=1e-10, atol=1e-10)
    # Without a projection, the shortcut is the spikes and not x.
    same = PreActBlock(4, 4, stride=1, neuron=neurons, norm=norms).double()
    assert isinstance(same.shortcut, nn.Identity)
    with torch.no_grad():
        for parameter in same.conv2.parameters():
            parameter.zero_()
    assert torch.equal(same(x).flatten(0, 1), spikes)


@pytest.mark.parametrize("neuron", [neurons, LIF])
def test_a_static_image_is_the_sequence_of_its_copies(neuron: Any) -> None:
    static, sequence = tiny(neuron=neuron), tiny(neuron=neuron)
    x = normal(2, 3, 16, 16, name="images").requires_grad_()
    copies = x.detach().expand(3, -1, -1, -1, -1).requires_grad_()
    one, other = static(x), sequence(copies)
    assert one.std(0).max() > 0
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    one.square().sum().backward()
    other.square().sum().backward()
    assert x.grad is not None
    assert copies.grad is not None
    assert x.grad.abs().max() > 0
    torch.testing.assert_close(x.grad, copies.grad.sum(0), rtol=1e-9, atol=1e-9)
    for p, q in zip(static.buffers(), sequence.buffers(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-10)


def test_the_head_is_a_linear_layer_before_neurons() -> None:
    net = tiny(readout="weighted")
    with torch.no_grad():
        trains = net(normal(4, 3, 16, 16, name="images"), over_time=True)
    assert trains.shape == (3, 4, 3)
    assert trains.unique().tolist() == pytest.approx([0, 2], rel=1e-6)  # V_th / dt
    assert isinstance(net.readout, WeightedMean)
    assert net.readout.decay == pytest.approx(0.904837418035959)
    assert isinstance(tiny(neuron=DSRIF, readout="weighted").readout, Accumulator)


@pytest.mark.parametrize("readout", ["weighted", "sum"])
def test_folding_is_exact(readout: str) -> None:
    net = tiny(readout=readout)
    with torch.no_grad():
        for name, module in net.named_modules():
            if isinstance(module, TDBatchNorm2d):
                module.weight.copy_(normal(module.channels, name=name, mean=1, std=0.3))
                module.bias.copy_(normal(module.channels, name=name, mean=0.6, std=0.1))
    x = normal(8, 3, 16, 16, name="images")
    for _ in range(3):
        net(x)
    with membrane_stats(net.eval()) as stats:
        before = net(x)
    assert min(entry.firing_rate.item() for entry in stats) > 0
    assert before.std(0).max() > 0
    folded = fold(net)
    # Norms behind a sum stay: no convolution comes before them.
    left = [n for n, m in folded.named_modules() if isinstance(m, TDBatchNorm2d)]
    blocks = [f"layer{s}.{b}.norm1" for s in range(1, 5) for b in range(2)]
    assert left == [*blocks, "norm1"]
    torch.testing.assert_close(folded(x), before, rtol=1e-12, atol=1e-12)


def test_the_weights_start_by_the_fan_out_and_the_head_as_pytorchs() -> None:
    torch.manual_seed(0)
    net = create("preact-resnet18", width=0.5, neuron=DSRLIF)
    head = net.get_submodule("head.conv")
    for name, module in net.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        n, k = module.weight.numel(), module.kernel_size[0]
        uniform = 1 / math.sqrt(module.weight[0].numel())
        if module is head:
            # The largest of n uniform numbers is below 0.99 of the bound once in 0.99^-n.
            assert 0.99 * uniform < module.weight.abs().max().item() <= uniform
        else:
            expected = math.sqrt(2 / (k * k * module.out_channels))
            # The deviation of n normal numbers has itself a deviation of 1/sqrt(2n): five of them.
            spread = module.weight.std().item()
            assert spread == pytest.approx(expected, rel=5 / math.sqrt(2 * n)), name
        if module.bias is not None:
            assert 0 < module.bias.abs().max() <= uniform


def test_a_weighted_read_out_needs_neurons_with_a_value() -> None:
    with pytest.raises(UserError, match="bad network") as caught:
        tiny(neuron=LIF, readout="weighted")
    assert "LIF has none" in caught.value.problems[0].what
