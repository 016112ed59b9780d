"""AutoAugment on batches against PIL, called as torchvision and as the family do: equal pixels."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from rmploss.data import DATASETS
from rmploss.data._autoaugment import BINS, CIFAR10, FAMILY, FILL, AutoAugment, Reading
from rmploss.data._draws import below, draw, threshold
from rmploss.data._in_memory import InMemory

SIDE = 32
THEIRS: Any = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=(FILL,) * 3)
SPACE = THEIRS._AUGMENTATION_SPACE


@cache
def _images() -> Tensor:
    """Noise, and images of few values: one, two, a narrow range, nearly all the same."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (24, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    plain = torch.full((2, 3, SIDE, SIDE), 7, dtype=torch.uint8)
    plain[1, 0, :4] = 9
    few = [
        noise[:6] // 32 + 100,
        (noise[:4] > 200) * 37,
        torch.where(noise[:6] > 250, noise[:6], 5),
    ]
    return torch.cat([noise, plain, *(x.to(torch.uint8) for x in few)])


def _theirs(x: Tensor, name: str, number: int | None, sign: int) -> Tensor:
    """torchvision's operation on each image."""
    magnitudes = SPACE[name][0](BINS, SIDE, SIDE)
    magnitude = 0.0 if number is None else sign * float(magnitudes[number])
    changed = [
        THEIRS._apply_image_or_video_transform(
            Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()),
            name,
            magnitude,
            interpolation=v2.InterpolationMode.NEAREST,
            fill=THEIRS._fill,
        )
        for image in x
    ]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in changed])


def _check_operation(x: Tensor, name: str) -> None:
    """One operation at every magnitude and sign."""
    find, signed = SPACE[name]
    numbers = [None] if find(BINS, SIDE, SIDE) is None else range(BINS)
    for number in numbers:
        ours = AutoAugment(SIDE, [((name, 1.0, number), (name, 1.0, number))])
        for negative in range(1 + signed):
            expected = _theirs(x, name, number, -1 if negative else 1)
            code = ours.chosen[0][negative].expand(len(x))
            for grouped in (False, True):
                found = ours.operate(x.flatten(2), code, grouped).view(x.shape)
                assert torch.equal(found, expected), (name, number, negative, grouped)


@pytest.mark.parametrize("name", SPACE)
def test_an_operation_has_the_pixels_of_torchvision(name: str) -> None:
    _check_operation(_images(), name)


@pytest.fixture(scope="module")
def photographs(real_data_root: Path) -> Tensor:
    """A hundred images of CIFAR-10."""
    train = DATASETS.make("cifar10", augment="none").open(real_data_root, seed=0, T=1).train
    assert isinstance(train, InMemory)
    return train.stored[::500]


@pytest.mark.real_data
@pytest.mark.parametrize("name", SPACE)
def test_an_operation_has_the_pixels_of_torchvision_on_cifar10(
    name: str, photographs: Tensor
) -> None:
    _check_operation(photographs, name)


def test_the_policy_is_that_of_torchvision() -> None:
    assert list(CIFAR10) == THEIRS._policies


def test_a_policy_is_two_operations_by_chance_the_second_after_the_first() -> None:
    """Every sample of a batch against its own draws, operation by operation."""
    x = _images()[:24].repeat(20, 1, 1, 1)
    words = draw(3, torch.tensor(0), torch.arange(len(x)), AutoAugment.DRAWS)
    found = AutoAugment(SIDE)(x, words)
    kinds = set()
    for image, word, result in zip(x[::4], words.T[::4], found[::4], strict=True):
        expected = image.unsqueeze(0)
        for slot, (name, probability, number) in enumerate(CIFAR10[int(below(word[0], 25))]):
            if int(word[1 + 2 * slot]) < threshold(probability):
                negative = int(below(word[2 + 2 * slot], 2)) and SPACE[name][1]
                expected = _theirs(expected, name, number, -1 if negative else 1)
                kinds.add(name)
        assert torch.equal(result, expected[0])
    assert kinds == {name for steps in CIFAR10 for name, _, _ in steps}


def test_grouping_by_operation_changes_no_pixel() -> None:
    x, policy = _images(), AutoAugment(SIDE)
    words = draw(4, torch.tensor(0), torch.arange(len(x)), AutoAugment.DRAWS)
    assert torch.equal(policy(x, words, grouped=True), policy(x, words, grouped=False))
    assert policy(x[:0], words[:, :0]).shape == (0, 3, SIDE, SIDE)


