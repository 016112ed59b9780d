"""Histograms of the membrane: every value in its bin, every layer, nothing changed."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from rmploss import LIF, functional
from rmploss.analysis import Histogram, membrane_histograms
from rmploss.analysis.histogram import BINS, HIGH, LOW, edges
from rmploss.models import create
from tests.given import labels, normal

IMAGES = (4, 1, 8, 8)


def test_the_spikes_and_the_threshold_are_edges() -> None:
    assert len(edges()) == BINS + 1
    assert edges()[0] == LOW
    assert edges()[-1] == HIGH
    for value in (0.0, 0.5, 1.0):
        assert min(abs(edge - value) for edge in edges()) < 1e-12


def test_every_value_is_in_its_bin() -> None:
    lif = LIF(v_threshold=1.0)
    net = nn.Sequential(lif, nn.Linear(3, 3, dtype=torch.float64))
    x = [normal(5, 4, 3, seed=seed, std=1.2) for seed in range(3)]
    (histogram,) = membrane_histograms(net, [(images, labels(4, 3)) for images in x])
    u_pre = torch.cat([functional.membrane(images, v_threshold=1.0) for images in x])
    expected, _ = np.histogram(u_pre.numpy(), bins=BINS, range=(LOW, HIGH))
    assert list(histogram.counts) == expected.tolist()
    assert histogram.below == (u_pre < LOW).sum().item() > 0
    assert histogram.above == (u_pre >= HIGH).sum().item() > 0
    assert histogram.total == u_pre.numel()
    assert (histogram.layer, histogram.v_threshold) == ("0", 1.0)


def test_nan_is_in_no_bin() -> None:
    u = torch.tensor([0.2, math.nan, math.inf, -math.inf]).view(1, 1, 4)
    (histogram,) = membrane_histograms(nn.Sequential(LIF(), nn.Linear(4, 1)), [(u, labels(1, 3))])
    assert (histogram.total, histogram.below, histogram.above) == (3, 1, 1)


def test_the_density_has_the_integral_one() -> None:
    histogram = Histogram("lif", 0.5, tuple(range(BINS)), 0, 0)
    assert sum(histogram.density()) * (HIGH - LOW) / BINS == pytest.approx(1)
    outside = Histogram("lif", 0.5, tuple(range(BINS)), histogram.total, 0)
    assert sum(outside.density()) * (HIGH - LOW) / BINS == pytest.approx(0.5)
    assert Histogram("lif", 0.5, (0,) * BINS, 0, 0).density() == [0] * BINS


@pytest.mark.parametrize("training", [True, False])
def test_the_network_comes_back_as_it_was(training: bool) -> None:
    net = create("convnet", in_channels=1, width=0.125).train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    empty = (torch.zeros(0, *IMAGES[1:]), labels(0, 3))
    batches = [(normal(*IMAGES).float(), labels(4, 3)), empty]
    found = membrane_histograms(net, batches)
    assert [histogram.layer for histogram in found] == ["lif1", "lif2", "lif3"]
    assert [histogram.total for histogram in found] == [
        4 * 4 * 4 * 64,
        4 * 4 * 8 * 16,
        4 * 4 * 8 * 4,
    ]
    assert net.training == training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_an_error_leaves_no_hook() -> None:
    net = create("convnet", in_channels=1, width=0.125)
    with pytest.raises(ValueError, match="shape"):
        membrane_histograms(net, [(torch.zeros(1, 2, 8, 8), labels(1, 3))])
    assert net.training
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_json_there_and_back() -> None:
    histogram = Histogram("lif", 0.5, tuple(range(BINS)), 3, 4)
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json()))) == histogram
