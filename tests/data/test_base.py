from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from rmploss.data import Key, data_root
from rmploss.data._base import InMemory, Standardize, cache_root


def _noisy(x: Tensor) -> Tensor:
    return x + torch.rand(3)


def _samples(seed: int | None = 0) -> InMemory:
    return InMemory(torch.zeros(5, 3), torch.arange(5), _noisy, seed)


def test_augmentation_is_a_function_of_seed_epoch_and_index() -> None:
    samples = _samples()
    first, label = samples[Key(2, 3)]
    assert label == 3
    torch.rand(7)  # whatever else happens in the process
    assert torch.equal(samples[Key(2, 3)][0], first)
    others = [samples[Key(2, 4)], samples[Key(3, 3)], _samples(seed=1)[Key(2, 3)]]
    assert not any(torch.equal(x, first) for x, _ in others)


def test_augmentation_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    _samples()[Key(0, 0)]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_standardize_is_normalize_of_the_image_in_0_1() -> None:
    mean, std = (0.1, 0.5, 0.8), (0.2, 0.3, 0.4)
    image = torch.arange(256 * 3, dtype=torch.uint8).view(3, 16, 16)
    expected = functional.normalize(image.double() / 255, list(mean), list(std))
    found = Standardize(mean, std)(image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_data_root_is_the_argument_then_the_environment_then_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RMPLOSS_DATA", "/elsewhere")
    assert data_root(Path("/here")) == Path("/here")
    assert data_root(None) == Path("/elsewhere")
    monkeypatch.setenv("RMPLOSS_DATA", "")
    assert data_root(None) == Path("data")
    monkeypatch.setenv("HOME", "/home/me")
    assert data_root(Path("~/sets")) == Path("/home/me/sets")


def test_cache_lies_in_the_data_root_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RMPLOSS_CACHE", raising=False)
    assert cache_root(Path("/here")) == Path("/here/cache")
    monkeypatch.setenv("RMPLOSS_CACHE", "/fast/disk")
    assert cache_root(Path("/here")) == Path("/fast/disk")