# The operations as the family's port calls PIL, each of an image and a magnitude with its sign.
GRAY = (FILL,) * 3
RANGES = {
    "ShearX": np.linspace(0, 0.3, BINS), "ShearY": np.linspace(0, 0.3, BINS),
    "TranslateX": np.linspace(0, 150 / 331, BINS), "TranslateY": np.linspace(0, 150 / 331, BINS),
    "Rotate": np.linspace(0, 30, BINS), "Posterize": np.linspace(8, 4, BINS).round().astype(int),
    "Solarize": np.linspace(256, 0, BINS),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), np.linspace(0, 0.9, BINS)),
}  # fmt: skip
UNSIGNED = ("Rotate", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")


def _affine(image: Image.Image, matrix: tuple[float, ...], resample: int) -> Image.Image:
    how = Image.Transform.AFFINE
    return image.transform(image.size, how, matrix, Image.Resampling(resample), fillcolor=GRAY)


def _rotated(image: Image.Image, angle: float) -> Image.Image:
    turned = image.convert("RGBA").rotate(angle)
    gray = Image.new("RGBA", turned.size, (FILL,) * 4)
    return Image.composite(turned, gray, turned).convert(image.mode)


FAMILY_OPERATIONS: dict[str, Any] = {
    "ShearX": lambda i, m: _affine(i, (1, m, 0, 0, 1, 0), Image.Resampling.BICUBIC),
    "ShearY": lambda i, m: _affine(i, (1, 0, 0, m, 1, 0), Image.Resampling.BICUBIC),
    "TranslateX": lambda i, m: _affine(i, (1, 0, m * SIDE, 0, 1, 0), Image.Resampling.NEAREST),
    "TranslateY": lambda i, m: _affine(i, (1, 0, 0, 0, 1, m * SIDE), Image.Resampling.NEAREST),
    "Rotate": _rotated,
    "Posterize": lambda i, m: ImageOps.posterize(i, int(m)),
    "Solarize": lambda i, m: ImageOps.solarize(i, m),
    "AutoContrast": lambda i, m: ImageOps.autocontrast(i),
    "Equalize": lambda i, m: ImageOps.equalize(i),
    "Invert": lambda i, m: ImageOps.invert(i),
    "Brightness": lambda i, m: ImageEnhance.Brightness(i).enhance(1 + m),
    "Color": lambda i, m: ImageEnhance.Color(i).enhance(1 + m),
    "Contrast": lambda i, m: ImageEnhance.Contrast(i).enhance(1 + m),
    "Sharpness": lambda i, m: ImageEnhance.Sharpness(i).enhance(1 + m),
}


def _check_family(x: Tensor, name: str) -> None:
    """One operation of the family at every magnitude and sign."""
    reading: Reading = "family"
    for number in [*range(BINS)] if name in RANGES else [None]:
        step = (name, 1.0, number)
        ours = AutoAugment(SIDE, [(step, step)], reading)
        for negative in (0, 1):
            magnitude = 0.0 if number is None else float(RANGES[name][number])
            # The port's sign of a translation is that of its matrix: both signs are drawn.
            sign = 1 if name in UNSIGNED or (not negative) else -1
            sign = -sign if name.startswith("Translate") else sign
            expected = torch.stack(
                [
                    torch.from_numpy(
                        np.array(
                            FAMILY_OPERATIONS[name](
                                Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()),
                                sign * magnitude,
                            )
                        )
                    ).permute(2, 0, 1)
                    for image in x
                ]
            )
            code = ours.chosen[0][negative].expand(len(x))
            for grouped in (False, True):
                found = ours.operate(x.flatten(2), code, grouped).view(x.shape)
                assert torch.equal(found, expected), (name, number, negative, grouped)


@pytest.mark.parametrize("name", FAMILY_OPERATIONS)
def test_an_operation_of_the_family_has_the_pixels_of_its_port(name: str) -> None:
    _check_family(_images(), name)


@pytest.mark.real_data
@pytest.mark.parametrize("name", FAMILY_OPERATIONS)
def test_an_operation_of_the_family_has_its_pixels_on_cifar10(
    name: str, photographs: Tensor
) -> None:
    _check_family(photographs, name)


def test_the_policy_of_the_family_differs_in_one_probability() -> None:
    different = [row for row in range(25) if FAMILY[row] != CIFAR10[row]]
    assert different == [16]
    assert FAMILY[16] == (("Equalize", 0.2, None), ("Equalize", 0.8, None))


def test_grouping_changes_no_pixel_of_the_family_either() -> None:
    x, policy = _images().repeat(4, 1, 1, 1), AutoAugment(SIDE, reading="family")
    words = draw(4, torch.tensor(0), torch.arange(len(x)), AutoAugment.DRAWS)
    found = policy(x, words, grouped=True)
    assert torch.equal(found, policy(x, words, grouped=False))
    assert not torch.equal(found, AutoAugment(SIDE)(x, words))


@pytest.mark.real_data
def test_a_data_set_has_the_policy_that_it_names(real_data_root: Path) -> None:
    for policy in ("torchvision", "family"):
        train = DATASETS.make("cifar10", policy=policy).open(real_data_root, seed=0, T=1).train
        assert isinstance(train, InMemory)
        assert getattr(train.prepare, "autoaugment").is_cubic == (policy == "family")  # noqa: B009
