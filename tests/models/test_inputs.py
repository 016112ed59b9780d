"""Networks say what is wrong with their arguments and inputs."""

from typing import Any

import pytest
import torch

from rmploss import LIF, checkpoint
from rmploss.errors import UserError
from rmploss.models import create


@pytest.mark.parametrize("name", ["convnet", "resnet20", "vgg16", "plifnet", "cifarnet"])
@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf")])
def test_a_width_is_positive_and_finite(name: str, width: float) -> None:
    with pytest.raises(UserError, match=r"width = .*must be positive and finite"):
        create(name, width=width)


def test_parts_that_cannot_be_called() -> None:
    with pytest.raises(UserError) as caught:
        create("convnet", neuron=3, norm="bn")
    assert [p.where for p in caught.value.problems] == ["neuron = 3", "norm = 'bn'"]


X = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.byte(), "x is torch.uint8(?s:.*)x.float"),
        (X.double(), r"x is torch.float64: the network torch.float32 +net\(x.to"),
        (X.half(), "x is torch.float16: the network torch.float32"),
        (X.to(torch.complex64), "x is torch.complex64"),
        (X.numpy(), "x is a ndarray(?s:.*)torch.as_tensor"),
        (None, "x is a NoneType"),
    ],
)
def test_inputs_of_another_type(x: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create("convnet", T=2, width=0.25)(x)


def test_autocast_casts_both() -> None:
    net = create("convnet", T=2, width=0.25).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(X.bfloat16()).shape == net(X).shape


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_a_shortcut_of_another_type(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 2, 3, 4, 4)
    with pytest.raises(UserError, match=f"residual is {dtype}"):
        LIF(3)(x, residual=x.to(dtype))


def test_a_checkpoint_needs_a_function() -> None:
    with pytest.raises(UserError, match="function = 3: must be a function"):
        checkpoint(3, X)  # pyright: ignore[reportArgumentType]
