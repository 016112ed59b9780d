import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from rmploss.data import DATASETS, Key, Splits
from rmploss.data._in_memory import InMemory
from rmploss.data._unpickle import unpickle
from rmploss.data.cifar import _CIFAR, CIFAR10, CIFAR100
from rmploss.errors import DataError

SETS = [CIFAR10, CIFAR100]


def _pixels(file: str) -> np.ndarray:
    """Four images of a file, never black."""
    seed = int.from_bytes(file.encode()[-4:], "big")
    return np.random.default_rng(seed).integers(1, 256, (4, 3072), dtype=np.uint8)


@pytest.fixture(params=SETS)
def kind(request: pytest.FixtureRequest) -> type[_CIFAR]:
    return request.param


@pytest.fixture
def root(kind: type[_CIFAR], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small set in the published format, with checksums to match."""
    folder = tmp_path / kind.folder
    folder.mkdir()
    for table in ("train_files", "test_files"):
        checksums = {}
        for file in getattr(kind, table):
            content = {b"data": _pixels(file), kind.label_key: [3, 1, 4, 1], b"batch_label": b"x"}
            data = pickle.dumps(content, protocol=3)
            (folder / file).write_bytes(data)
            checksums[file] = hashlib.md5(data, usedforsecurity=False).hexdigest()
        monkeypatch.setattr(kind, table, checksums)
    return tmp_path


def _open(kind: type[_CIFAR], root: Path, **options: object) -> Splits:
    return DATASETS.make(kind.name, **options).open(root, seed=0, T=4)


def test_reads_the_published_format(kind: type[_CIFAR], root: Path) -> None:
    splits = _open(kind, root, augment="none")
    assert len(splits.train) == 4 * len(kind.train_files)
    assert splits.test.labels.tolist() == [3, 1, 4, 1]
    for split, files in ((splits.train, kind.train_files), (splits.test, kind.test_files)):
        pixels = np.concatenate([_pixels(file) for file in files]).reshape(-1, 3, 32, 32)
        for index, image in enumerate(pixels):
            x, label = split[Key(0, index)]
            mean, std = (torch.tensor(value).view(3, 1, 1) for value in (kind.mean, kind.std))
            torch.testing.assert_close(x * std + mean, torch.from_numpy(image).float() / 255)
            assert label == split.labels[index]


@pytest.mark.parametrize("augment", ["autoaugment+cutout", "standard"])
def test_training_images_alone_are_augmented(kind: type[_CIFAR], root: Path, augment: str) -> None:
    plain, changed = _open(kind, root, augment="none"), _open(kind, root, augment=augment)
    for index in range(4):
        x, _ = changed.train[Key(0, index)]
        assert x.shape == kind().shape(4)
        assert x.dtype == torch.float32
        assert torch.equal(x, changed.train[Key(0, index)][0])
        assert not torch.equal(x, changed.train[Key(1, index)][0])
        assert torch.equal(plain.test[Key(0, index)][0], changed.test[Key(1, index)][0])


def test_cutout_comes_before_normalization_so_its_hole_is_black(
    kind: type[_CIFAR], root: Path
) -> None:
    """Images that are never black: what is black for sure must be the hole, or shifted-in edge."""
    splits = _open(kind, root)
    black = -torch.tensor(kind.mean) / torch.tensor(kind.std)
    full = 0
    for epoch in range(60):
        x, _ = splits.train[Key(epoch, 0)]
        hole = torch.isclose(x, black.view(3, 1, 1), atol=1e-5).all(0)
        squares = hole.float().unfold(0, 16, 1).unfold(1, 16, 1).sum((-1, -2))
        full += bool((squares == 256).any())
    assert full > 6, "16x16 lies wholly inside in 28 % of cases"


def test_standard_is_crop_and_flip(kind: type[_CIFAR], root: Path) -> None:
    splits, plain = _open(kind, root, augment="standard"), _open(kind, root, augment="none")
    image, _ = plain.train[Key(0, 0)]
    black = -(torch.tensor(kind.mean) / torch.tensor(kind.std)).view(3, 1, 1)
    padded = black.repeat(1, 40, 40)
    padded[:, 4:36, 4:36] = image
    moved = [splits.train[Key(epoch, 0)][0] for epoch in range(40)]
    windows = {
        (flipped, top, left)
        for x in moved
        for flipped in (False, True)
        for top in range(9)
        for left in range(9)
        if torch.allclose(
            padded[:, top : top + 32, left : left + 32].flip(-1) if flipped
            else padded[:, top : top + 32, left : left + 32],
            x,
        )
    }  # fmt: skip
    assert {flipped for flipped, _, _ in windows} == {False, True}
    assert len({top for _, top, _ in windows}) > 5
    assert len({left for _, _, left in windows}) > 5


def test_an_altered_file_is_refused_before_anything_is_decoded(
    kind: type[_CIFAR], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmploss.data.cifar.unpickle", lambda *_: pytest.fail("decoded"))
    ((file, expected),) = kind.test_files.items()
    path = root / kind.folder / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        _open(kind, root)
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    for word in (str(path), found, expected, "fetch again"):
        assert word in str(caught.value)


def test_a_file_that_passes_its_checksum_is_still_not_trusted(
    kind: type[_CIFAR], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = b"cos\nsystem\n(S'touch canary'\ntR."
    file = next(iter(kind.test_files))
    (root / kind.folder / file).write_bytes(evil)
    checksum = hashlib.md5(evil, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(kind, "test_files", {file: checksum})
    monkeypatch.chdir(root)
    with pytest.raises(DataError, match=r"os\.system"):
        _open(kind, root)
    assert not (root / "canary").exists()


def test_missing_files_are_named_with_the_way_to_get_them(kind: type[_CIFAR], root: Path) -> None:
    assert kind().missing(root) == []
    file = next(iter(kind.train_files))
    (root / kind.folder / file).unlink()
    (problem,) = kind().missing(root)
    assert problem.where.endswith(file)
    assert problem.fix == f"rmploss data fetch {kind.name} --data-dir {root}"
    with pytest.raises(DataError, match="no such file"):
        _open(kind, root)
    (problem,) = kind().missing(root / "nowhere")
    assert "RMPLOSS_DATA" in problem.what


def test_checksums_are_those_torchvision_holds() -> None:
    from torchvision.datasets import cifar

    for ours, theirs in ((CIFAR10, cifar.CIFAR10), (CIFAR100, cifar.CIFAR100)):
        assert [list(pair) for pair in ours.train_files.items()] == theirs.train_list
        assert [list(pair) for pair in ours.test_files.items()] == theirs.test_list
        assert ours.folder == theirs.base_folder
        assert len(set(ours.classes)) == len(ours.classes) == ours.num_classes
        assert list(ours.classes) == sorted(ours.classes)


@pytest.mark.real_data
def test_the_real_cifar10(real_data_root: Path) -> None:
    splits = _open(CIFAR10, real_data_root)
    assert splits.train.labels.bincount().tolist() == [5000] * 10
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    assert isinstance(splits.train, InMemory)
    mean = splits.train.stored.numpy().mean((0, 2, 3)) / 255
    np.testing.assert_allclose(mean, CIFAR10.mean, atol=1e-4)
    meta = unpickle((real_data_root / CIFAR10.folder / "batches.meta").read_bytes(), "batches.meta")
    assert tuple(name.decode() for name in meta[b"label_names"]) == CIFAR10.classes
