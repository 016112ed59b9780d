"""Synaptic operations, counted one by one, and the energy they stand for."""

import pytest
import torch
from torch import Tensor, nn

from rmploss.analysis import Cost, inference_cost
from rmploss.models import create
from tests.given import labels, normal


def one_by_one(conv: nn.Conv2d, x: Tensor) -> int:
    """Every value that is not 0, every output that reads it."""
    k, s, p = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    C, H, W = x.shape[1:]
    out_h, out_w = (H + 2 * p - k) // s + 1, (W + 2 * p - k) // s + 1
    count = 0
    for _, c, h, w in x.nonzero().tolist():
        group = c // (C // conv.groups)
        assert group < conv.groups
        for i in range(out_h):
            for j in range(out_w):
                if 0 <= h - (i * s - p) < k and 0 <= w - (j * s - p) < k:
                    count += conv.out_channels // conv.groups
    return count


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3, "padding": 1}, {"kernel_size": 3, "stride": 2}, {"kernel_size": 1},
     {"kernel_size": 5, "padding": 2, "stride": 2, "groups": 2}],
)  # fmt: skip
@pytest.mark.parametrize("binary", [True, False])
def test_a_convolution(options: dict[str, int], binary: bool) -> None:
    conv = nn.Conv2d(4, 6, **options)  # pyright: ignore[reportArgumentType]
    x = normal(2, 4, 7, 6).float()
    x = (x > 0.8).float() if binary else x * (x > 0.8)
    cost = inference_cost(conv, [(x, labels(2, 2))])
    expected = one_by_one(conv, x) / 2
    assert (cost.accumulations, cost.multiplications) == (
        (expected, 0) if binary else (0, expected)
    )


def test_ones_are_added_and_other_numbers_multiplied() -> None:
    x = torch.tensor([[1.0, 0.0, 0.5, 1.0]])
    assert inference_cost(nn.Linear(4, 7), [(x, labels(1, 2))]) == Cost(2 * 7, 7)


def test_a_network_of_images() -> None:
    net = create("convnet", in_channels=1, T=3, width=0.25)
    images = normal(4, 1, 8, 8).float()
    cost = inference_cost(net, [(images[:3], labels(3, 10)), (images[3:], labels(1, 10))])
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())
    # Every input of the three convolutions and the linear layer, counted by hand; the image goes
    # through the first once, not T times.
    inputs: list[Tensor] = []
    names = ("conv1.conv", "conv2.conv", "conv3.conv", "head.layer")
    layers = [net.get_submodule(name) for name in names]
    for layer in layers:
        layer.register_forward_hook(lambda _, x, __: inputs.append(x[0]))
    with torch.no_grad():
        net.eval()(images)
    assert [len(x) for x in inputs] == [4, 12, 12, 12]
    total = Cost(0, 0)
    for layer, x in zip(layers, inputs, strict=True):
        ones, others = (x == 1).float(), x * ((x != 0) & (x != 1))
        counts = [
            one_by_one(layer, y) if isinstance(layer, nn.Conv2d) else int((y != 0).sum()) * 10
            for y in (ones, others)
        ]
        total = Cost(total.accumulations + counts[0], total.multiplications + counts[1])
    assert cost == Cost(total.accumulations / 4, total.multiplications / 4)


def test_energy() -> None:
    assert Cost(2e6, 1e6).microjoules == pytest.approx(2 * 0.9 + 4.6)


def test_an_empty_batch_costs_nothing() -> None:
    conv = nn.Conv2d(1, 1, 1)
    assert inference_cost(conv, [(torch.zeros(0, 1, 2, 2), labels(0, 2))]) == Cost(0, 0)
