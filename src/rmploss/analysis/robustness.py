"""Accuracy under attacks on the pixels, through the surrogate gradient.

    noise     x + eps r,  r = -1 or 1 with equal probability
    FGSM      x + eps sign(g(x)),  g = dL/dx  (Goodfellow et al. 2015)
    PGD       x_0 = x + U(-eps, eps);  x_k+1 = P(x_k + a sign(g(x_k)))  (Madry et al. 2018)
    transfer  the PGD images of another network

x: pixels in [0, 1]; every attacked image is clipped to [0, 1], and P projects to [x - eps, x + eps]
as well. L: the cross-entropy of the logits. A spike has no derivative: g takes the slope of the
network's own surrogate in its place, so it is not the gradient of the accuracy, and an attack of
another kind may find more. Where noise does more harm than FGSM or PGD, FGSM more than PGD, or the
images of another network more than PGD, the gradients are masked (Athalye et al. 2018), and the
accuracy under attacks that follow them says nothing.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss.errors import Problem, UserError
from rmploss.lifecycle import evaluating
from rmploss.randomness import generator

STEPS = 10
"""The steps of PGD."""
STEP = 0.25
"""The size a of a step of PGD, as a share of eps."""
LEAST = torch.finfo(torch.float32).eps
"""The smallest size: a smaller one changes no white pixel in float32."""


@dataclass(frozen=True)
class Robustness:
    """Accuracies of one network under attacks of one size, in percent.

    eps: the largest change of a pixel, in units of the range from black to white.
    samples: the number of images.
    clean, noise, fgsm, pgd: see the head of the module.
    transfer: None: there was no other network.
    without_gradient: the share of images whose g is 0 in every pixel, or not finite in one, in
        percent.
    """

    eps: float
    samples: int
    clean: float
    noise: float
    fgsm: float
    pgd: float
    transfer: float | None
    without_gradient: float

    @property
    def standard_error(self) -> float:
        """The standard error of every accuracy is at most this, in points: 50 / sqrt(samples).

        It is that of an accuracy of 50 %; none other of as many images has a larger one.
        """
        return 50 / math.sqrt(self.samples)

    def error_of_difference(self, first: float, second: float) -> float:
        """The standard error of the difference of two accuracies of one mean p, at most; in points.

        The images are the same, but which of them are right is not kept. So it is that of
        independent answers, sqrt(2 p (100 - p) / samples), p the mean of both: answers that agree
        more often than by chance have a smaller one.
        """
        mean = (first + second) / 2
        return math.sqrt(2 * mean * (100 - mean) / self.samples)

    def _is_worse(self, weaker: float, stronger: float) -> bool:
        """Whether the weaker attack does more harm, by over two standard errors."""
        return stronger - weaker > 2 * self.error_of_difference(weaker, stronger)

    @property
    def masked(self) -> tuple[str, ...]:
        """Why the gradients may be masked, in sentences; empty: nothing points to it.

        A difference counts that is larger than two standard errors of it.
        """
        order = [("noise", self.noise), ("FGSM", self.fgsm), ("PGD", self.pgd)]
        said = [
            f"{weaker} does more harm than {stronger}"
            for (weaker, low), (stronger, high) in combinations(order, 2)
            if self._is_worse(low, high)
        ]
        if self.transfer is not None and self._is_worse(self.transfer, self.pgd):
            said.append("images of another network do more harm than PGD")
        if self.without_gradient:
            said.append(f"{self.without_gradient:.1f} % of the images have no gradient")
        return tuple(said)


def robustness(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    eps: Sequence[float],
    *,
    source: nn.Module | None = None,
    steps: int = STEPS,
    seed: int = 0,
) -> list[Robustness]:
    """Attack a network with every size; returns one result for each.

    model: logits `[B, K]` of pixels; runs in evaluation mode, its parameters get no gradient. An
        image whose logits are not all finite is not right.
    batches: (pixels in [0, 1], `[B, C, H, W]`; labels `[B]`).
    eps: the sizes of the attacks, different ones, each in [`LEAST`, 1].
    source: another network for transferred images, of pixels as well; None: none.
    steps: of PGD, at least 1.
    seed: of the noise, and of the images at which PGD begins.

    Raises `UserError`.
    """
    what = f"must lie in (0, 1], {LEAST:.1g} at least"
    problems = [Problem(f"eps = {e!r}", what, "8/255") for e in eps if not LEAST <= e <= 1]
    if len({*eps}) < len(eps):
        problems.append(Problem("eps", "names a size twice", "2/255 8/255"))
    if not eps:
        problems.append(Problem("eps", "names no size", "2/255 8/255"))
    if steps < 1:
        problems.append(Problem(f"steps = {steps}", "must be at least 1", f"{STEPS}"))
    if problems:
        raise UserError("cannot attack", problems)
    counts = torch.zeros(len(eps), 6, dtype=torch.float64)
    samples = 0
    with attacked(model), attacked(source or model):
        for number, (x, labels) in enumerate(batches):
            samples += len(labels)
            drawn = generator(seed, "attack", number)
            counts += _counts(model, source, x, labels, eps, steps, drawn)
    if not samples:
        raise UserError("no image to attack")
    shares = (100 * counts / samples).tolist()
    return [
        Robustness(size, samples, clean, noise, one, many, other if source else None, without)
        for size, (clean, noise, one, many, other, without) in zip(eps, shares, strict=True)
    ]


def _counts(
    model: nn.Module,
    source: nn.Module | None,
    x: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    steps: int,
    drawn: torch.Generator,
) -> Tensor:
    """The images of a batch that are right, of every size: `[len(eps), 6]`.

    The columns: clean, noise, FGSM, PGD, transfer; without gradient.
    """
    signs = torch.randint(0, 2, x.shape, generator=drawn).to(x) * 2 - 1
    start = torch.rand(x.shape, generator=drawn, dtype=torch.float64).to(x) * 2 - 1
    clean, gradient = _right(model, x, labels), input_gradient(model, x, labels)
    without = float((direction(gradient).flatten(1) == 0).all(1).sum())
    rows = []
    for size in eps:
        begin = clipped(x + size * start, x, size)
        images = [
            clipped(x + size * signs, x, size),
            _along(gradient, x, size),
            pgd(model, x, labels, size, begin=begin, steps=steps),
        ]
        if source is not None:
            images.append(pgd(source, x, labels, size, begin=begin, steps=steps))
        right = [_right(model, image, labels) for image in images] + [0.0] * (source is None)
        rows.append([clean, *right, without])
    return torch.tensor(rows, dtype=torch.float64)


def fgsm(model: nn.Module, x: Tensor, labels: Tensor, eps: float) -> Tensor:
    """The images of FGSM, `[B, C, H, W]`; for the arguments see `pgd`."""
    return _along(input_gradient(model, x, labels), x, eps)


def _along(gradient: Tensor, x: Tensor, eps: float) -> Tensor:
    return clipped(x + eps * direction(gradient), x, eps)


def pgd(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    eps: float,
    *,
    begin: Tensor | None = None,
    steps: int = STEPS,
) -> Tensor:
    """The images of PGD, `[B, C, H, W]`.

    model: logits `[B, K]` of pixels.
    x: pixels in [0, 1], `[B, C, H, W]`.
    labels: `[B]`.
    eps: the largest change of a pixel.
    begin: x_0, as x; None: x itself.
    steps: of size `STEP` eps.
    """
    at = x if begin is None else begin
    for _ in range(steps):
        at = clipped(at + STEP * eps * direction(input_gradient(model, at, labels)), x, eps)
    return at


def input_gradient(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """g = dL/dx of every image, as x: the sum over the batch, so that no image scales another's.

    It is 0 where the logits do not depend on x.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(model(x), labels, reduction="sum")
        if not loss.requires_grad:
            return torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(loss, x, materialize_grads=True)
    return gradient


def direction(gradient: Tensor) -> Tensor:
    """sign(g), as g; 0 for an image with a g that is not finite, which leads nowhere."""
    finite = gradient.isfinite().flatten(1).all(1)
    return torch.where(finite.view(-1, *[1] * (gradient.ndim - 1)), gradient.sign(), 0.0)


def clipped(attacked: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest images in [x - eps, x + eps] and [0, 1], of the shape of x."""
    return torch.minimum(torch.maximum(attacked, x - eps), x + eps).clamp(0, 1)


@torch.no_grad()
def _right(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    logits = model(x)
    return float(((logits.argmax(1) == labels) & logits.isfinite().all(1)).sum())


@contextmanager
def attacked(model: nn.Module) -> Iterator[None]:
    """Inside the block a network is in evaluation mode, and its parameters need no gradient."""
    needing = [p for p in model.parameters() if p.requires_grad]
    for parameter in needing:
        parameter.requires_grad_(False)
    try:
        with evaluating(model):
            yield
    finally:
        for parameter in needing:
            parameter.requires_grad_(True)
