"""CIFARNet against a literal forward, step by step; where dropout and NeuNorm stand."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss import LIF, UserError, membrane_stats
from rmploss.models import create
from rmploss.models.cifarnet import CIFARNet
from rmploss.models.dropout import Dropout
from rmploss.models.neunorm import NeuNorm
from rmploss.neurons import NEURONS
from rmploss.recipes.methods.stbp import NEURON
from tests.given import labels, normal

STEPS, BATCH, SIZE, CLASSES = 3, 2, 8, 3


def tiny(**options: Any) -> CIFARNet:
    """A narrow one in float64 with STBP's neurons, loud enough to fire in all layers."""
    torch.manual_seed(0)
    usual = {"dropout": 0.0, "width": 1 / 32, "image_size": SIZE, "num_classes": CLASSES}
    neuron = partial(NEURONS.make, NEURON.name, **NEURON.options)
    net = create("cifarnet", **{"T": STEPS, "neuron": neuron, **usual, **options}).double()
    assert isinstance(net, CIFARNet)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "neunorm" in name:
                parameter.mul_(10)  # or it does next to nothing
            elif parameter.ndim > 1:
                parameter.mul_(1.5)
            else:
                parameter.copy_(0.1 * normal(len(parameter), name=name))
    return net


class Literal:
    """The network once more: all layers at every step, membranes in a dictionary."""

    def __init__(self, net: CIFARNet) -> None:
        self.p = {n: v.detach().clone().requires_grad_() for n, v in net.named_parameters()}
        self.u: dict[str, Tensor] = {}
        self.o: dict[str, Tensor] = {}
        self.n: dict[str, Tensor] = {}

    def fire(self, name: str, x: Tensor) -> Tensor:
        """u <- 0.25 u (1 - o) + x; 1[u >= 0.75] with slope 1 where |u - 0.75| < 1/2."""
        u, o = self.u.get(name, torch.zeros_like(x)), self.o.get(name, torch.zeros_like(x))
        u = 0.25 * u * (1 - o) + x
        ramp = (u - 0.25).clamp(0, 1)
        self.u[name] = u
        self.o[name] = (u >= 0.75).double() + (ramp - ramp.detach())
        return self.o[name]

    def conv(self, index: int, x: Tensor) -> Tensor:
        """Convolution, neurons, and NeuNorm where there is one."""
        weight, bias = (self.p[f"conv{index}.conv.{name}"] for name in ("weight", "bias"))
        o = self.fire(f"lif{index}", F.conv2d(x, weight, bias, padding=1))
        inhibition = self.p.get(f"neunorm{index}.weight")
        if inhibition is None:
            return o
        count = o.shape[1]
        before = self.n.get(f"{index}", torch.zeros_like(o[:, :1]))
        self.n[f"{index}"] = 0.9 * before + 0.1 / count**2 * o.sum(1, keepdim=True)
        return o - inhibition * self.n[f"{index}"]

    def linear(self, index: int, x: Tensor) -> Tensor:
        """A linear layer and its neurons."""
        weight, bias = (self.p[f"fc{index}.layer.{name}"] for name in ("weight", "bias"))
        return self.fire(f"lif{index + 5}", F.linear(x, weight, bias))

    def __call__(self, image: Tensor) -> Tensor:
        """The rates of the classes."""
        votes = torch.zeros(BATCH, 10 * CLASSES, dtype=torch.float64)
        for _ in range(STEPS):
            x = self.conv(2, self.conv(1, image))
            x = self.conv(3, F.avg_pool2d(x, 2))
            x = self.conv(5, self.conv(4, F.avg_pool2d(x, 2))).flatten(1)
            votes = votes + self.linear(3, self.linear(2, self.linear(1, x)))
        weights = torch.zeros(10 * CLASSES, CLASSES, dtype=torch.float64)
        for neuron in range(10 * CLASSES):
            weights[neuron, neuron // 10] = 0.1
        return votes / STEPS @ weights


@pytest.mark.parametrize("neunorm", [False, True])
def test_it_is_the_published_network(neunorm: bool) -> None:
    net = tiny(neunorm=neunorm)
    literal, x = Literal(net), normal(BATCH, 3, SIZE, SIZE)
    target = F.one_hot(labels(BATCH, CLASSES), CLASSES).double()
    with membrane_stats(net) as stats:
        rates = net(x)
    assert len(stats) == 8
    assert min(entry.firing_rate.item() for entry in stats) > 0
    expected = literal(x)
    # Rates are tenths of thirds: a spike that rounding moved would show as 1/30.
    torch.testing.assert_close(rates, expected, rtol=0, atol=1e-14)
    F.mse_loss(rates, target).backward()
    F.mse_loss(expected, target).backward()
    for name, parameter in net.named_parameters():
        want = literal.p[name].grad
        assert parameter.grad is not None
        assert want is not None
        assert want.abs().max() > 0, name
        # Sums over a thousand places and all steps, in another order.
        bound = 1e-12 * (1 + want.abs().max().item())
        torch.testing.assert_close(parameter.grad, want, rtol=0, atol=bound)


def test_dropout_stands_before_all_layers_but_the_first_and_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    monkeypatch.setattr(Dropout, "forward", lambda self, x: seen.append(x.shape[2:]) or x)
    net = tiny(dropout=0.5)
    net(normal(BATCH, 3, SIZE, SIZE))
    assert not net.dropout.one_mask
    maps = [(4, 8, 8), (8, 4, 4), (16, 2, 2), (32, 2, 2)]
    assert [tuple(shape) for shape in seen] == [*maps, (16 * 2 * 2,), (32,)]


def test_neunorm_has_one_number_per_channel_and_place() -> None:
    with torch.device("meta"):
        net = CIFARNet(neunorm=True)
    layers = [m for m in net.modules() if isinstance(m, NeuNorm)]
    shapes = [(128, 32, 32), (256, 32, 32), (512, 16, 16), (1024, 8, 8), (512, 8, 8)]
    assert [tuple(m.weight.shape) for m in layers] == shapes
    assert {m.constraint for m in layers} == {"k+vF=1"}
    count = sum(p.numel() for p in net.parameters())
    assert count == 45_049_188 + sum(c * h * w for c, h, w in shapes)
    other = tiny(neunorm=True, constraint="k+v=1")
    assert {m.constraint for m in other.modules() if isinstance(m, NeuNorm)} == {"k+v=1"}


def test_it_starts_alive() -> None:
    torch.manual_seed(0)
    neuron = partial(LIF, v_threshold=0.75, surrogate="rectangle")
    net = CIFARNet(width=1 / 8, image_size=16, neunorm=True, neuron=neuron)
    with membrane_stats(net) as stats:
        net(normal(2, 3, 16, 16).float()).sum().backward()
    assert min(entry.firing_rate.item() for entry in stats) > 0
    assert net.conv1.conv.weight.grad is not None
    assert net.conv1.conv.weight.grad.abs().max() > 0


def test_images_of_another_size_are_told() -> None:
    with pytest.raises(UserError, match=r"images of 16 x 16(?s:.*)image_size=8"):
        tiny()(normal(BATCH, 3, 16, 16))
    with pytest.raises(UserError, match=r"image_size = 30(?s:.*)not divisible by 4"):
        tiny(image_size=30)
