"""VGGSNN: pooled or strided, its layers and how its weights start."""

import math

import pytest
import torch
from torch import nn

from rmploss import UserError, membrane_stats
from rmploss.models.layers import AvgPool2d
from rmploss.models.vggsnn import CHANNELS, VGGSNN
from tests.given import normal


@pytest.mark.parametrize("strided", [False, True])
def test_the_map_is_halved_behind_every_second_convolution(strided: bool) -> None:
    net = VGGSNN(width=1 / 32, image_size=16, strided=strided)
    sizes = [module for module in net.modules() if isinstance(module, nn.Conv2d | AvgPool2d)]
    convs = [m for m in sizes if isinstance(m, nn.Conv2d)]
    assert [c.stride[0] for c in convs] == [1, 2 if strided else 1] * 4
    assert sum(isinstance(m, AvgPool2d) for m in sizes) == (0 if strided else 4)
    assert all(c.bias is not None for c in convs)
    shapes = []
    for conv in convs:
        conv.register_forward_hook(lambda m, i, o: shapes.append((i[0].shape[-1], o.shape[-1])))
    with membrane_stats(net) as stats:
        assert net(normal(3, 2, 2, 16, 16).float()).shape == (2, 10)
    assert [entry.name for entry in stats] == [f"layers.lif{n}" for n in range(1, 9)]
    inputs = [16, 16, 8, 8, 4, 4, 2, 2]
    assert [before for before, _ in shapes] == inputs
    behind = [side // 2 if strided and n % 2 else side for n, side in enumerate(inputs)]
    assert [after for _, after in shapes] == behind


@pytest.mark.parametrize("strided", [False, True])
def test_the_published_size(strided: bool) -> None:
    with torch.device("meta"):
        net = VGGSNN(strided=strided)
        assert net(torch.zeros(10, 1, 2, 48, 48)).shape == (1, 10)
    assert sum(p.numel() for p in net.parameters()) == 9_271_498
    assert net.head.layer.in_features == 512 * 3 * 3


def test_convolutions_start_by_their_fan_out() -> None:
    torch.manual_seed(0)
    net = VGGSNN(width=0.25, image_size=16)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    for conv, channels in zip(convs, CHANNELS, strict=True):
        assert conv.out_channels == channels / 4
        n, expected = conv.weight.numel(), math.sqrt(2 / (9 * conv.out_channels))
        # The deviation of n normal numbers has itself a deviation of 1/sqrt(2n): five of them.
        assert conv.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * n))


def test_a_map_that_cannot_be_halved_is_told() -> None:
    with pytest.raises(UserError, match=r"image_size = 40(?s:.*)not divisible by 16"):
        VGGSNN(image_size=40)
