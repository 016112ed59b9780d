"""What every contestant computes: our network with its weights, and one batch of images."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rmploss.randomness import generator, seeded
from rmploss_bench.blueprint import Blueprint, Shape, blueprint_of, classes_of, image_of
from rmploss_bench.conditions import Conditions


@dataclass(frozen=True)
class Workload:
    """A network and a batch under given conditions.

    conditions: what the rest was made from.
    net: our network in training mode. It is never trained itself: every contestant takes a copy.
    images: `[B, 3, H, W]` float32, dimensionless.
    labels: `[B]`, class numbers.
    source: where the images come from, in words.
    """

    conditions: Conditions
    net: nn.Module
    images: Tensor
    labels: Tensor
    source: str

    @property
    def blueprint(self) -> Blueprint:
        """The network as plain data."""
        return blueprint_of(self.conditions.network)

    @property
    def image(self) -> Shape:
        """Channels, height and width of an image."""
        return image_of(self.conditions.network)

    @property
    def state(self) -> dict[str, Tensor]:
        """The weights that every contestant starts with, by name."""
        return self.net.state_dict()


def make_workload(conditions: Conditions, *, calibrated: bool = True) -> Workload:
    """The workload of the conditions; the same in every process, since all randomness is seeded.

    conditions: network, size, device, data and seed.
    calibrated: set the running statistics of the norms, which only evaluation uses, from the batch.
    """
    from rmploss import models

    with seeded(conditions.seed, "bench weights"):
        classes = classes_of(conditions.network)
        options = {"num_classes": classes, "T": conditions.T, "width": conditions.width}
        net = models.create(conditions.network, **options)
    images, labels, source = _batch(conditions)
    device = torch.device(conditions.device)
    workload = Workload(conditions, net.to(device), images.to(device), labels.to(device), source)
    if calibrated:
        _calibrate(workload)
    return workload


def _batch(conditions: Conditions) -> tuple[Tensor, Tensor, str]:
    """The first test images of CIFAR-10 if they are here, else seeded noise of their statistics."""
    from rmploss.data import DATASETS, Key

    image, classes = image_of(conditions.network), classes_of(conditions.network)
    if conditions.data_dir and classes == 10:
        data = DATASETS.make("cifar10")
        test = data.open(Path(conditions.data_dir), seed=0, T=conditions.T).test
        if conditions.batch <= len(test):
            pairs = [test[Key(0, index)] for index in range(conditions.batch)]
            images = torch.stack([image for image, _ in pairs])
            return images, torch.tensor([label for _, label in pairs]), "CIFAR-10 test images"
    random = generator(conditions.seed, "bench images")
    images = torch.randn(conditions.batch, *image, generator=random)
    labels = torch.randint(classes, (conditions.batch,), generator=random)
    return images, labels, "seeded noise"


def _calibrate(workload: Workload) -> None:
    """Set the running statistics to those of the batch, so that evaluation fires as training does.

    They start at mean 0 and variance 1. With these a network that was never trained fires never or
    always, and the time of an event-driven convolution would mean nothing.
    """
    from rmploss.norm import TDBatchNorm2d

    norms = [module for module in workload.net.modules() if isinstance(module, TDBatchNorm2d)]
    before = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        workload.net.train()(workload.images)
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
