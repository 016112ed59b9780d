"""Hooks and modules of a user see plain tensors inside of networks, and may change what flows.

Outputs, the gradients of the images and of all parameters, and buffers of one step are compared
with those of the plain network, or of a twin in which a module stands in the place of the hook.
A hooked norm leaves the operation it shares with its neurons, so they are equal within `ROUNDING`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_all

from rmploss import LIF, TDBatchNorm2d, ops
from rmploss.models import SpikingNetwork
from rmploss.models.layers import ConvNorm
from tests.models import situations
from tests.models.situations import (
    NETWORKS,
    Applied,
    Around,
    assert_close,
    fade,
    fade_in_place,
    images,
    network,
    step,
    step_of,
    wrapper_of,
)

backend = situations.every_backend
"""A fixture that all tests of this file use."""

CONTAINERS = {
    "vgg16": {"layers"},
    "plifnet": {"layers"},
    "vggsnn": {"layers"},
    "preact-resnet18": {f"layer{stage}" for stage in range(1, 5)},
}
"""Modules that are never called: the network calls their children."""

# 2, 3. Hooks that look ---------------------------------------------------------------------------


def check(given: Any) -> None:
    """Raise AssertionError for what is no plain tensor of finite values."""
    if isinstance(given, tuple | list):
        for part in given:
            check(part)
    elif isinstance(given, dict):
        check(list(given.values()))
    elif given is not None and not isinstance(given, bool | int | float | nn.Module):
        assert type(given) is Tensor
        assert given.layout is torch.strided
        assert given.isfinite().all()


def look(net: nn.Module, *, pre: bool = False) -> dict[str, Tensor]:
    """Hooks on all modules, which collect outputs, or with pre first inputs, by the name."""
    seen: dict[str, Tensor] = {}

    def see(name: str, _: nn.Module, *given: Any) -> None:
        check(given)
        one = given[0][0] if pre else given[-1]
        seen[name] = one.detach().clone()

    for name, module in net.named_modules():
        if pre:
            module.register_forward_pre_hook(partial(see, name), with_kwargs=True)
        else:
            module.register_forward_hook(partial(see, name), with_kwargs=True)
    return seen


def convolutions(net: nn.Module) -> set[str]:
    """The names of all `ConvNorm`."""
    return {name for name, module in net.named_modules() if isinstance(module, ConvNorm)}


def norms(net: nn.Module) -> set[str]:
    return {name for name, module in net.named_modules() if isinstance(module, TDBatchNorm2d)}


def to_be_called(net: nn.Module, name: str) -> set[str]:
    """All modules but containers."""
    return {n for n, _ in net.named_modules()} - CONTAINERS.get(name, set())


@pytest.mark.parametrize("pre", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("name", NETWORKS)
def test_forward_hooks_see_plain_tensors_and_change_nothing(name: str, pre: bool) -> None:
    net = network(name)
    seen = look(net, pre=pre)
    assert_close(step(net, images(name)), step_of(name))
    assert seen.keys() >= to_be_called(net, name)
    for module, value in seen.items():
        if not pre and isinstance(net.get_submodule(module), LIF):
            assert ((value == 0) | (value == 1)).all()
    with ops.use_backend("reference"):
        again = network(name)
        expected = look(again, pre=pre)
        again(images(name))
    if name not in RANDOM:
        assert_close(seen, expected)


RANDOM = ("plifnet",)
"""Networks with dropout."""


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_hooks_of_all_convolutions_run(name: str) -> None:
    net = network(name)
    seen = look(net)
    net(images(name))
    assert seen.keys() >= convolutions(net)


def test_backward_hooks_of_all_convolutions_run() -> None:
    net, seen = network("resnet20"), set[str]()
    for name in convolutions(net):
        hook = partial(lambda name, *_: seen.add(name), name)
        net.get_submodule(name).register_full_backward_hook(hook)
    step(net, images("resnet20"))
    assert seen == convolutions(net)


def test_hooks_of_all_modules_see_plain_tensors_and_change_nothing() -> None:
    for name in NETWORKS:
        net, seen = network(name), set[nn.Module]()

        def see(module: nn.Module, *given: Any, seen: set[nn.Module] = seen) -> None:
            check(given)
            seen.add(module)

        hook = of_all.register_module_forward_hook(see)
        try:
            found = step(net, images(name))
        finally:
            hook.remove()
        assert_close(found, step_of(name))
        called = {n for n, module in net.named_modules() if module in seen}
        # The norm in front of neurons may run in one operation with them.
        assert called >= to_be_called(net, name) - norms(net)


@pytest.mark.parametrize("pre", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("name", NETWORKS)
def test_backward_hooks_see_plain_gradients_and_change_nothing(name: str, pre: bool) -> None:
    net = network(name)
    shapes: dict[str, set[torch.Size]] = {module: set() for module, _ in net.named_modules()}
    got: set[str] = set()

    def measure(module: str, _: nn.Module, given: Any, y: Tensor) -> None:
        shapes[module].add(y.shape)

    def see(module: str, _: nn.Module, *given: Any) -> None:
        check(given)
        assert given[-1][0].shape in shapes[module]
        got.add(module)

    for module, part in net.named_modules():
        part.register_forward_hook(partial(measure, module))
        if pre:
            part.register_full_backward_pre_hook(partial(see, module))
        else:
            part.register_full_backward_hook(partial(see, module))
    assert_close(step(net, images(name)), step_of(name))
    assert got >= to_be_called(net, name)


# 4, 5. Hooks and modules that change what flows --------------------------------------------------

CHANGES = {"nothing left": torch.zeros_like, "no longer spikes": fade}
PLACES = {
    "convnet": ("lif1", "lif2", "conv2.conv", "halve"),
    "resnet20": (
        "lif1", "lif3", "stem_pool", "layer1.0.lif1", "layer1.0.lif2", "layer1.0", "layer1",
        "layer1.1.shortcut", "layer1.0.conv1.norm", "layer2.0.shortcut", "layer2.0.shortcut.0",
        "layer2.0.shortcut.1", "layer2.1", "layer4", "head", "pool",
    ),
    "resnet19": ("lif1", "layer1.2", "layer2.0.shortcut", "layer2.0.shortcut.conv", "head.1"),
    "vgg16": ("layers.lif1_1", "layers.pool1", "layers.lif5_3"),
    "sew-resnet18": ("lif1", "layer1.0.lif2", "layer2.0.lif3", "layer1.0", "stem_pool", "layer2"),
    "plifnet": ("layers.lif1_2", "layers.pool1", "dropout", "lif1", "lif2"),
    "preact-resnet18": ("layer1.0.lif1", "layer1.0.shortcut", "layer1.0.conv2", "layer2.1", "lif2"),
}  # fmt: skip
ALL_PLACES = [(name, place) for name, places in PLACES.items() for place in places]


def hook_of(place: str, change: Callable[..., Any]) -> Callable[[SpikingNetwork], Any]:
    return lambda net: net.get_submodule(place).register_forward_hook(lambda _, __, y: change(y))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(("name", "place"), ALL_PLACES)
def test_what_a_hook_returns_takes_the_place_of_the_output(
    name: str, place: str, change: Callable[[Tensor], Tensor]
) -> None:
    hooked = step_of(name, hook_of(place, change))
    twin = step_of(name, wrapper_of(place, change))
    assert_close(hooked, twin)
    plain = step_of(name)
    assert not torch.equal(twin["outputs"], plain["outputs"])


@pytest.mark.parametrize("place", ["conv2", "layer1.0.conv1", "layer1.0.conv2"])
def test_what_a_hook_of_a_convolution_returns_takes_the_place_of_the_output(place: str) -> None:
    hooked = step_of("resnet20", hook_of(place, fade))
    assert_close(hooked, step_of("resnet20", wrapper_of(f"{place}.norm", fade)))


def test_what_a_hook_of_all_modules_returns_takes_the_place_of_the_output() -> None:
    """A hook of all modules fades the spikes of one layer."""
    net = network("resnet20")
    layer = net.get_submodule("layer1.0.lif1")
    change: Any = lambda m, _, y: fade(y) if m is layer else None  # noqa: E731
    hook = of_all.register_module_forward_hook(change)
    try:
        found = step(net, images("resnet20"))
    finally:
        hook.remove()
    assert_close(found, step_of("resnet20", wrapper_of("layer1.0.lif1", fade)))


IN_PLACE = [
    ("resnet20", "lif1"), ("resnet20", "layer1.0.lif1"), ("resnet20", "layer1.0"),
    ("resnet20", "layer1"), ("resnet20", "layer2.0.shortcut.1"), ("resnet20", "stem_pool"),
    ("resnet19", "lif1"), ("resnet19", "layer1.2"), ("sew-resnet18", "layer1.0.lif2"),
    ("sew-resnet18", "layer1.0"), ("plifnet", "layers.lif1_2"), ("plifnet", "layers.pool1"),
    ("preact-resnet18", "layer1.0.lif1"), ("vgg16", "layers.lif1_1"),
]  # fmt: skip
"""No identity: it returns its input, which others read too, and PyTorch forbids to change it."""


@pytest.mark.parametrize("tracked", [True, False], ids=["with gradient", "without"])
@pytest.mark.parametrize(("name", "place"), IN_PLACE)
def test_a_hook_may_change_the_output_in_place(name: str, place: str, tracked: bool) -> None:
    found = step_of(name, hook_of(place, torch.set_grad_enabled(tracked)(fade_in_place)))
    # Without gradient the value is faded, but its gradient is not.
    twin = fade if tracked else lambda y: y - (y - fade(y)).detach()
    assert_close(found, step_of(name, wrapper_of(place, twin)))


@pytest.mark.parametrize("name", ["resnet20", "resnet19", "sew-resnet18"])
def test_a_users_stage_may_change_its_input_in_place(name: str) -> None:
    def stand_in(change: Callable[[Tensor], Tensor]) -> Callable[[Any], None]:
        return lambda net: net.set_submodule("layer1", Applied(change))

    def between(change: Callable[[Tensor], Tensor]) -> Callable[[Any], None]:
        return lambda net: net.layer2.insert(1, Applied(change))

    for put in (stand_in, between):
        found = step_of(name, put(lambda x: x.mul_(fade(torch.ones(x.shape)))))
        assert_close(found, step_of(name, put(fade)))


class FadeBefore(Around):
    """A user's module that fades the input of another one."""

    def forward(self, x: Tensor, *given: Any, **options: Any) -> Tensor:
        return self.inner(fade(x), *given, **options)


def fade_input(place: str) -> Callable[[nn.Module], Any]:
    return lambda net: net.get_submodule(place).register_forward_pre_hook(
        lambda _, given: (fade(given[0]), *given[1:])
    )


@pytest.mark.parametrize(
    "place", ["layer1.0", "layer2.0.shortcut", "layer1.1.lif2", "layer2", "conv2.conv", "head"]
)
def test_a_hook_may_replace_the_input(place: str) -> None:
    def twin(net: nn.Module) -> None:
        net.set_submodule(place, FadeBefore(net.get_submodule(place), fade))

    assert_close(step_of("resnet20", fade_input(place)), step_of("resnet20", twin))


def test_a_hook_of_a_convolution_may_replace_the_input() -> None:
    found = step_of("resnet20", fade_input("layer1.0.conv1"))
    assert_close(found, step_of("resnet20", fade_input("layer1.0.conv1.conv")))
