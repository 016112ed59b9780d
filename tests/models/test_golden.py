"""A pinned trajectory: five steps of SGD in float64. If it moves, training has changed."""

import math
import random

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rmploss import RMPLoss, membrane_stats
from rmploss.models import create

LOSSES = [
    1.686417129660675,
    1.1693810941106548,
    0.7312531503634253,
    0.6212764638818995,
    0.533654515403611,
]
ERRORS = [
    0.22387001795043715,
    0.21942324250938242,
    0.22068807134583313,
    0.22054868764721483,
    0.21643271861392188,
]


def uniform(name: str, *shape: int, width: float = 1.0) -> Tensor:
    """Numbers of the given deviation that are the same with every version of every library."""
    numbers = random.Random(f"golden {name}")
    count, half = math.prod(shape), math.sqrt(3) * width
    flat = [(2 * numbers.random() - 1) * half for _ in range(count)]
    return torch.tensor(flat, dtype=torch.float64).view(shape)


def test_five_steps() -> None:
    net = create("convnet", in_channels=2, num_classes=4, T=4, width=0.25).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1:
                width = parameter[0].numel() ** -0.5
                parameter.copy_(uniform(name, *parameter.shape, width=width))
            elif name == "head.layer.bias":
                parameter.zero_()
    images, target = uniform("images", 8, 2, 8, 8), torch.arange(8) % 4
    rmp = RMPLoss(k=1.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    losses, errors = [], []
    for step in range(5):
        with membrane_stats(net, rmp.spec) as stats:
            logits = net(images)
        loss = cross_entropy(logits, target) + rmp(stats, progress=(step + 1) / 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        errors.append(rmp.value(stats).item())
    assert losses == pytest.approx(LOSSES, abs=1e-10)
    assert errors == pytest.approx(ERRORS, abs=1e-10)
