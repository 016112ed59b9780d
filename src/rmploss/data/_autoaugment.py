"""AutoAugment of CIFAR-10 (Cubuk et al. 2019) on whole batches, in integers.

The policy has 25 sub-policies of two operations, each with a probability and a magnitude. A sample
draws a sub-policy; its operations happen with their probabilities, most with a random sign. All
(operation, magnitude, sign) are known in advance, so each is a number, its `code`, and everything
that it needs is a row of a table which the host computes once, in float64:

  geometric     the source pixel of every pixel, from a matrix in fixed point (16 bits of fraction)
  tables        256 values: posterize, solarize, invert; autocontrast and equalize from the image
  enhancements  the blend d + f (x - d) for all pairs (d, x): the factor f, the degenerate image d

There are two readings of the policy. "torchvision" is that library's; "family" that of the port in
the trainers of the paper's authors, which differs in one probability, in the sign of rotations
(there is none), in shears (bicubic), in translations by fractions of a pixel, and in solarize
(from 256):

  cubic         four source pixels of every pixel, and the fraction between the middle two, float64

The pixels are those of PIL's operations, called as either does (`tests/data/test_autoaugment.py`).
On a GPU every image passes through the three groups, and where an image has no operation of a
group its row is the identity: no value is read, so that a CUDA graph can hold it. On a CPU images
of one kind of operation are taken together instead, which gives the same pixels in less time.
"""

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rmploss.data._draws import below, threshold

FILL = 128
"""What moves into a geometric operation's image: gray, as in the trainers of the paper's authors.
(torchvision's default is black.)"""
BINS = 10
"""The number of magnitudes of an operation."""


Reading = Literal["torchvision", "family"]


class Kind(IntEnum):
    """What an operation needs; images of one kind are computed alike."""

    NONE = 0
    GEOMETRIC = 1
    TABLE = 2
    AUTOCONTRAST = 3
    EQUALIZE = 4
    BRIGHTNESS = 5
    CONTRAST = 6
    COLOR = 7
    SHARPNESS = 8
    CUBIC = 9


class Operation(NamedTuple):
    """An operation with its magnitude and sign.

    name: as torchvision spells it.
    magnitude: an angle in degrees, a shift in pixels, a slope, a factor minus 1, bits, a threshold.
    cubic: whether a shear interpolates between pixels; else it takes the nearest.
    """

    name: str
    magnitude: float = 0.0
    cubic: bool = False

    @property
    def kind(self) -> Kind:
        """What the operation needs."""
        if self.name in _GEOMETRIC:
            return Kind.CUBIC if self.cubic else Kind.GEOMETRIC
        if self.name in ("Posterize", "Solarize", "Invert"):
            return Kind.TABLE
        return Kind[self.name.upper()]


Step = tuple[str, float, int | None]
"""The name of an operation, its probability, and the number of its magnitude."""

CIFAR10: tuple[tuple[Step, Step], ...] = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)
"""The sub-policies, as torchvision has them."""
FAMILY = (*CIFAR10[:16], (("Equalize", 0.2, None), ("Equalize", 0.8, None)), *CIFAR10[17:])
"""Those of the family's trainers: number 17 equalizes a second time with 0.8, not 0.6."""
POLICIES: dict[Reading, tuple[tuple[Step, Step], ...]] = {"torchvision": CIFAR10, "family": FAMILY}

_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_ENHANCE = ("Brightness", "Color", "Contrast", "Sharpness")
GROUPS = (
    (Kind.GEOMETRIC,),
    (Kind.TABLE, Kind.AUTOCONTRAST, Kind.EQUALIZE),
    (Kind.BRIGHTNESS, Kind.CONTRAST, Kind.COLOR, Kind.SHARPNESS),
)


