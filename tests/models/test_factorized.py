"""The factorized convolution computes what `spike_conv2d` does, and refuses all else."""

from typing import Any

import pytest
import torch
from torch import nn

from rmploss import UserError
from rmploss.models.factorized import FactorizedConv2d
from tests.given import normal


@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_the_convolution_it_replaces(stride: int) -> None:
    conv = nn.Conv2d(4, 6, 3, stride=stride, padding=1).double()
    x = normal(2, 4, 7, 7)
    y = FactorizedConv2d(conv)(x)
    assert y.std() > 0
    torch.testing.assert_close(y, conv(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 2},
        {"groups": 2},
        {"stride": (2, 1)},
        {"padding": (1, 0)},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "reflect"},
    ],
)
def test_what_it_cannot_compute_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is not factorized"):
        FactorizedConv2d(nn.Conv2d(4, 6, 3, **options))
