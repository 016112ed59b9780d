"""A loaded network predicts as evaluation does, from files of the kind of its data."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import rmploss
from rmploss.data import DATASETS, Key, ReadsFiles
from rmploss.data.images import pixels
from rmploss.engine import train
from rmploss.engine.batches import open_splits
from rmploss.engine.distributed import World
from rmploss.engine.evaluate import evaluate
from rmploss.engine.listener import Listener
from rmploss.engine.precision import Precision, precision
from rmploss.engine.trained import Trained
from rmploss.errors import DataError, UserError
from tests.engine.runs import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits whose convolutions compute in bf16."""
    return train.train(TINY.but(amp="bf16"), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def net(run: Path) -> Trained:
    return rmploss.load(str(run))


def digits(net: Trained) -> tuple[Tensor, Tensor]:
    """The first batch of the test split."""
    _, samples = open_splits(net.recipe, net.dataset, None, Listener())
    found = [samples[Key(0, index)] for index in range(net.recipe.batch_size)]
    return torch.stack([x for x, _ in found]), torch.tensor([label for _, label in found])


def write_digits(folder: Path, x: Tensor) -> list[Path]:
    """Test samples as PNG files, 0 black and 255 white."""
    gray = x * 0.3763 + 0.3055  # undoes the normalization: 0..1 in steps of 1/16
    paths = [folder / f"{index:02}.png" for index in range(len(x))]
    for path, image in zip(paths, gray, strict=True):
        values = (image[0] * 255).round().to(torch.uint8)
        Image.fromarray(values.numpy()).save(path)
    return paths


def test_predictions_from_files_are_those_of_evaluation(net: Trained, tmp_path: Path) -> None:
    x, labels = digits(net)
    paths = write_digits(tmp_path, x)
    assert torch.equal(net.read(paths), x)
    logits = net.logits(net.read(paths))
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels)
    found = evaluate(net.net, [(x, labels)], world=World(), precision=precision_of(net))
    assert float(cross_entropy) == pytest.approx(found.loss, rel=1e-6)
    predicted = net.predict(paths, top=3)
    correct = sum(top[0].index == int(label) for top, label in zip(predicted, labels, strict=True))
    assert 100 * correct / len(labels) == pytest.approx(found.accuracy)
    probabilities = logits.softmax(1)
    for row, top in zip(probabilities, predicted, strict=True):
        assert [guess.probability for guess in top] == row.sort(descending=True).values[:3].tolist()
        assert all(guess.name == str(guess.index) for guess in top)


def precision_of(net: Trained) -> Precision:
    """The precision in which evaluation computes."""
    return precision(net.recipe, torch.device("cpu"))


def test_predictions_are_made_in_the_precision_of_the_run(net: Trained) -> None:
    x, _ = digits(net)
    with torch.no_grad():
        assert not torch.equal(net.logits(x), net(x))


def test_a_loaded_network_is_a_module_in_evaluation_mode(net: Trained, run: Path) -> None:
    assert not net.training
    assert not net.net.training
    assert net.classes == tuple("0123456789")
    assert net.recipe.name == "digits-rmp"
    assert net.source == run
    assert rmploss.load(run, checkpoint="best").recipe == net.recipe


def test_mistakes_are_told(net: Trained, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.png: no such file"):
        net.predict([tmp_path / "a.png", tmp_path / "b.png"])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match="an image cannot be read"):
        net.predict(tmp_path / "text.png")
    with pytest.raises(UserError, match="top = 0"):
        net.predict(digits(net)[0], top=0)
    with pytest.raises(UserError, match="no averaged weights"):
        rmploss.load(net.source, averaged=True)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_reads_files_of_its_kind(name: str) -> None:
    assert isinstance(DATASETS[name](), ReadsFiles)


def test_an_image_of_another_size_is_scaled_and_cropped_at_its_center() -> None:
    wide = Image.new("RGB", (96, 64))
    wide.paste((255, 0, 0), (16, 0, 80, 64))
    found = pixels(wide, 3, 32)
    assert found.shape == (3, 32, 32)
    assert int(found[0, :, 1:-1].min()) == 255  # the black margins are cut off
    assert int(found[1:].max()) == 0
    assert pixels(Image.new("L", (31, 500)), 1, 8).shape == (1, 8, 8)


def test_recorded_digits_are_those_of_the_test_split(tmp_path: Path) -> None:
    data: Any = DATASETS["digits-events"]()
    test = data.open(None, seed=0, T=3).test
    gray = DATASETS["digits"]().open(None, seed=0, T=3).test
    path = write_digits(tmp_path, torch.stack([gray[Key(0, 4)][0]]))[0]
    assert torch.equal(data.read(path, 3), test[Key(0, 4)][0])


@pytest.mark.real_data
def test_images_of_cifar10_are_those_of_the_test_split(
    real_data_root: Path, tmp_path: Path
) -> None:
    data: Any = DATASETS["cifar10"]()
    test = data.open(real_data_root, seed=0, T=4).test
    for index in (0, 77):
        stored = test.stored[index]
        Image.fromarray(stored.permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
        assert torch.equal(data.read(tmp_path / "image.png", 4), test[Key(0, index)][0])


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "pattern"), [("nmnist", "nmnist*/[Tt]est/0/*.bin")])
def test_recordings_are_those_of_the_test_split(
    name: str, pattern: str, real_data_root: Path
) -> None:
    data: Any = DATASETS[name]()
    first = sorted(real_data_root.glob(pattern))[0]
    test = data.open(real_data_root, seed=0, T=5).test
    assert torch.equal(data.read(first, 5), test[Key(0, 0)][0])


def test_what_becomes_of_an_image_is_told(net: Trained, tmp_path: Path) -> None:
    told = {}
    for name, mode, size in (
        ("gray", "L", (8, 8)),
        ("large", "L", (16, 16)),
        ("photo", "RGB", (64, 48)),
        ("cut", "RGBA", (8, 8)),
    ):
        Image.new(mode, size).save(tmp_path / f"{name}.png")
        told[name] = net.conversion(tmp_path / f"{name}.png")
    assert told == {
        "gray": "",
        "large": "16x16 pixels, scaled to 8x8",
        "photo": "64x48 pixels, scaled and cropped to 8x8, its colors made gray",
        "cut": "8x8 pixels, its colors made gray, transparent pixels made white",
    }