def operation(
    name: str, number: int | None, negative: bool, side: int, reading: Reading = "torchvision"
) -> Operation:
    """The operation at one of its ten magnitudes.

    number: of the magnitude, 0 to 9; None: the operation has none.
    negative: the random sign; posterize, solarize and what has no magnitude ignore it, and in the
        reading "family" rotations.
    side: of the images in pixels.
    """
    family = reading == "family"
    linear = _linear if family else _rounded_linear
    if number is None:
        return Operation(name)
    if name == "Posterize":
        return Operation(name, 8 - round(4 * number / (BINS - 1)))
    if name == "Solarize":
        return Operation(name, linear(256.0, 0.0, number) if family else 255 * linear(1, 0, number))
    top = {"ShearX": 0.3, "ShearY": 0.3, "Rotate": 30.0} | dict.fromkeys(_ENHANCE, 0.9)
    magnitude = linear(0.0, top.get(name, 150 / 331 * side), number)
    if name.startswith("Translate") and not family:
        magnitude = int(magnitude)
    signed = negative and not (family and name == "Rotate")
    return Operation(name, -magnitude if signed else magnitude, family and name.startswith("Shear"))


def _linear(first: float, last: float, number: int) -> float:
    """A magnitude, as numpy computes it in float64."""
    return float(np.linspace(first, last, BINS)[number])


def _rounded_linear(first: float, last: float, number: int) -> float:
    """A magnitude, rounded to float32 as torchvision rounds it."""
    return float(torch.linspace(first, last, BINS)[number])


