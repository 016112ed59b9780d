"""Average pooling that keeps nothing equals PyTorch's."""

import pytest
import torch
import torch.nn.functional as F

from rmploss.models.layers import AvgPool2d
from rmploss.ops.pooling import avg_pool2d
from tests.given import normal


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_it_is_average_pooling(dtype: torch.dtype, k: int, last: bool) -> None:
    x = normal(2, 5, 6, 12).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    results = []
    for pool in (avg_pool2d, F.avg_pool2d):
        leaf = x.clone().requires_grad_()
        y = pool(leaf, k)
        upstream = normal(*y.shape, name="g").to(dtype)
        results.append((y, *torch.autograd.grad(y, leaf, upstream)))
    for one, other in zip(*results, strict=True):
        # One division by k^2, rounded once here and once there.
        torch.testing.assert_close(one, other, rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_it_keeps_nothing() -> None:
    y = avg_pool2d(normal(2, 3, 4, 4).requires_grad_(), 2)
    assert y.grad_fn is not None
    assert not y.grad_fn.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"kernel_size": 2}, 5),
        ({"kernel_size": 2, "ceil_mode": True, "count_include_pad": False}, 5),
        ({"kernel_size": 3, "stride": 2, "padding": 1}, 8),
        ({"kernel_size": (2, 1)}, 4),
    ],
    ids=str,
)
def test_what_does_not_tile_runs_as_in_the_parent(options: dict[str, object], size: int) -> None:
    x = normal(2, 3, size, size)
    ours = AvgPool2d(**options)  # pyright: ignore[reportArgumentType]
    plain = torch.nn.AvgPool2d(**options)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(ours(x), plain(x), rtol=0, atol=0)
