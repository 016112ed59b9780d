"""What docs/your-data.md shows can be typed as it stands, on a folder of images of CIFAR's size."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from rmploss import models, plugins, register
from rmploss.cli import main
from rmploss.data.cifar import CIFAR10

DOCUMENT = (Path(__file__).parent.parent / "docs" / "your-data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    rmploss (.*)$", DOCUMENT, re.MULTILINE)
SMALL = "--width 0.0625 --T 1 --batch-size 4"
CLASSES = ("cat", "dog", "ship")


def pictures() -> Iterator[Image.Image]:
    """Images of CIFAR-10 where RMPLOSS_DATA has it, else noise of their size."""
    if (root := os.environ.get("RMPLOSS_DATA")) and not CIFAR10().missing(Path(root)):
        stored: Any = CIFAR10().open(Path(root), seed=0, T=1).test
        for image in stored.stored[:60]:
            yield Image.fromarray(image.permute(1, 2, 0).numpy())
    draw = np.random.default_rng(0)
    while True:
        yield Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the page names."""
    folder = tmp_path_factory.mktemp("yours")
    images = pictures()
    for place, classes in (("my_photos", CLASSES[:2]), ("other_photos", CLASSES)):
        for split, numbers in (("train", range(8)), ("test", range(3, 5))):
            for name in classes:
                for number in numbers:
                    file = folder / place / split / name / f"{number}.jpg"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    next(images).save(file)
    draw = np.random.default_rng(1)
    for name in ("clap", "wave"):
        for number in range(20):
            file = folder / "my_recordings" / name / f"{number}.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            x, y, p = (draw.integers(0, most, 50) for most in (128, 128, 2))
            np.savez(file, x=x, y=y, t=20_000 * np.arange(50), p=p)
            gesture = folder / "my_gestures" / f"{name}{number}.npz"
            gesture.parent.mkdir(exist_ok=True)
            gesture.write_bytes(file.read_bytes())
            labels = "class,startTime_usec,endTime_usec\n1,0,400000\n2,400000,980000\n"
            gesture.with_name(f"{gesture.stem}_labels.csv").write_text(labels)
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    (folder / "squares.py").write_text(code, encoding="utf-8")
    net = torchvision.models.resnet18(num_classes=5)
    torch.save(net.state_dict(), folder / "resnet18.pt")
    return folder


@pytest.fixture(autouse=True)
def nothing_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug-in is unknown before and after."""
    monkeypatch.setattr(register.dataset.registry, "_added", {})
    monkeypatch.setattr(plugins, "_named", [])
    monkeypatch.setattr(plugins, "_done", set())


def test_every_command_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert len(COMMANDS) == 13
    run = ""
    outputs = []
    for command in COMMANDS:
        words = command.replace("runs/NAME", run).split()
        if words[0] == "train":
            # The weights of torchvision fit the whole width only.
            small = "--T 1 --batch-size 4" if "resnet18.pt" in command else SMALL
            words = [*words, *small.split()]
            if "--T 4" in command:
                words = [*command.split(), "--width", "0.0625", "--batch-size", "4"]
        assert main(words) == 0, f"{command}: {capsys.readouterr().err}"
        shown = capsys.readouterr()
        outputs.append(shown.out + shown.err)
        if not run:
            (path,) = (folder / "runs").iterdir()
            run = f"runs/{path.name}"
    assert "cat" in outputs[4]
    assert "dog" in outputs[4]
    assert "model.onnx in onnxruntime" in outputs[5]
    assert "changed: data = squares" in outputs[9]
    assert "; new:" not in outputs[10]
    for started in outputs[11:]:
        assert "; new: head.layer.weight, head.layer.bias; unused: head.layer" in started


def test_the_page_names_options_that_exist() -> None:
    from rmploss.data import DATASETS

    named = set(re.findall(r"`data\.(\w+)`", DOCUMENT)) - {"Samples"}
    assert named <= {*DATASETS.options("folder"), *DATASETS.options("event-folder")}
    assert models.create("resnet18", num_classes=2, T=1, width=0.0625).frozen == ()