class AutoAugment(nn.Module):
    """Apply a policy to images of one size.

    side: H and W of the images in pixels.
    policy: the sub-policies; None: those of the reading.
    reading: whose operations, see above.
    """

    DRAWS = 5

    # Those of [codes, ..] have one row per code.
    chosen: Tensor  # the code by slot, then by sub-policy and sign, int64 [2, 50]
    limits: Tensor  # the operation happens for words below, int64 [2, 25]
    kinds: Tensor  # int64 [codes]
    sources: Tensor  # source pixels, int64 [codes, HW]; HW: the gray one that follows the image
    gray: Tensor  # FILL, uint8 [1, 1, 1]
    tables: Tensor  # uint8 [codes, 256]
    stretches: Tensor  # of autocontrast, float64 [2, 256, 256], by span and value
    blend_rows: Tensor  # where the row in `blends` begins, int64 [codes]
    blends: Tensor  # uint8 [factors 256 256], by factor, degenerate and value
    # Only with cubic operations:
    tap_rows: Tensor  # the row in `taps` and `fractions`, int64 [codes]
    taps: Tensor  # four source pixels, int64 [rows, 4, HW]; -1: outside
    fractions: Tensor  # where between the second and the third, float64 [rows, HW]

    def __init__(
        self,
        side: int,
        policy: Sequence[tuple[Step, Step]] | None = None,
        reading: Reading = "torchvision",
    ) -> None:
        super().__init__()
        self.side = side
        policy = POLICIES[reading] if policy is None else policy
        codes: dict[Operation | None, int] = {None: 0}
        chosen = torch.empty(2, len(policy), 2, dtype=torch.int64)
        limits = torch.empty(2, len(policy), dtype=torch.int64)
        for (row, steps), slot in product(enumerate(policy), range(2)):
            name, probability, number = steps[slot]
            limits[slot, row] = threshold(probability)
            for sign in range(2):
                found = operation(name, number, bool(sign), side, reading)
                chosen[slot, row, sign] = codes.setdefault(found, len(codes))
        self.n_policies = len(policy)
        self._keep("chosen", chosen.flatten(1))
        self._keep("limits", limits)
        operations = [op for op in codes if op is not None]
        self._make_tables(operations)
        self.is_cubic = any(op.cubic for op in operations)
        if self.is_cubic:
            self._make_taps(operations)

    def _keep(self, name: str, tensor: Tensor) -> None:
        """Hold a tensor that moves with the module."""
        self.register_buffer(name, tensor, persistent=False)

    def _make_tables(self, operations: Sequence[Operation]) -> None:
        """The rows of all codes; row 0 of every table is the identity."""
        n, pixels = len(operations) + 1, self.side * self.side
        sources = torch.arange(pixels).repeat(n, 1)
        tables = torch.arange(256, dtype=torch.uint8).repeat(n, 1)
        factors: dict[float, int] = {1.0: 0}
        rows = torch.zeros(n, dtype=torch.int64)
        for code, op in enumerate(operations, 1):
            if op.kind == Kind.GEOMETRIC:
                source = source_pixels(op, self.side)
                sources[code] = torch.where(source < 0, pixels, source)
            elif op.kind == Kind.TABLE:
                tables[code] = fixed_table(op)
            elif op.name in _ENHANCE:
                rows[code] = factors.setdefault(1.0 + op.magnitude, len(factors))
        self._keep("kinds", torch.tensor([Kind.NONE, *(op.kind for op in operations)]))
        self._keep("sources", sources)
        self._keep("stretches", stretches())
        self._keep("gray", torch.full((1, 1, 1), FILL, dtype=torch.uint8))
        self._keep("tables", tables)
        self._keep("blend_rows", rows << 16)
        self._keep("blends", torch.stack([blend_table(factor) for factor in factors]).flatten())

    def _make_taps(self, operations: Sequence[Operation]) -> None:
        """The tables of the cubic operations; row 0 is the identity."""
        pixels = torch.arange(self.side * self.side)
        rows = torch.zeros(len(operations) + 1, dtype=torch.int64)
        taps, fractions = [pixels.expand(4, -1)], [torch.zeros(len(pixels), dtype=torch.float64)]
        for code, op in enumerate(operations, 1):
            if op.cubic:
                rows[code] = len(taps)
                four, fraction = cubic_taps(op, self.side)
                taps.append(four)
                fractions.append(fraction)
        self._keep("tap_rows", rows)
        self._keep("taps", torch.stack(taps))
        self._keep("fractions", torch.stack(fractions))

    def forward(self, x: Tensor, words: Tensor, grouped: bool | None = None) -> Tensor:
        """The augmented images, uint8.

        x: uint8 `[B, 3, H, W]`.
        words: int64 `[DRAWS, B]`.
        grouped: compute each kind of operation for its own images only, which reads values; None:
            on a CPU.
        """
        grouped = x.device.type == "cpu" if grouped is None else grouped
        flat = x.flatten(2)
        policy = below(words[0], self.n_policies)
        # Of both slots at once: a GPU must launch little.
        happens = words[1::2] < self.limits[:, policy]
        sign = below(words[2::2], 2)
        for code in self.chosen.gather(1, 2 * policy + sign) * happens:
            flat = self.operate(flat, code, grouped)
        return flat.view(x.shape)

    def operate(self, x: Tensor, code: Tensor, grouped: bool) -> Tensor:
        """Apply one operation to every image: x uint8 `[B, 3, HW]`, code int64 `[B]`."""
        functions = (self._geometric, self._tabled, self._enhanced)
        steps = [*zip(functions, GROUPS, strict=True)]
        if self.is_cubic:
            steps.append((self._cubic, (Kind.CUBIC,)))
        if grouped:
            return self._operate_grouped(x, code, steps)
        for function, kinds in steps:
            x = function(x, code, kinds)
        return x

    def _operate_grouped(
        self,
        x: Tensor,
        code: Tensor,
        steps: Sequence[tuple[Callable[..., Tensor], Sequence[Kind]]],
    ) -> Tensor:
        """`operate`, for the images of each kind together."""
        kinds = self.kinds[code].tolist()
        x = x.clone()
        for function, group in steps:
            for kind in group:
                rows = torch.tensor([row for row, k in enumerate(kinds) if k == kind])
                if len(rows):
                    x[rows] = function(x[rows], code[rows], (kind,))
        return x

    def _geometric(self, x: Tensor, code: Tensor, kinds: Sequence[Kind]) -> Tensor:
        """Each pixel from its source, or gray where that is outside."""
        source = self.sources[code].unsqueeze(1).expand_as(x)
        gray = self.gray.expand(*x.shape[:2], 1)
        return torch.cat([x, gray], 2).gather(2, source)

    def _cubic(self, x: Tensor, code: Tensor, kinds: Sequence[Kind]) -> Tensor:
        """Each pixel from four in a line.

        v + d (c - a + d (2 (a - v) + c - e + d (v - a + e - c)))

        a, v, c, e are the pixels, d is the fraction; clipped and cut off, as PIL does. Float64,
        each operation one of IEEE 754.
        """
        row = self.tap_rows[code]
        taps, d = self.taps[row], self.fractions[row].unsqueeze(1)
        pixels = x.long()
        a, v, c, e = (
            pixels.gather(2, taps[:, i].clamp(min=0).unsqueeze(1).expand_as(pixels))
            for i in range(4)
        )
        inner = d * (v - a + e - c) + (2 * (a - v) + c - e)
        moved = (d * (d * inner + (c - a)) + v).clamp(0, 255).to(torch.uint8)
        return moved.masked_fill(taps[:, :1] < 0, FILL)

    def _tabled(self, x: Tensor, code: Tensor, kinds: Sequence[Kind]) -> Tensor:
        """Each pixel from the table of its image and channel."""
        kind, places = self.kinds[code].view(-1, 1, 1), x.long()
        table = self.tables[code].unsqueeze(1).expand(-1, x.shape[1], -1)
        if Kind.AUTOCONTRAST in kinds:
            found = autocontrast_table(x, self.stretches)
            table = torch.where(kind == Kind.AUTOCONTRAST, found, table)
        if Kind.EQUALIZE in kinds:
            found = equalize_table(places, self.tables[0])
            table = torch.where(kind == Kind.EQUALIZE, found, table)
        return table.gather(2, places)

    def _enhanced(self, x: Tensor, code: Tensor, kinds: Sequence[Kind]) -> Tensor:
        """Each pixel from the blend with its degenerate image."""
        kind = self.kinds[code].view(-1, 1, 1)
        degenerate: Tensor | int = 0  # brightness: black
        if Kind.CONTRAST in kinds or Kind.COLOR in kinds:
            gray = luminance(x)
            if Kind.CONTRAST in kinds:
                degenerate = rounded_mean(gray) * (kind == Kind.CONTRAST)
            if Kind.COLOR in kinds:
                degenerate = torch.where(kind == Kind.COLOR, gray, degenerate)
        if Kind.SHARPNESS in kinds:
            smooth = smoothed(x, self.side)
            degenerate = torch.where(kind == Kind.SHARPNESS, smooth, degenerate)
        row = self.blend_rows[code].view(-1, 1, 1)
        return self.blends.take((row + (degenerate << 8)) + x)


