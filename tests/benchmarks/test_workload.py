"""A workload is the same in every process, and its running statistics suit its batch."""

from pathlib import Path

import pytest
import torch

from rmploss import membrane_stats
from rmploss_bench.conditions import Conditions
from rmploss_bench.workload import make_workload
from tests.benchmarks.kits import tiny


def test_a_workload_is_the_same_when_made_again() -> None:
    first, again = make_workload(tiny()), make_workload(Conditions(**tiny().as_dict()))
    assert first.images.equal(again.images)
    assert first.labels.equal(again.labels)
    assert all(first.state[name].equal(again.state[name]) for name in first.state)
    assert not first.images.equal(make_workload(tiny(seed=1)).images)


def test_in_evaluation_the_network_fires_as_in_training() -> None:
    made = make_workload(tiny(batch=8))
    with torch.no_grad(), membrane_stats() as training:
        made.net.train()(made.images)
    with torch.no_grad(), membrane_stats() as evaluation:
        made.net.eval()(made.images)
    # The running variance is the unbiased one: n / (n - 1), n = T*B*H*W = 64 in the smallest layer.
    for a, b in zip(training, evaluation, strict=True):
        assert float(a.firing_rate) == pytest.approx(float(b.firing_rate), abs=0.05)


def test_real_images_where_there_are_any(real_data_root: Path) -> None:
    made = make_workload(tiny(data_dir=str(real_data_root)))
    assert made.source == "CIFAR-10 test images"
    assert made.labels.tolist() == [3, 8]  # the first two test images: a cat, a ship
