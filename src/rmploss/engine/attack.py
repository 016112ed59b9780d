"""Attack the network of a run on the pixels of its test images (`analysis.robustness`)."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rmploss.analysis.robustness import STEPS, Robustness, robustness
from rmploss.data import InMemory, Samples, Standardize, data_root, prepared, take
from rmploss.engine.batches import open_splits
from rmploss.engine.build import check, make_dataset
from rmploss.engine.distributed import World
from rmploss.engine.execution import join
from rmploss.engine.listener import Listener
from rmploss.engine.load import (
    OnOlder,
    OnOtherData,
    load_network,
    tell_of_other_data,
    warn_of_older,
    warn_of_other_data,
)
from rmploss.errors import Problem, UserError
from rmploss.models import SpikingNetwork
from rmploss.recipes import Recipe

BATCH = 100
"""Images that are attacked at once."""
LISTED = 5
"""Classes that an error names."""


class OfPixels(nn.Module):
    """A network as a function of pixels in [0, 1], so that an attack counts in pixels.

    In float32, whatever the precision of training: in float16 the gradients of images that are
    classified surely are 0, which would be taken for robustness.

    net: takes standardized inputs.
    standardize: makes these of stored images.
    """

    def __init__(self, net: SpikingNetwork, standardize: Standardize) -> None:
        super().__init__()
        self.net, self.standardize = net, standardize

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, K]` of pixels `[B, C, H, W]`."""
        return self.net(self.standardize(x * self.standardize.white))


def attack_run(
    run_dir: str | Path,
    eps: Sequence[float],
    *,
    source: str | Path | None = None,
    samples: int | None = None,
    steps: int = STEPS,
    which: Literal["last", "best"] = "last",
    data_dir: Path | None = None,
    device: str = "auto",
    on_older: OnOlder = warn_of_older,
    on_other_data: OnOtherData = warn_of_other_data,
) -> list[Robustness]:
    """The accuracies of a run's network under attacks, in float32, one result for each size.

    run_dir, which, on_older: see `load_network`.
    eps: the largest changes of a pixel, see `robustness`.
    source: another run on the same data, undamaged, for transferred images; None: none. Its
        network gets them standardized as in its training.
    samples: the size of a class-balanced subset of the test images; None: all of the run's.
    steps: of PGD.
    data_dir, device: see `Execution`.
    on_other_data: called if the test images are not those of the run; warns by default.

    Raises `UserError`, also for data that are no images in memory, `CheckpointError` as
    `load_network`.
    """
    if source is not None and Path(source).resolve() == Path(run_dir).resolve():
        problem = Problem(str(source), "is the attacked run", "a run of another seed, or method")
        raise UserError("images of another network are needed", [problem])
    net, recipe = load_network(run_dir, which, on_older=on_older)
    other = None
    if source is not None:
        other = load_network(source, which, on_older=partial(_refuse_older, str(source)))
        _require_same_data(str(source), other[1], recipe)
        _require_another(str(source), other[0], net)
    with join(device) as world:
        if world.size > 1:
            problem = Problem(f"{world.size} ranks", "are not supported", "start without torchrun")
            raise UserError("an attack runs in one process", [problem])
        check(recipe, data_root(data_dir))
        (train, images), model = _of_pixels(net, recipe, data_dir, world)
        tell_of_other_data(run_dir, recipe, (train, images), on_other_data)
        theirs = None if other is None else _of_pixels(*other, data_dir, world)[1]
        chosen = take(images, samples)
        assert isinstance(chosen, InMemory)
        pixels = _batches(chosen, model.standardize.white)
        return robustness(model, pixels, eps, source=theirs, steps=steps)


def _refuse_older(source: str, taken: str, reasons: Sequence[Problem]) -> None:
    """Raise `UserError` for a source whose checkpoint is damaged."""
    problem = Problem(source, f"can be read at {taken} alone", "a run that `rmploss verify` passes")
    raise UserError("images of another network are needed", [problem, *reasons])


def _require_same_data(source: str, other: Recipe, recipe: Recipe) -> None:
    """Raise `UserError` if images of one run are none of the other, or have other labels."""
    sets = [make_dataset(each) for each in (other, recipe)]
    known = [
        (d.name, d.num_classes, d.shape(r.T)) for d, r in zip(sets, (other, recipe), strict=True)
    ]
    names = [tuple(data.classes) for data in sets]
    if known[0] == known[1] and names[0] == names[1]:
        return
    was, should = (
        f"{name}, {K} classes ({_listed(classes)}), {shape}"
        for (name, K, shape), classes in zip(known, names, strict=True)
    )
    problem = Problem(source, f"was trained on {was}", f"a run on {should}")
    raise UserError("images of other data cannot be transferred", [problem])


def _listed(classes: Sequence[str]) -> str:
    """The first names of classes."""
    return ", ".join([*classes[:LISTED], "..."][: len(classes)]) or "without names"


def _require_another(source: str, other: SpikingNetwork, net: SpikingNetwork) -> None:
    """Raise `UserError` if both networks are one, as of a copy: nothing would be transferred."""
    first, second = other.state_dict(), net.state_dict()
    if first.keys() == second.keys() and all(map(torch.equal, first.values(), second.values())):
        problem = Problem(source, "holds the attacked network", "a run of another seed, or method")
        raise UserError("images of another network are needed", [problem])


def _of_pixels(
    net: SpikingNetwork, recipe: Recipe, data_dir: Path | None, world: World
) -> tuple[tuple[Samples, InMemory], OfPixels]:
    """The splits with images as they are stored, and the network as a function of their pixels."""
    train, test = open_splits(recipe, make_dataset(recipe), data_dir, Listener(), world.device)
    standardize = getattr(getattr(test, "prepare", None), "standardize", None)
    if not isinstance(test, InMemory) or not isinstance(standardize, Standardize):
        what = "has no pixels in memory that could be changed"
        fix = "a run on images: cifar10, cifar100, digits"
        raise UserError("cannot attack", [Problem(f"data set {recipe.data.name}", what, fix)])
    first = test.stored[:1]
    inputs, expected = prepared(test.prepare, first[0]), standardize(first)[0]
    if inputs.shape != expected.shape or not torch.equal(inputs, expected):
        what = "prepares images by more than their standardization, which is all an attack repeats"
        raise UserError("cannot attack", [Problem(f"data set {recipe.data.name}", what)])
    return (train, test), OfPixels(net, standardize).to(world.device)


def _batches(images: InMemory, white: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(pixels in [0, 1], labels), `BATCH` images at a time."""
    stored, labels = images.stored.split(BATCH), images.labels.split(BATCH)
    for some, theirs in zip(stored, labels, strict=True):
        yield some.to(torch.float32) / white, theirs
