"""Small networks, one step of training, and its comparison with that of another network."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmploss import ops
from rmploss.models import SpikingNetwork, create
from rmploss.neurons.plif import PLIF
from rmploss.ops import native
from tests.given import normal

ROUNDING = 2**10 * 2**-23
"""Of a tensor's largest value: float32's unit for each of the up to 1,024 terms of a sum."""
NETWORKS: dict[str, dict[str, Any]] = {
    "convnet": {"side": 8, "width": 0.25},
    "resnet20": {"side": 16, "width": 0.125},
    "resnet19": {"side": 8, "width": 0.125, "hidden_fc": 8},
    "vgg16": {"side": 32, "width": 0.125},
    "sew-resnet18": {"side": 32, "width": 0.125, "connect": "add"},
    "plifnet": {
        "side": 8,
        "width": 0.125,
        "neuron": partial(PLIF, v_threshold=0.25),
        "image_size": 8,
    },
    "preact-resnet18": {"side": 8, "width": 0.125},
    "vggsnn": {"side": 16, "width": 0.125, "image_size": 16, "in_channels": 3},
}
"""Identity, pooled and strided shortcuts, sums of spikes, average and max pooling, dropout."""
NATIVE = pytest.param(
    "cpu", marks=pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
)


@pytest.fixture(params=[NATIVE, "reference"], autouse=True)
def every_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs with the native kernels and with the equations."""
    with ops.use_backend(request.param):
        yield request.param


def network(name: str) -> SpikingNetwork:
    """The same small network every time, in training mode."""
    torch.manual_seed(0)
    options = {key: value for key, value in NETWORKS[name].items() if key != "side"}
    net = create(name, num_classes=3, T=2, **options)
    for module in net.modules():
        if isinstance(module, nn.Linear):  # so that neurons behind it fire
            nn.init.normal_(module.weight, std=2 * module.in_features**-0.5)
    return net


def images(name: str) -> Tensor:
    side = NETWORKS[name]["side"]
    return normal(3, 3, side, side).float().requires_grad_()


def step(net: Callable[[Tensor], Tensor], x: Tensor, owner: nn.Module | None = None) -> Any:
    """Outputs, gradients and buffers of one step, by name; owner: of the parameters."""
    torch.manual_seed(1)  # of dropout
    owner = owner or net  # pyright: ignore[reportAssignmentType]
    assert isinstance(owner, nn.Module)
    y = net(x)
    assert type(y) is Tensor
    if y.requires_grad:
        (y * normal(*y.shape, name="g").float()).sum().backward()
    found = {"outputs": y.detach(), "x": x.grad}
    found |= {f"gradient of {name}": p.grad for name, p in owner.named_parameters()}
    found |= dict(owner.named_buffers())
    return {n.replace("inner.", ""): v for n, v in found.items() if v is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal bit for bit, and no comparison of nothing with nothing."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert expected["x"].abs().max() > 0


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal within `ROUNDING` of the largest value of each tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Sums whose terms cancel, in front of a norm and of one number per layer, are measured by
        # the gradient of the weight beside them, and by the largest of these numbers.
        beside = [
            v for n, v in expected.items() if value.ndim == 0 == v.ndim and v.is_floating_point()
        ]
        beside += [expected.get(f"{name.removesuffix('bias')}weight", value)]
        size = max(float(v.abs().max()) for v in beside)
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=ROUNDING * size, msg=lambda m, n=name: f"{n}: {m}"
        )


def step_of(name: str, change: Callable[[SpikingNetwork], Any] | None = None) -> Any:
    """One step of a network that was changed."""
    if change is None:
        return plain_step(name, ops.asked())
    net = network(name)
    change(net)
    return step(net, images(name))


@cache
def plain_step(name: str, backend: str) -> Any:
    """One step of a network that nothing was done to."""
    return step(network(name), images(name))


def fade(y: Tensor) -> Tensor:
    """y times 1/4 to 1, each value by another factor: a norm takes back a common one."""
    return y * torch.linspace(0.25, 1, y.numel()).view(y.shape)


def fade_in_place(y: Tensor) -> None:
    y.mul_(fade(torch.ones(y.shape)))


class Around(nn.Module):
    """A user's module in the place of another one, which changes what that one returns."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, *given: Any, **options: Any) -> Tensor:
        return self.change(self.inner(*given, **options))


class Applied(nn.Module):
    """A user's module of one function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def wrap(net: nn.Module, name: str, change: Callable[[Tensor], Tensor]) -> None:
    net.set_submodule(name, Around(net.get_submodule(name), change))


def wrapper_of(place: str, change: Callable[[Tensor], Tensor]) -> Callable[[SpikingNetwork], Any]:
    return lambda net: wrap(net, place, change)


SPIKES = (normal(2, 3, 4, 8, 8, name="spikes") > 0.5).float()
"""`[T, B, C, H, W]`."""
