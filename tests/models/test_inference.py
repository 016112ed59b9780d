"""Without gradient, layers of a network run in one pass; every logit is that of the single ones."""

import copy

import pytest
import torch
from torch import Tensor, nn

from rmploss import IF, LIF, TDBatchNorm2d, membrane_stats, models, ops
from rmploss.lifecycle import fold
from rmploss.models import inference
from rmploss.models.layers import ConvNorm, conv3x3
from rmploss.neurons.plif import PLIF
from rmploss.ops import Spikes
from tests.given import normal

SIZES = {"resnet19": 0.25, "resnet20": 0.5, "resnet18-cifar": 0.5, "vgg16": 0.5, "cifarnet": 0.25}
"""Network -> width: with 24 channels and more convolutions are event-driven."""


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every layer that ran in one pass."""
    found: list[int] = []
    run = ops.conv_lif

    def counted(*arguments: object) -> Spikes | None:
        spikes = run(*arguments)  # pyright: ignore[reportArgumentType]
        if spikes is not None:
            found.append(1)
        return spikes

    monkeypatch.setattr(inference.ops, "conv_lif", counted)
    return found


def network(name: str) -> nn.Module:
    """A network whose neurons fire: its running statistics are those of two images."""
    torch.manual_seed(0)
    net = models.create(name, width=SIZES[name])
    for module in net.modules():
        if isinstance(module, TDBatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(images())
    return net.eval()


def images() -> Tensor:
    return normal(2, 3, 32, 32).float()


@torch.no_grad()
def one_by_one(net: nn.Module, x: Tensor) -> Tensor:
    """The logits where every layer's membrane is looked at."""
    with membrane_stats():
        return net(x)


@pytest.mark.parametrize("folded", [False, True], ids=["norms", "folded"])
@pytest.mark.parametrize("name", SIZES)
def test_logits_are_those_of_single_operations(name: str, folded: bool, passes: list[int]) -> None:
    net, x = network(name), images()
    if folded:
        fold(net)
    expected = one_by_one(net, x)
    assert not passes
    with torch.no_grad():
        assert torch.equal(net(x), expected)
        once = len(passes)
        assert torch.equal(net(x), expected)
    assert once > 1
    assert len(passes) == 2 * once


def test_with_gradient_in_training_and_under_hooks_layers_run_singly(passes: list[int]) -> None:
    net, x = network("resnet20"), images()
    net(x).sum().backward()
    assert not passes
    with torch.no_grad():
        copy.deepcopy(net).train()(x)
        assert not passes
        hooks = [module.register_forward_hook(lambda *_: None) for module in net.modules()]
        net(x)
        assert not passes
        for hook in hooks:
            hook.remove()
        net(x)
    assert passes


def test_new_weights_are_read(passes: list[int]) -> None:
    net, x = network("resnet20"), images()
    with torch.no_grad():
        before = net(x)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    net(x).sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = net(x)
        assert not torch.equal(before, after)
        assert torch.equal(after, one_by_one(net, x))
        other = network("resnet20")
        net.load_state_dict(other.state_dict())
        assert torch.equal(net(x), before)
        for module in net.modules():
            if isinstance(module, TDBatchNorm2d):
                module.rescale(0.5)
        assert torch.equal(net(x), one_by_one(net, x))
        assert not torch.equal(net(x), before)
    assert passes


def test_training_frees_what_was_kept() -> None:
    net = network("resnet20")
    with torch.no_grad():
        net(images())
    layers = [module for module in net.modules() if isinstance(module, ConvNorm)]
    assert any(layer._kept._blocks is not None for layer in layers)
    assert all(layer._kept._blocks is None for layer in copy.deepcopy(net).modules()
               if isinstance(layer, ConvNorm))  # fmt: skip
    net.train()
    assert all(layer._kept._blocks is None for layer in layers)


class Louder(TDBatchNorm2d):
    """A norm with a forward of its own."""

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        return super().forward(x, repeats) + 5


class Slower(LIF):
    """Neurons of another class."""


@torch.no_grad()
def test_only_plain_layers_run_in_one_pass(passes: list[int]) -> None:
    torch.manual_seed(0)
    x = Spikes.found_in((normal(2, 1, 32, 6, 6) > 1).float())
    stage = conv3x3(32, 32, TDBatchNorm2d).eval()
    for neuron in (LIF(), IF()):
        stage.fire(x, neuron)
    assert len(passes) == 2
    for neuron in (LIF(carry_state=True), Slower(), PLIF()):
        stage.fire(x, neuron)
    conv3x3(32, 32, Louder).eval().fire(x, LIF())
    conv3x3(32, 32, TDBatchNorm2d).train().fire(x, LIF())
    grouped = conv3x3(32, 32, TDBatchNorm2d).eval()
    grouped.conv = nn.Conv2d(32, 32, 3, padding=1)
    grouped.fire(x, LIF())
    assert len(passes) == 2
