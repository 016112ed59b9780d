"""From images in memory to inputs: crop, flip, AutoAugment, Cutout, normalize."""

from typing import Literal

from torch import Tensor

from rmploss.data._augment import CROP_DRAWS, CUTOUT_DRAWS, FLIP_DRAWS, crop, crop_and_flip, cutout
from rmploss.data._autoaugment import AutoAugment, Reading
from rmploss.data._in_memory import Prepare, Standardize

Augment = Literal["autoaugment+cutout", "standard", "crop", "none"]


class PrepareImages(Prepare):
    """uint8 images `[B, C, side, side]` -> float32 of mean 0 and variance 1, augmented.

    augment: "standard" crops after a padding of an eighth of the side, and flips; "crop" does not
        flip; "autoaugment+cutout" adds AutoAugment, for 3 channels, and holes of half the side.
    standardize: the last step.
    side: in pixels.
    policy: whose AutoAugment.
    """

    def __init__(
        self,
        augment: Augment,
        standardize: Standardize,
        side: int = 32,
        policy: Reading = "torchvision",
    ) -> None:
        super().__init__()
        self.standardize = standardize
        self.flips = augment != "crop"
        self.pad, self.hole = side // 8, side // 4 * 2
        has_policy = augment == "autoaugment+cutout"
        self.autoaugment = AutoAugment(side, reading=policy) if has_policy else None
        self.moves = CROP_DRAWS + FLIP_DRAWS * self.flips
        self.draws = {
            "autoaugment+cutout": self.moves + AutoAugment.DRAWS + CUTOUT_DRAWS,
            "standard": self.moves,
            "crop": self.moves,
            "none": 0,
        }[augment]

    def forward(self, images: Tensor, words: Tensor) -> Tensor:
        """The network's inputs."""
        if self.draws:
            moves, words = words[: self.moves], words[self.moves :]
            move = crop_and_flip if self.flips else crop
            images = move(images, pad=self.pad, words=moves)
        if self.autoaugment is not None:
            images = self.autoaugment(images, words[: AutoAugment.DRAWS])
            # Before normalization: the hole is black, not gray.
            images = cutout(images, side=self.hole, words=words[AutoAugment.DRAWS :])
        return self.standardize(images)
