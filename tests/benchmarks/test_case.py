"""A case is the same in every process, and what cannot be measured is told before anything runs."""

from pathlib import Path

import pytest
import torch

from rmploss import membrane_stats
from rmploss.errors import UserError
from rmploss_bench.case import Setting, case, data_dir, setting, threads
from tests.benchmarks.kits import tiny


def test_a_case_is_made_alike_again() -> None:
    first, again = case(tiny()), case(Setting(**tiny().plain()))
    assert first.images.equal(again.images)
    assert first.labels.equal(again.labels)
    assert all(first.state[name].equal(again.state[name]) for name in first.state)
    assert not first.images.equal(case(tiny(seed=1)).images)


def test_the_usual_size_depends_on_the_network() -> None:
    assert (setting("resnet19").T, setting("resnet19").batch) == (2, 8)
    assert (setting("vgg16").T, setting("vgg16", batch=3).batch) == (4, 3)


@pytest.mark.parametrize("wrong", [{"T": 0}, {"batch": -1}, {"width": 0.0}, {"threads": 0}])
def test_what_cannot_be_is_told(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        setting("resnet20", **wrong)


def test_a_data_folder_that_was_asked_for_must_be_complete(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CIFAR-10 is not complete"):
        data_dir(tmp_path)


def test_in_evaluation_the_network_fires_as_in_training() -> None:
    made = case(tiny(batch=8))
    with torch.no_grad(), membrane_stats() as training:
        made.net.train()(made.images)
    with torch.no_grad(), membrane_stats() as evaluation:
        made.net.eval()(made.images)
    # The running variance is the unbiased one: n / (n - 1), n = T*B*H*W = 64 in the smallest layer.
    for a, b in zip(training, evaluation, strict=True):
        assert float(a.firing_rate) == pytest.approx(float(b.firing_rate), abs=0.05)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_real_images_where_there_are_any(real_data_root: Path) -> None:
    made = case(tiny(data_dir=str(real_data_root)))
    assert made.source == "CIFAR-10 test images"
    assert made.labels.tolist() == [3, 8]  # the first two test images: a cat, a ship
