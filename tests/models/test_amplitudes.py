"""The inference of Real Spike and DSR: binary spikes, and the outputs of the trained network."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork, create
from rmploss.models.amplitudes import Scale
from rmploss.models.resnet import BasicBlock
from rmploss.neurons.dsr import DSRIF, DSRLIF
from rmploss.neurons.real import RealSpike
from rmploss.norm import TDBatchNorm2d
from tests.given import normal

FOLDED: dict[str, dict[str, Any]] = {
    "resnet20": {},
    "vgg16": {},
    "convnet": {},
    "resnet19": {"hidden_fc": 32},
    "resnet18": {},
    "resnet18-cifar": {},
}

DSR: dict[str, Callable[[int], nn.Module]] = {
    "if": partial(DSRIF, threshold=0.75),
    "lif": partial(DSRLIF, threshold=0.5, alpha=0.5, dt=0.5),
}
"""DSR's neurons with constants by which they fire within three steps."""


def real(name: str, per: str = "channel", **options: Any) -> SpikingNetwork:
    """A narrow one in float64 with heights of both signs, and norms that make its layers fire."""
    net = lively(
        name,
        lambda channels: RealSpike(channels, per=per),  # pyright: ignore[reportArgumentType]
        **options,
    )
    with torch.no_grad():
        for at, module in net.named_modules():
            if isinstance(module, RealSpike):
                assert module.amplitude is not None
                module.amplitude.copy_(normal(*module.amplitude.shape, name=at))
    return net


def lively(name: str, neuron: Callable[[int], nn.Module], **options: Any) -> SpikingNetwork:
    """A narrow network in float64 with norms that make its layers fire, and remember one batch."""
    torch.manual_seed(0)
    net = create(name, num_classes=3, T=3, width=1 / 16, neuron=neuron, **options).double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, TDBatchNorm2d):
                module.weight.copy_(1 + 0.3 * normal(module.channels, name="gain"))
                module.momentum = 1.0
                module.bias.copy_(0.4 + 0.1 * normal(module.channels, name="offset"))
            elif isinstance(module, nn.Linear):
                module.weight.copy_(normal(*module.weight.shape, name="head"))
    return net


def images() -> Tensor:
    """Of contrasts so different that every network tells them apart."""
    contrasts = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    return normal(4, 3, 32, 32, name="images") * contrasts.view(4, 1, 1, 1)


def fired(net: SpikingNetwork, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits, and what every layer of neurons gave."""
    given: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, y, name=name: given.update({name: y}))
        for name, module in net.named_modules()
        if isinstance(module, RealSpike | DSRIF | DSRLIF)
    ]
    with torch.no_grad():
        logits = net(x)
    for hook in hooks:
        hook.remove()
    return logits, given


@pytest.mark.parametrize("per", ["channel", "layer"])
@pytest.mark.parametrize("name", FOLDED)
def test_folding_the_heights_is_exact(name: str, per: str) -> None:
    net, x = real(name, per, **FOLDED[name]), images()
    net(x)  # running statistics
    before, heights = fired(net.eval(), x)
    after, spikes = fired(fold(net), x)
    # Relative to the largest of some hundred sums of float64 each; a spike that flips shows as 0.1.
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12 * float(1 + before.abs().max()))
    assert before.std(0).max() > 0
    assert heights.keys() == spikes.keys()
    for layer, y in spikes.items():
        assert ((y == 0) | (y == 1)).all(), layer
        assert torch.equal(y != 0, heights[layer] != 0), layer
    assert min(y.mean() for y in spikes.values()) > 0
    assert not any("amplitude" in key for key in net.state_dict())


@pytest.mark.parametrize("kind", DSR)
@pytest.mark.parametrize("name", FOLDED)
def test_folding_the_thresholds_of_dsr_is_exact(name: str, kind: str) -> None:
    net, x = lively(name, DSR[kind], **FOLDED[name]), images()
    neurons = {at: m for at, m in net.named_modules() if isinstance(m, DSRIF | DSRLIF)}
    with torch.no_grad():
        for index, neuron in enumerate(neurons.values()):
            neuron.threshold.mul_(1 + 0.02 * index)  # no two alike
    net(x)  # running statistics
    before, values = fired(net.eval(), x)
    heights = {at: neuron.threshold.item() * neuron.height for at, neuron in neurons.items()}
    after, spikes = fired(fold(net), x)
    assert values.keys() == spikes.keys() == neurons.keys()
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12 * float(1 + before.abs().max()))
    assert before.std(0).max() > 0
    for layer, y in spikes.items():
        assert ((y == 0) | (y == 1)).all(), layer
        torch.testing.assert_close(heights[layer] * y, values[layer], rtol=1e-15, atol=0)
    assert min(y.mean() for y in spikes.values()) > 0


def test_an_identity_shortcut_keeps_a_scale_per_channel() -> None:
    net = real("resnet20")
    first = net.get_submodule("lif3")
    assert isinstance(first, RealSpike)
    assert first.amplitude is not None
    heights = first.amplitude.detach().clone()
    fold(net)
    shortcuts = [m.shortcut for m in net.modules() if isinstance(m, BasicBlock)]
    assert [isinstance(shortcut, Scale) for shortcut in shortcuts] == [1, 1, 0, 1, 0, 1, 0, 1]
    assert isinstance(shortcuts[0], Scale)
    assert torch.equal(shortcuts[0].height, heights)


def test_every_neuron_of_these_networks_has_its_readers() -> None:
    for name, options in FOLDED.items():
        net = real(name, **options)
        readers = net.heights_fold_into()
        neurons = {n for n, module in net.named_modules() if isinstance(module, RealSpike)}
        assert readers.keys() == neurons, name
        for reading in readers.values():
            for reader in reading:
                assert net.get_submodule(reader) is not None


@pytest.mark.parametrize(
    ("name", "options"), [("resnet20", {"connect": "add"}), ("spiking-resnet18", {})]
)
def test_heights_that_no_kernel_can_take_stay(name: str, options: dict[str, Any]) -> None:
    """Those of a sum of spikes, and before a maximum, which a negative one would turn around."""
    net, x = real(name, **options), images()
    net(x)
    before, _ = fired(net.eval(), x)
    assert before.std(0).max() > 0
    after, _ = fired(fold(net), x)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12 * float(1 + before.abs().max()))
    assert before.std() > 0
    assert any("amplitude" in key for key in net.state_dict())
