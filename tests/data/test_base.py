from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2 import functional

from rmploss.data import data_root
from rmploss.data._base import cache_root
from rmploss.data._in_memory import Standardize


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