def source_pixels(op: Operation, side: int) -> Tensor:
    """The pixel that each pixel of the result shows, int64 `[HW]`; -1: none, it is outside.

    x' = a x + b y + c and y' = d x + e y + f at the centers of the pixels, in fixed point with 16
    bits of fraction, as PIL computes nearest neighbors.
    """
    a, b, c, d, e, f = (math.floor(v * 65536 + 0.5) for v in _centered(*_matrix(op, side)))
    y, x = np.divmod(np.arange(side * side), side)
    column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    return torch.from_numpy(np.where(inside, row * side + column, -1))


def cubic_taps(op: Operation, side: int) -> tuple[Tensor, Tensor]:
    """The four pixels in a line between which a sheared pixel lies, and where.

    Returns int64 `[4, HW]`, -1 for pixels from outside, and the fraction between the second and the
    third, float64 `[HW]`. A shear moves along one axis: across it the pixels stay on their centers.
    """
    y, x = np.divmod(np.arange(side * side), side)
    moved, still = (x, y) if op.name == "ShearX" else (y, x)
    place = (moved + 0.5) + op.magnitude * (still + 0.5)
    inside = (place >= 0) & (place < side)
    first = np.floor(place - 0.5)
    line = (first.astype(np.int64) + np.arange(-1, 3)[:, None]).clip(0, side - 1)
    pixels = still * side + line if op.name == "ShearX" else line * side + still
    fraction = torch.from_numpy(place - 0.5 - first)
    return torch.from_numpy(np.where(inside, pixels, -1)), fraction


def _matrix(op: Operation, side: int) -> tuple[float, float, float, float, float, float]:
    """The map from a point of the result to one of the source, row by row."""
    m = op.magnitude
    if op.name == "Rotate":  # counter-clockwise about the center
        cos, sin = round(math.cos(-math.radians(m)), 15), round(math.sin(-math.radians(m)), 15)
        middle = side / 2
        shift_x = cos * -middle + sin * -middle + middle
        return cos, sin, shift_x, -sin, cos, -sin * -middle + cos * -middle + middle
    shear_x, shear_y = m * (op.name == "ShearX"), m * (op.name == "ShearY")
    shift_x, shift_y = -m * (op.name == "TranslateX"), -m * (op.name == "TranslateY")
    return 1.0, shear_x, shift_x, shear_y, 1.0, shift_y


