"""Images of a user: layouts, splits, odd files, and what is recorded of them."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rmploss import recipes
from rmploss.data import Key, _class_folders, _own_folder, batches
from rmploss.data.folder import Folder
from rmploss.data.imagenet import ImageNet
from rmploss.data.images import in_mode
from rmploss.data.photographs import MEAN, STD
from rmploss.engine.build import check, make_dataset
from rmploss.engine.own_data import changes_for, settle
from rmploss.engine.train import train
from rmploss.errors import DataError, UserError
from tests.engine.runs import TINY

CLASSES = ("bird", "cat", "dog")


def picture(shade: int, number: int, size: tuple[int, int] = (20, 12)) -> Image.Image:
    """A wide picture of one shade, with a number in its first pixel."""
    pixels = np.full((size[1], size[0], 3), shade, np.uint8)
    pixels[0, 0] = number
    return Image.fromarray(pixels)


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """`tmp_path/pets/{train,test}/CLASS/N.png`: 4 + 2 images of each class."""
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        for label, name in enumerate(CLASSES):
            for number in numbers:
                place = tmp_path / "pets" / split / name / f"{number}.png"
                save(place, picture(40 + 80 * label, number))
    return tmp_path / "pets"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """`tmp_path/flat/CLASS/N.png`: 30 images of each class, to be split."""
    for label, name in enumerate(CLASSES):
        for number in range(30):
            save(tmp_path / "flat" / name / f"{number}.png", picture(40 + 80 * label, number))
    return tmp_path / "flat"


def data(path: Path, **options: Any) -> Folder:
    return Folder(path=str(path), size=8, **options)


def test_both_splits_of_class_folders(pets: Path) -> None:
    splits = data(pets).open(None, seed=0, T=1)
    assert splits.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert splits.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for index, label in enumerate(splits.test.labels.tolist()):
        x, same = splits.test[Key(0, index)]
        assert (x.shape, x.dtype, same) == ((3, 8, 8), torch.float32, label)
        pixels = 255 * (x * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1))
        # The first pixel was cropped away: the picture is wider than high.
        torch.testing.assert_close(pixels, torch.full((3, 8, 8), 40.0 + 80 * label))


@pytest.mark.parametrize(("first", "second"), [("Train", "val"), ("training", "validation")])
def test_other_names_of_the_splits(pets: Path, first: str, second: str) -> None:
    (pets / "train").rename(pets / "x").rename(pets / first)
    (pets / "test").rename(pets / second)
    assert len(data(pets).open(None, seed=0, T=1).test) == 6


def test_a_split_by_share_moves_nothing_when_images_come(flat: Path) -> None:
    def tested() -> set[str]:
        _, test = data(flat)._listed(None)
        return {file.relative_to(flat).as_posix() for file in test.files}

    before = tested()
    # 90 draws with p = 0.2: 18 +- 5 standard deviations of 3.8.
    assert 0 < len(before) < 18 + 19
    assert before == {
        f"{name}/{number}.png"
        for name in CLASSES
        for number in range(30)
        if int(hashlib.sha256(f"{name}/{number}.png".encode()).hexdigest()[:16], 16) < 0.2 * 2**64
    }
    for number in range(30, 50):
        save(flat / "bird" / f"{number}.png", picture(1, number))
    assert {name for name in tested() if int(Path(name).stem) < 30} == before


def test_at_access_and_in_memory_are_the_same_pixels(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    within = data(pets).open(None, seed=3, T=1)
    monkeypatch.setattr(_own_folder, "MEMORY_BYTES", 0)
    outside = data(pets).open(None, seed=3, T=1)
    options: dict[str, Any] = {"epoch": 2, "seed": 3, "shuffle": True, "drop_last": False}
    for one, other in ((within.train, outside.train), (within.test, outside.test)):
        assert one.labels.tolist() == other.labels.tolist()
        pairs = zip(
            batches(one, batch_size=5, **options),
            batches(other, batch_size=5, workers=1, **options),
            strict=True,
        )
        for (x, labels), (y, same) in pairs:
            assert torch.equal(x, y)
            assert torch.equal(labels, same)


def test_random_crops_are_those_of_imagenet(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageNet, "num_classes", 3)
    (tmp_path / "imagenet").symlink_to(pets)
    (pets / "test").rename(pets / "val")
    ours = Folder(path=str(pets), size=224, augment="random-crop").open(None, seed=1, T=1)
    theirs = ImageNet().open(tmp_path, seed=1, T=1)
    for one, other in ((ours.train, theirs.train), (ours.test, theirs.test)):
        assert torch.equal(one[Key(2, 3)][0], other[Key(2, 3)][0])


def test_a_file_is_read_as_the_test_split(pets: Path) -> None:
    for augment in ("standard", "random-crop"):
        kind = data(pets, augment=augment)
        x, _ = kind.open(None, seed=0, T=1).test[Key(0, 2)]
        assert torch.equal(kind.read(pets / "test" / "cat" / "4.png", 1), x)


@pytest.mark.parametrize("augment", ["standard", "crop", "autoaugment+cutout", "none"])
def test_training_images_are_augmented(flat: Path, augment: str) -> None:
    train = data(flat, augment=augment).open(None, seed=0, T=1).train
    x = torch.stack([train[Key(0, index)][0] for index in range(len(train))])
    y = torch.stack([train[Key(1, index)][0] for index in range(len(train))])
    assert torch.equal(x, y) == (augment == "none")


def test_gray_images_have_one_channel(pets: Path) -> None:
    kind = data(pets, color="gray")
    x, _ = kind.open(None, seed=0, T=1).train[Key(0, 0)]
    assert x.shape == kind.shape(1) == (1, 8, 8)


def odd_images() -> Iterator[tuple[str, Image.Image, int]]:
    """Name, image and the gray value that it shows."""
    yield "l.png", Image.new("L", (9, 9), 100), 100
    yield "cmyk.jpg", Image.new("CMYK", (9, 9), (0, 0, 0, 155)), 100
    yield "sixteen.png", Image.fromarray(np.full((9, 9), 100 << 8, np.uint16)), 100
    yield "bits.png", Image.new("1", (9, 9), 1), 255
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, 100, 100, 100])
    yield "palette.png", palette, 100
    clear = palette.copy()
    clear.info["transparency"] = 1
    yield "clear.png", clear, 255
    yield "transparent.png", Image.new("RGBA", (9, 9), (7, 7, 7, 0)), 255
    yield "half.png", Image.new("LA", (9, 9), (0, 128)), 127
    yield "animated.gif", Image.new("L", (9, 9), 100), 100


@pytest.mark.parametrize(
    ("name", "image", "gray"), [*odd_images()], ids=lambda value: str(value)[:12]
)
def test_odd_images_show_what_viewers_show(
    pets: Path, name: str, image: Image.Image, gray: int
) -> None:
    save(pets / "test" / "dog" / name, image)
    stored = data(pets).stored(pets / "test" / "dog" / name)
    assert stored.shape == (3, 8, 8)
    # JPEG and CMYK round to the nearest of 256 twice.
    assert (stored.int() - gray).abs().max() <= 2
    assert len(data(pets).open(None, seed=0, T=1).test) == 7


def test_an_image_is_turned_as_its_exif_record_says(pets: Path) -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    path = pets / "test" / "dog" / "turned.png"
    image.save(path, exif=exif)
    stored = data(pets).stored(path)
    assert stored[0, :, 4:].min() == 255
    assert stored[0, :, :4].max() == 0


def test_floats_are_refused() -> None:
    with pytest.raises(DataError, match="floats"):
        in_mode(Image.new("F", (2, 2)), "L")


def test_floats_in_a_file_are_refused_with_its_name(pets: Path) -> None:
    odd = pets / "train/cat/depth.tiff"
    save(odd, Image.fromarray(np.ones((20, 20), np.float32)))
    with pytest.raises(DataError, match=r"depth\.tiff: its pixels are floats"):
        Folder(path=str(pets)).open(None, seed=0, T=1)


def test_a_pipe_in_the_place_of_an_image_is_named_and_not_waited_for(pets: Path) -> None:
    os.mkfifo(pets / "train/cat/pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: is no regular file"):
        Folder(path=str(pets)).open(None, seed=0, T=1)


def test_links_hidden_and_other_files(pets: Path, tmp_path: Path) -> None:
    birds = pets / "train" / "bird"
    save(tmp_path / "elsewhere" / "10.png", picture(1, 10))
    (birds / "link.png").symlink_to(tmp_path / "elsewhere" / "10.png")
    (birds / "below").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(birds)
    (birds / ".hidden.png").write_bytes(b"")
    (birds / "notes.txt").write_text("no image")
    (pets / "train" / ".git").mkdir()
    (pets / "train" / "list.csv").write_text("")
    assert data(pets).settled(None)["classes"] == CLASSES
    assert data(pets).open(None, seed=0, T=1).train.labels.bincount().tolist() == [6, 4, 4]


def test_broken_images_are_named_together(pets: Path) -> None:
    birds = pets / "train" / "bird"
    good = (birds / "0.png").read_bytes()
    (birds / "1.png").write_bytes(good[:40])
    (birds / "2.png").write_text("<html>")
    (birds / "3.png").unlink()
    (birds / "3.png").symlink_to("nowhere.png")
    with pytest.raises(DataError) as caught:
        data(pets).open(None, seed=0, T=1)
    assert caught.value.title == "3 of 18 images cannot be read"
    assert [Path(p.where).name for p in caught.value.problems] == ["1.png", "2.png", "3.png"]
    assert caught.value.problems[2].what == "no such file"


def test_many_broken_images_are_counted(flat: Path) -> None:
    for file in (flat / "cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="30 of 90 images") as caught:
        data(flat).open(None, seed=0, T=1)
    assert len(caught.value.problems) == _class_folders.MOST_SHOWN + 1
    assert caught.value.problems[-1].what == "and 20 more"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda pets: (pets / "test").rename(pets.parent / "x"), "but no folder test or val"),
        (lambda pets: (pets / "train").rename(pets.parent / "x"), "but no folder train"),
        (lambda pets: (pets / "test" / "cow").mkdir(), "cow: a class that train lacks"),
        (lambda pets: (pets / "train" / "cow").mkdir(), "cow: an empty class: no images"),
        (lambda pets: pets.rename(pets.parent / "x"), "pets: no such folder"),
    ],
)
def test_layouts_that_are_refused(pets: Path, spoil: Any, message: str) -> None:
    spoil(pets)
    assert data(pets).settled(None) == {}
    with pytest.raises(DataError, match=message):
        data(pets).open(None, seed=0, T=1)


def test_images_without_classes(tmp_path: Path) -> None:
    save(tmp_path / "loose" / "1.png", picture(1, 1))
    (problem,) = data(tmp_path / "loose").missing(None)
    assert "images directly in it, whose classes are not known" in problem.what
    (problem,) = data(tmp_path / "loose" / "1.png").missing(None)
    assert problem.what == "no such folder, but a file"


def test_a_share_that_leaves_nothing(flat: Path) -> None:
    with pytest.raises(DataError, match="no file trains"):
        data(flat, test_share=0.999999).open(None, seed=0, T=1)
    with pytest.raises(DataError, match="no file tests"):
        data(flat, test_share=1e-9).open(None, seed=0, T=1)
    with pytest.raises(UserError, match=r"must lie in \(0, 1\)"):
        Folder(test_share=1.0)


def test_what_may_not_be_meant(pets: Path) -> None:
    assert data(pets).notes(None) == []
    twin = pets / "test" / "bird" / "again.png"
    twin.write_bytes((pets / "train" / "cat" / "0.png").read_bytes())
    for file in (pets / "test" / "dog").iterdir():
        file.unlink()
    untested, twins = data(pets).notes(None)
    assert untested == "no file tests the class dog"
    assert twins.startswith("1 test files are training files, too, first ")
    assert twins.endswith(f"cat/0.png and {twin}")


def test_the_classes_are_those_of_the_run(pets: Path) -> None:
    recipe = settle(TINY.but(data=recipes.use("folder", path=str(pets), size=8)), None)
    assert recipe.data.options["classes"] == CLASSES
    assert make_dataset(recipe).num_classes == 3
    assert settle(recipe, None) == recipe
    save(pets / "train" / "cow" / "1.png", picture(1, 1))
    with pytest.raises(UserError, match="has 4 classes, the recipe 3, first 'cow'"):
        check(recipe)


def test_a_folder_that_moved_is_found_by_the_data_root(pets: Path, tmp_path: Path) -> None:
    recipe = settle(TINY.but(data=recipes.use("folder", path=str(pets), size=8)), None)
    (tmp_path / "new").mkdir()
    pets.rename(tmp_path / "new" / "pets")
    with pytest.raises(UserError, match="no such folder"):
        check(recipe)
    check(recipe, tmp_path / "new")
    assert Folder(path="pets").settled(tmp_path / "new")["path"] == "pets"


def test_a_run_records_the_classes_and_says_once_what_it_noticed(
    pets: Path, tmp_path: Path
) -> None:
    (pets / "test" / "cat" / "4.png").write_bytes((pets / "train" / "cat" / "0.png").read_bytes())
    changes = {"train_samples": None, "test_samples": None, "batch_size": 4, "epochs": 1}
    recipe = recipes.override(TINY, changes | changes_for(TINY, str(pets)))
    path = train(recipe, tmp_path / "runs")
    stored = json.loads((path / "recipe.json").read_text())["recipe"]["data"]
    expected = {"path": str(pets), "size": 8, "classes": list(CLASSES)}
    assert {name: stored["options"][name] for name in expected} == expected
    events = (path / "events.jsonl").read_text()
    assert events.count("1 test files are training files") == 1


def test_a_folder_takes_the_place_of_any_data() -> None:
    cifar = recipes.get("cifar10-resnet20-rmp")
    expected = {"data": "folder", "data.path": "p", "data.size": 32}
    assert changes_for(cifar, "p") == expected | {"data.augment": "autoaugment+cutout"}
    large = changes_for(recipes.get("imagenet-resnet18-rmp"), "p")
    assert large == {"data": "folder", "data.path": "p", "data.size": 224} | {
        "data.augment": "random-crop"
    }
    assert changes_for(recipes.get("images-resnet20"), "p") == {"data.path": "p"}
