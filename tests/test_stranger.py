"""Own photographs, from the command line to ONNX Runtime on one image, as the documents show it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rmploss
from rmploss.data.cifar import CIFAR10

DOCS = Path(__file__).parent.parent / "docs"
CLASSES = {"cat": 3, "dog": 5}
COUNTS = {"train": 40, "test": 8}

pytest.importorskip("onnxruntime", reason="pip install 'rmploss[export]'")


def photographs(label: int) -> Iterator[Image.Image]:
    """Images of a class of CIFAR-10 where RMPLOSS_DATA has it, else noise, bright for a class."""
    if (root := os.environ.get("RMPLOSS_DATA")) and not CIFAR10().missing(Path(root)):
        test: Any = CIFAR10().open(Path(root), seed=0, T=1).test
        for image in test.stored[test.labels == label]:
            yield Image.fromarray(image.permute(1, 2, 0).numpy())
    draw = np.random.default_rng(label)
    while True:
        yield Image.fromarray((draw.integers(0, 128, (32, 32, 3)) + 20 * label).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder my_photos of docs/your-data.md: JPEGs, some of them larger and not square."""
    for name, label in CLASSES.items():
        images = photographs(label)
        for split, count in COUNTS.items():
            for number in range(count):
                file = tmp_path / "my_photos" / split / name / f"{number}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                image = next(images)
                if number % 4 == 3:
                    image = image.resize((75, 50), Image.Resampling.BICUBIC)
                image.save(file, quality=95)
    return tmp_path


def typed(command: str, folder: Path) -> str:
    """The output of a command; `rmploss` is that of this environment."""
    words = [sys.executable, *command.split()]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_photographs_to_another_program(folder: Path) -> None:
    commands = re.findall(
        r"^    rmploss (.*)$", (DOCS / "your-data.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    (train,) = [each for each in commands if each.startswith("train images-resnet20-rmp --data")]
    predict, export = (next(c for c in commands if c.startswith(v)) for v in ("predict", "export"))
    typed(f"-m rmploss {train} --width 0.0625 --batch-size 8", folder)
    (run,) = (folder / "runs").iterdir()
    guessed = typed(f"-m rmploss {predict.replace('NAME', run.name)}", folder)
    said = typed(f"-m rmploss {export.replace('NAME', run.name)}", folder)
    assert re.search(r"model\.onnx .*, 0 of \d+ spikes differ", said)

    blocks = re.findall(r"```py\n(.*?)```", (DOCS / "deploy.md").read_text("utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "onnxruntime" in block]
    assert "rmploss." not in example.replace('f"rmploss.{name}"', "")  # a program without us
    program = folder / "program.py"
    program.write_text(f"{example.replace('NAME', run.name)}np.save('logits', logits)\n")
    (printed,) = typed("program.py", folder).splitlines()

    (name,) = re.findall(r"exports/NAME/.*|my_photos/\S+\.jpg", example)[1:]
    net = rmploss.load(run)
    expected = net.logits(net.read(folder / name))
    found = torch.from_numpy(np.load(folder / "logits.npy"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert printed == net.classes[int(expected.argmax())]
    assert guessed.split()[1] == printed or printed in guessed.splitlines()[0]
