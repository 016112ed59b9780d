"""Lazily negated views (`x.conj().imag`): their memory holds the opposite of their values."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import rmploss


def negated(x: Tensor) -> Tensor:
    """A view of the opposite of x, in x's own layout, whose values are those of x."""
    return torch._neg_view(-x)  # pyright: ignore[reportPrivateImportUsage]


def lif(x: Tensor) -> Tensor:
    return rmploss.LIF()(x)


def norm_lif(x: Tensor) -> Tensor:
    norm = rmploss.TDBatchNorm2d(x.shape[2])
    return rmploss.LIF()(norm(x))


def convolution(x: Tensor) -> Tensor:
    torch.manual_seed(1)
    conv = rmploss.SpikeConv2d(x.shape[2], 8, 3, padding=1)
    return conv(x.flatten(0, 1))


@pytest.mark.parametrize("layer", [lif, norm_lif, convolution])
@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_sign_of_a_negated_view_is_read(
    layer: Callable[[Tensor], Tensor], size: int, channels_last: bool
) -> None:
    torch.manual_seed(0)
    x = (torch.randn(4, 3, 8, size, size) > 0.5).float()
    if channels_last:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).view(x.shape)
    gradients, outputs = [], []
    for given in (x, negated(x)):
        start = given.detach().requires_grad_()
        y = layer(start)
        g = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        (gradient,) = torch.autograd.grad(y, start, g if given is x else negated(g))
        outputs.append(y.detach())
        gradients.append(gradient)
    assert start.is_neg()
    assert torch.equal(*outputs)
    assert torch.equal(*gradients)
