"""Without gradient, layers of a network run in one pass; every logit is that of the single ones."""

import copy

import pytest
import torch
from torch import Tensor, nn

from rmploss import IF, LIF, TDBatchNorm2d, membrane_stats, models, ops
from rmploss.errors import UserError
from rmploss.lifecycle import fold, settle
from rmploss.models import inference
from rmploss.models.layers import ConvNorm, conv3x3
from rmploss.neurons.plif import PLIF
from rmploss.ops import Spikes, dense_of
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
    assert not all(layer._kept.is_empty for layer in layers)
    copied = [module for module in copy.deepcopy(net).modules() if isinstance(module, ConvNorm)]
    assert all(layer._kept.is_empty for layer in copied)
    net.train()
    assert all(layer._kept.is_empty for layer in layers)


def test_another_type_frees_what_was_kept() -> None:
    net = network("resnet20")
    with torch.no_grad():
        net(images())
    net.double()
    layers = [module for module in net.modules() if isinstance(module, ConvNorm)]
    assert all(layer._kept.is_empty for layer in layers)


@pytest.mark.parametrize("kind", ["weight", "bias", "running_mean", "running_var"])
@torch.no_grad()
def test_changes_that_nobody_counts_are_read(kind: str, passes: list[int]) -> None:
    net, x = network("resnet20"), images()
    before = net(x)
    for name, tensor in net.state_dict(keep_vars=True).items():
        if name.endswith(kind):
            tensor.data.mul_(1.5).add_(0.1)
    after = net(x)
    assert not torch.equal(after, before)
    assert torch.equal(after, one_by_one(net, x))
    assert passes


@torch.no_grad()
def test_a_settled_network_counts_changes_until_it_trains(passes: list[int]) -> None:
    net, x = settle(network("resnet20")), images()
    layers = [module for module in net.modules() if isinstance(module, ConvNorm)]
    assert all(layer._kept.is_settled for layer in layers)
    before = net(x)
    for layer in layers:
        layer.conv.weight.mul_(-1.0)
    after = net(x)
    assert not torch.equal(after, before)
    assert torch.equal(after, one_by_one(net, x))
    net.train().eval()
    assert not any(layer._kept.is_settled for layer in layers)
    assert passes


def test_a_module_that_was_pickled_without_what_is_kept(passes: list[int]) -> None:
    stage, x = conv3x3(32, 32, TDBatchNorm2d).eval(), spikes()
    state = {name: value for name, value in vars(stage).items() if name != "_kept"}
    old = ConvNorm.__new__(ConvNorm)
    old.__setstate__(state)
    with torch.no_grad():
        old.fire(x, LIF())
    assert passes


def spikes(channels: int = 32) -> Spikes:
    """Spikes `[2, 1, C, 6, 6]`."""
    found = Spikes.found_in((normal(2, 1, channels, 6, 6) > 1).float())
    assert isinstance(found, Spikes)
    return found


class Doubled(ConvNorm):
    """A convolution of its own."""

    def convolve(self, x: Tensor | Spikes) -> Tensor:
        return 2 * super().convolve(x)


class Shifted(ConvNorm):
    """An input current of its own."""

    def forward_spikes(self, x: Tensor | Spikes, repeats: int = 1) -> Tensor:
        return super().forward_spikes(x, repeats) + 0.3


@pytest.mark.parametrize("kind", [Doubled, Shifted])
@torch.no_grad()
def test_a_class_of_its_own_is_asked(kind: type[ConvNorm], passes: list[int]) -> None:
    torch.manual_seed(0)
    plain = conv3x3(32, 32, TDBatchNorm2d).eval()
    assert isinstance(plain.norm, TDBatchNorm2d)
    own = kind(plain.conv, plain.norm).eval()  # pyright: ignore[reportArgumentType]
    expected = LIF()(plain.norm(2 * plain.convolve(spikes())))
    if kind is Shifted:
        expected = LIF()(plain(spikes().dense) + 0.3)
    found = own.fire(spikes(), LIF()) if kind is Doubled else LIF()(own(spikes().dense))
    assert torch.equal(dense_of(found), expected)
    own.fire(spikes(), LIF())
    assert not passes
    plain.convolve = own.convolve
    plain.fire(spikes(), LIF())
    assert not passes


@torch.no_grad()
def test_neurons_with_other_channels_or_tensors_run_singly(passes: list[int]) -> None:
    stage, x = conv3x3(32, 32, TDBatchNorm2d).eval(), spikes()
    with pytest.raises(UserError):
        stage.fire(x, LIF(16))
    stage.norm = TDBatchNorm2d(16).eval()
    with pytest.raises(UserError):
        stage.fire(x, LIF())
    stage.norm = None
    learnt = LIF()
    learnt.v_threshold = nn.Parameter(torch.tensor(0.5))  # pyright: ignore[reportAttributeAccessIssue]
    before = dense_of(stage.fire(x, learnt)).clone()
    learnt.v_threshold.fill_(-9.0)  # pyright: ignore[reportAttributeAccessIssue]
    assert not torch.equal(dense_of(stage.fire(x, learnt)), before)
    assert not passes


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
