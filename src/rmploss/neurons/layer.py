"""The base class of all layers of neurons, whatever equations they follow."""

from typing import ClassVar, NoReturn, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rmploss.arguments import checked
from rmploss.entry import Untraceable, entry
from rmploss.errors import Problem, UserError
from rmploss.functional import ADVICE, check_axes
from rmploss.ops import at_least_single
from rmploss.ops.lif.moments import MomentSpec, membrane_moments
from rmploss.sizes import room_problems
from rmploss.stats import data_parallel, open_stats


@runtime_checkable
class HasHeight(Protocol):
    """A layer whose spikes have a height in training, which inference puts into the kernels."""

    def release(self) -> Tensor | None:
        """The heights `[C]` or `[1]`, taken away; None if they were before."""
        ...


class SpikingLayer(Untraceable, nn.Module):
    """A layer of neurons, `[T, B, C, ...]` input current to outputs of the same shape.

    A neuron that is no setting of `LIF` derives from this class and defines `integrate`.
    layer_name: the name of the layer in the network; place: "inner" of a residual block, "sum"
    where the layer sees the sum of two branches, or "".

    channels: C, which `forward` then insists on, or None for any number.
    v_threshold: where a neuron fires, in the units of `membrane` (dimensionless).

    Raises `UserError` for channels that are no whole number.
    """

    unregularized: ClassVar[str | None] = "its membrane moments are recorded without a gradient"
    """Why no regularizer of the membrane is defined for these neurons; None: all are."""
    carry_state: bool = False
    """Whether the membrane goes on from one forward to the next."""

    @checked(**ADVICE)
    def __init__(self, channels: int | None = None, v_threshold: float = 1.0) -> None:
        super().__init__()
        problems = channel_problems(channels)
        if problems:
            raise UserError(f"bad {type(self).__name__}", problems)
        self.channels = channels
        self.v_threshold = v_threshold
        self.layer_name, self.place = "", ""

    @entry
    def forward(self, x: Tensor) -> Tensor:
        """The outputs `[T, B, C, ...]` of the input current x, in the type of x.

        The moments of the membrane go into an open `membrane_stats`. Raises `UserError` for an x
        of another shape or type.
        """
        check_axes(x, self.channels)
        wide = at_least_single(x)
        y, u = self.integrate(wide)
        self._record(wide, u)
        return y.to(x.dtype)

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise data_parallel()

    def integrate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs and the membrane before the reset, both of the shape of x.

        x: input current `[T, B, C, ...]`, float32 or float64.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no integrate(x) -> outputs, u")

    @entry
    def membrane(self, x: Tensor) -> Tensor:
        """The membrane before the reset `[T, B, C, ...]` for the input current x, no gradient."""
        check_axes(x, self.channels)
        return self.integrate(at_least_single(x.detach()))[1].detach()

    def fires(self, u: Tensor) -> Tensor:
        """The spikes for a membrane u, any shape: 1 where u >= v_threshold, else 0."""
        return (u >= self.v_threshold).to(u.dtype)

    def firing_current(self) -> float:
        """The input current that brings a neuron from rest to its threshold in one step.

        tdBN scales its output to it (Eq. 6). Neurons that multiply their input override this.
        """
        return self.v_threshold

    def moments(self, x: Tensor, u: Tensor, spec: MomentSpec) -> Tensor:
        """The membrane moments `[4, C]`, sums over time, batch and space; per step `[T, 4, C]`.

        x: input current `[T, B, C, ...]`.
        u: the membrane before the reset, same shape.
        """
        potential = x if spec.potential == "input" else u
        parts = (potential, self.fires(u), self.fires(potential))
        if spec.per_step:
            steps = zip(*parts, strict=True)
            return torch.stack([membrane_moments(*step, spec) for step in steps])
        u, spikes, target = (part.flatten(0, 1) for part in parts)
        return membrane_moments(u, spikes, target, spec)

    @property
    def is_binary(self) -> bool:
        """Whether all outputs are 0 and 1, for every input."""
        return False

    def _record(self, x: Tensor, u: Tensor) -> None:
        stats = open_stats()
        if stats is None:
            return
        if self.unregularized is not None:
            x, u = x.detach(), u.detach()
        stats.record(self, self.moments(x, u, stats.spec), x.numel() // x.shape[2])


def over(v_threshold: float, gain: Tensor) -> float:
    """The threshold over a gain `[]`, to the six digits that float32 has: 0.4, not 0.4000000059."""
    return float(f"{v_threshold / float(gain.detach()):.6g}")


def channel_problems(channels: object) -> list[Problem]:
    """The problem of what other packages take as their first argument: a leak, a tau."""
    if channels is None or (type(channels) is int and channels >= 1):
        return room_problems(f"channels = {channels}", channels or 1, ADVICE["channels"])
    what = "must be a whole number, at least 1"
    return [Problem(f"channels = {channels!r}", what, ADVICE["channels"])]