def _centered(
    a: float, b: float, c: float, d: float, e: float, f: float
) -> tuple[float, float, float, float, float, float]:
    """The same map, from the number of a pixel instead of its center."""
    return a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5


def fixed_table(op: Operation) -> Tensor:
    """The new value of every value, uint8 `[256]`, for posterize, solarize and invert."""
    values = torch.arange(256)
    if op.name == "Posterize":
        values &= -1 << (8 - int(op.magnitude))
    elif op.name == "Solarize":
        values = torch.where(values < math.ceil(op.magnitude), values, 255 - values)
    else:
        values = 255 - values
    return values.to(torch.uint8)


def blend_table(factor: float) -> Tensor:
    """d + factor (x - d), clipped, for all d (first) and x, uint8 `[256, 256]`.

    Product and sum are each rounded to float32, and the result is cut off, as PIL does.
    """
    d, x = np.meshgrid(*[np.arange(256, dtype=np.float32)] * 2, indexing="ij")
    blend = d + np.float32(factor) * (x - d)
    return torch.from_numpy(blend.clip(0, 255).astype(np.uint8))


def stretches() -> Tensor:
    """For `autocontrast_table`, by span = high - low: v scale of all values v, and low scale.

    Float64 `[2, 256, 256]`, scale = 255 / span. Of a span of 0 the values stay: scale = 1, low = 0.
    """
    values, spans = torch.arange(256.0, dtype=torch.float64), torch.arange(256.0).view(-1, 1)
    scales = torch.full_like(spans, 255.0, dtype=torch.float64) / spans.clamp(min=1)
    scales[0] = 1.0
    return torch.stack([values * scales, values * scales * (spans > 0)])


def autocontrast_table(x: Tensor, stretches: Tensor) -> Tensor:
    """The table that stretches every channel to 0..255, uint8 `[B, C, 256]`; x is `[B, C, HW]`.

    Float64, as in PIL; each operation is one of IEEE 754, so every device rounds alike.
    """
    low, high = x.aminmax(dim=2)
    span = (high - low).long()
    shift = stretches[1][span, low.long()]
    return (stretches[0][span] - shift.unsqueeze(2)).clamp_(0, 255).to(torch.uint8)


def equalize_table(x: Tensor, identity: Tensor) -> Tensor:
    """The table that equalizes the histogram of every channel, uint8 `[B, C, 256]`.

    x: int64 `[B, C, HW]`.
    identity: the table that changes nothing.
    """
    counts = torch.zeros(*x.shape[:2], 256, dtype=torch.int64, device=x.device)
    counts.scatter_add_(2, x, torch.ones_like(x))
    last = counts.gather(2, x.amax(2, keepdim=True))
    step = (x.shape[2] - last) // 255
    before = counts.cumsum(2).sub_(counts)
    equalized = before.add_(step // 2).floor_divide_(step.clamp(min=1)).clamp_(max=255)
    return torch.where(step > 0, equalized.to(torch.uint8), identity)


def luminance(x: Tensor) -> Tensor:
    """The gray image of an image in RGB, int64 `[B, 1, HW]`; x is uint8 `[B, 3, HW]`."""
    red, green, blue = x.long().unbind(1)
    gray = torch.add(19595 * red, green, alpha=38470).add_(blue, alpha=7471)
    return gray.add_(0x8000).bitwise_right_shift_(16).unsqueeze(1)


def rounded_mean(gray: Tensor) -> Tensor:
    """The mean of each gray image, rounded to the nearest number, int64 `[B, 1, 1]`."""
    pixels = gray.shape[2]
    return (2 * gray.sum(2, keepdim=True) + pixels) // (2 * pixels)


def smoothed(x: Tensor, side: int) -> Tensor:
    """The image under the filter (1 1 1, 1 5 1, 1 1 1) / 13, rounded, int64; borders stay.

    x: uint8 `[B, C, HW]`.
    """
    image = x.view(*x.shape[:2], side, side).long()
    rows = image[..., :-2, :] + image[..., 1:-1, :] + image[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    total = total.add_(image[..., 1:-1, 1:-1], alpha=4).add_(6)
    image[..., 1:-1, 1:-1] = total // 13  # round(total / 13): 13 is odd, there are no ties
    return image.flatten(2)
