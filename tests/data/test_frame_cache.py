from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from rmploss.data._frame_cache import load_or_make

DESCRIPTION = {"T": 2, "format": "1"}


class Maker:
    """Makes sample i as (i, i + 1, i + 2) and counts its calls."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, index: int) -> np.ndarray:
        self.calls.append(index)
        return np.arange(index, index + 3, dtype=np.uint8)


def _cached(folder: Path, description: dict[str, object] = DESCRIPTION) -> Maker:
    """The calls that were needed; the samples are checked."""
    make, calls = Maker(), []
    samples = load_or_make(
        folder, description, 4, make, lambda done, total: calls.append((done, total))
    )
    assert samples.dtype == np.uint8
    assert samples.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert calls == [(index + 1, 4) for index in make.calls]
    return make


def test_makes_once_and_reads_after_that(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    assert _cached(folder).calls == [0, 1, 2, 3]
    (path,) = folder.iterdir()
    before = path.read_bytes()
    assert _cached(folder).calls == []
    assert path.read_bytes() == before


def test_other_descriptions_are_other_files(tmp_path: Path) -> None:
    _cached(tmp_path)
    assert len(_cached(tmp_path, {**DESCRIPTION, "T": 3}).calls) == 4
    assert len(list(tmp_path.iterdir())) == 2
    assert _cached(tmp_path).calls == []


def test_any_damage_is_noticed_and_mended(tmp_path: Path) -> None:
    _cached(tmp_path)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    damaged = [good[:length] for length in range(0, len(good), 16)]
    damaged += [
        good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :]
        for place in range(len(good))
    ]
    for data in damaged:
        path.write_bytes(data)
        assert _cached(tmp_path).calls != []
        assert path.read_bytes() == good


def test_a_file_of_another_description_is_not_believed(tmp_path: Path) -> None:
    _cached(tmp_path)
    (path,) = tmp_path.iterdir()
    _cached(tmp_path, {**DESCRIPTION, "T": 3})
    (other,) = set(tmp_path.iterdir()) - {path}
    other.replace(path)
    assert len(_cached(tmp_path).calls) == 4


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.bfloat16, torch.float8_e5m2])
def test_the_same_bytes_of_another_type_are_not_believed(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    _cached(tmp_path)
    (path,) = tmp_path.iterdir()
    with safetensors.safe_open(path, framework="pt") as file:
        metadata, frames = dict(file.metadata()), file.get_tensor("frames")
    frames = frames if dtype.itemsize == 1 else frames.repeat(1, 2)
    path.write_bytes(safetensors.torch.save({"frames": frames.view(dtype)}, metadata))
    assert len(_cached(tmp_path).calls) == 4


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(index: int) -> np.ndarray:
        raise ValueError(f"sample {index}")

    with pytest.raises(ValueError, match="sample 0"):
        load_or_make(tmp_path, DESCRIPTION, 4, fail)
    assert list(tmp_path.iterdir()) == []
