"""One image file as the pixels that a data set stores: color mode, size, uint8 `[C, H, W]`.

16 bits become 8 by their upper ones, a palette its colors, and transparent pixels white, as viewers
show them.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from rmploss.errors import DataError, Problem

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""The endings of the files that class folders are searched for, in lower case."""
MODES = {1: "L", 3: "RGB"}
"""PIL's color mode by the number of channels."""


def open_image(path: Path) -> Image.Image:
    """The image of a file, as stored. Raises `DataError` for anything else, a pipe for example."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
            raise OSError("is no regular file")
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = "no such file" if not path.exists() else str(error)
        problem = Problem(str(path), why, "give a PNG, JPEG or another image that PIL reads")
        raise DataError("an image cannot be read", [problem]) from error


def is_image(path: Path) -> bool:
    """True if a file's name ends as that of an image."""
    return path.suffix.lower() in SUFFIXES


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An image of any mode with 8 bits per channel in "L" or "RGB". Raises `DataError` for floats.

    PIL's own conversion would make all values of 16 bits above 255 white.
    """
    if image.mode == "F":
        what = "its pixels are floats, whose black and white are not known"
        raise DataError(
            "an image cannot be read",
            [Problem(getattr(image, "filename", "an image"), what, "save it with 8 or 16 bits")],
        )
    if image.mode.startswith("I"):
        upper = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        image = Image.fromarray(upper.astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)


def upright(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF record says; without one, as it is. It keeps its file's name."""
    turned = ImageOps.exif_transpose(image)
    name = getattr(image, "filename", None)
    if name is not None:
        setattr(turned, "filename", name)  # noqa: B010  PIL declares it for images of files alone
    return turned


def conversion(path: Path, channels: int, size: tuple[int, int]) -> str:
    """What becomes of an image file for a network's input, in words; "" if it stays as it is.

    path: of the image.
    channels: 1 or 3.
    size: (H, W) of the input in pixels.
    Raises `DataError` for what is no image.
    """
    image = upright(open_image(path))
    H, W = size
    here = f"{image.width}x{image.height}"
    parts = []
    if (image.height, image.width) != (H, W):
        square = image.width * H == image.height * W
        parts.append(f"scaled {'' if square else 'and cropped '}to {W}x{H}")
    colored = image.mode not in ("1", "L", "LA", "La") and not image.mode.startswith(("I", "F"))
    if colored != (channels == 3):
        parts.append("its colors made gray" if colored else "its gray taken for three colors")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        parts.append("transparent pixels made white")
    return f"{here} pixels, {', '.join(parts)}" if parts else ""


def pixels(image: Image.Image, channels: int, side: int) -> Tensor:
    """The pixels of an image, uint8 `[C, H, W]` with H = W = side.

    image: one of another size is scaled, antialiased, until its short side fits, and then cropped
        at its center; one of that size keeps its pixels.
    channels: 1 or 3, see `MODES`.
    side: in pixels.
    """
    image = in_mode(image, MODES[channels])
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
