"""One image file as the pixels that a data set stores: color mode, size, uint8 `[C, H, W]`."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rmploss.errors import DataError, Problem

MODES = {1: "L", 3: "RGB"}
"""PIL's color mode by the number of channels."""


def open_image(path: Path) -> Image.Image:
    """The image of a file, as stored. Raises `DataError` for anything else."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError) as error:
        why = "no such file" if not path.exists() else str(error)
        problem = Problem(str(path), why, "give a PNG, JPEG or another image that PIL reads")
        raise DataError("an image cannot be read", [problem]) from error


def pixels(image: Image.Image, channels: int, side: int) -> Tensor:
    """The pixels of an image, uint8 `[C, H, W]` with H = W = side.

    image: one of another size is scaled, antialiased, until its short side fits, and then cropped
        at its center; one of that size keeps its pixels.
    channels: 1 or 3, see `MODES`.
    side: in pixels.
    """
    image = image.convert(MODES[channels])
    width, height = image.size
    if (width, height) != (side, side):
        scale = side / min(width, height)
        image = image.resize(
            (max(side, round(width * scale)), max(side, round(height * scale))),
            Image.Resampling.BILINEAR,
        )
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    values = torch.from_numpy(np.array(image, dtype=np.uint8))
    return values.unsqueeze(0) if channels == 1 else values.permute(2, 0, 1).contiguous()
