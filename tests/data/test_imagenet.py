from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rmploss.data import Key, batches, photographs
from rmploss.data.imagenet import ImageNet
from rmploss.errors import DataError

WNIDS = ("n01440764", "n01443537", "n02085620")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def _save(path: Path, shade: int, size: tuple[int, int] = (300, 280)) -> None:
    """A picture: left half of the shade, right half black."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2] = shade
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=100)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ImageNet, "num_classes", len(WNIDS))
    for split, n in (("train", 3), ("val", 2)):
        for label, wnid in enumerate(WNIDS):
            for number in range(n):
                name = f"ILSVRC2012_{wnid}_{number}.JPEG"
                _save(tmp_path / "imagenet" / split / wnid / name, 60 * (label + 1) + number)
    return tmp_path


def test_reads_class_folders(root: Path) -> None:
    assert ImageNet().missing(root) == []
    splits = ImageNet().open(root, seed=0, T=4)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert splits.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for index, label in enumerate(splits.test.labels.tolist()):
        x, same = splits.test[Key(0, index)]
        assert same == label
        assert x.shape == ImageNet().shape(4)
        assert x.dtype == torch.float32
        pixels = 255 * (x * STD.view(3, 1, 1) + MEAN.view(3, 1, 1))
        assert abs(float(pixels[:, 112, 10].mean()) - (60 * (label + 1) + index % 2)) < 3
        assert abs(float(pixels[:, 112, -10].mean())) < 3


def test_eval_takes_the_middle_of_256_on_the_short_side(root: Path) -> None:
    """A wide picture, white only where 224 of 256 rows and columns lie in the middle."""
    pixels = np.zeros((512, 1024, 3), np.uint8)
    pixels[32:480, 288:736] = 255
    path = root / "imagenet" / "val" / WNIDS[0] / "ILSVRC2012_0.png"
    Image.fromarray(pixels).save(path)
    splits = ImageNet().open(root, seed=0, T=4)
    x, _ = splits.test[Key(0, 0)]
    white = ((1 - MEAN) / STD).view(3, 1, 1)
    assert torch.isclose(x, white, atol=1e-4).all(0)[2:-2, 2:-2].all()


def test_training_is_augmented_by_seed_epoch_and_index_alone(root: Path) -> None:
    splits, other = (ImageNet().open(root, seed=seed, T=4) for seed in (0, 1))
    key = Key(3, 4)
    x, _ = splits.train[key]
    assert torch.equal(splits.train[key][0], x)
    assert not torch.equal(other.train[key][0], x)
    assert not torch.equal(splits.train[Key(4, 4)][0], x)
    assert torch.equal(other.test[key][0], splits.test[Key(0, 4)][0])
    brighter = {
        float((x[..., :20].mean() - x[..., -20:].mean()).sign())
        for x, _ in (splits.train[Key(epoch, 8)] for epoch in range(40))
    }
    assert {-1.0, 1.0} <= brighter, "the bright half is on either side"
    plain = ImageNet(augment=False).open(root, seed=0, T=4).train
    assert torch.equal(plain[key][0], plain[Key(0, 4)][0])


def test_gray_and_cmyk_images_are_read_as_rgb(root: Path) -> None:
    folder = root / "imagenet" / "val" / WNIDS[0]
    Image.new("L", (256, 256), 100).save(folder / "ILSVRC2012_00.JPEG")
    Image.new("CMYK", (256, 256)).save(folder / "ILSVRC2012_01.JPEG")
    splits = ImageNet().open(root, seed=0, T=4)
    assert splits.test.labels.bincount().tolist() == [4, 2, 2]
    gray = splits.test[Key(0, 0)][0] * STD.view(3, 1, 1) + MEAN.view(3, 1, 1)
    torch.testing.assert_close(gray, torch.full((3, 224, 224), 100 / 255), atol=0.01, rtol=0)
    assert splits.test[Key(0, 1)][0].shape == (3, 224, 224)


def test_flat_validation_images_are_recognized(root: Path) -> None:
    val = root / "imagenet" / "val"
    for number, path in enumerate(sorted(val.glob("*/*.JPEG"))):
        path.rename(val / f"ILSVRC2012_val_{number:08}.JPEG")
    for folder in val.glob("n*"):
        folder.rmdir()
    (problem,) = ImageNet().missing(root)
    assert problem.where == str(val)
    assert "directly in this folder" in problem.what
    assert "valprep.sh" in problem.fix
    with pytest.raises(DataError, match="directly in this folder"):
        ImageNet().open(root, seed=0, T=4)


def test_wrong_numbers_and_names_of_classes_are_reported(root: Path) -> None:
    (root / "imagenet" / "val" / WNIDS[1]).rename(root / "imagenet" / "val" / "n99999999")
    (problem,) = ImageNet().missing(root)
    assert "differ in 2 class folders, first n01443537" in problem.what
    (root / "imagenet" / "train" / "n99999999").mkdir()
    (problem,) = ImageNet().missing(root)
    assert "4 class folders, not 3" in problem.what
    train, val = ImageNet().missing(root / "nowhere")
    assert train.where.endswith("train")
    assert val.where.endswith("val")
    assert "image-net.org" in val.fix


def test_an_empty_class_is_refused(root: Path) -> None:
    for path in (root / "imagenet" / "train" / WNIDS[2]).iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(DataError, match=WNIDS[2]):
        ImageNet().open(root, seed=0, T=4)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(root: Path, workers: int) -> None:
    path = min((root / "imagenet" / "val" / WNIDS[0]).iterdir())
    samples = ImageNet().open(root, seed=0, T=4).test
    options = {"epoch": 0, "seed": 0, "shuffle": False, "drop_last": False, "workers": workers}
    for data in (path.read_bytes()[:2000], b"<html>", b""):
        path.write_bytes(data)
        with pytest.raises(DataError, match=path.name):
            list(batches(samples, batch_size=2, **options))


def test_a_torchvision_for_another_torch_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(side: int) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(photographs, "transforms", broken)
    monkeypatch.setattr(photographs, "unfit", photographs.unfit.__wrapped__)
    (problem,) = ImageNet().missing(root)
    assert problem.where == "torchvision"
    assert problem.what.startswith(f"does not fit torch {version('torch')}: operator ")
    assert problem.fix.startswith("pip install --upgrade torch torchvision")
    with pytest.raises(DataError, match="pip install"):
        ImageNet().open(root, seed=0, T=4)
