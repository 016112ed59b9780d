"""Conditions have defaults per network, and impossible ones are refused."""

from pathlib import Path

import pytest
import torch

from rmploss.errors import UserError
from rmploss_bench.conditions import data_dir, make_conditions, threads


def test_the_default_size_depends_on_the_network() -> None:
    assert (make_conditions("resnet19").T, make_conditions("resnet19").batch) == (2, 8)
    assert (make_conditions("vgg16").T, make_conditions("vgg16", batch=3).batch) == (4, 3)


@pytest.mark.parametrize("wrong", [{"T": 0}, {"batch": -1}, {"width": 0.0}, {"threads": 0}])
def test_a_field_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        make_conditions("resnet20", **wrong)


def test_a_data_folder_that_was_asked_for_must_be_complete(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CIFAR-10 is not complete"):
        data_dir(tmp_path)


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    with threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
