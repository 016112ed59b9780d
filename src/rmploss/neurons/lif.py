"""Leaky integrate-and-fire neurons (Eqs. 1-3) and their leak-free form, as modules."""

from typing import Any, ClassVar, NoReturn, TypedDict, Unpack

from torch import Tensor

from rmploss import functional, ops
from rmploss.arguments import checked, collect
from rmploss.entry import entry
from rmploss.errors import Problem, UserError
from rmploss.functional import ADVICE, check_axes
from rmploss.neurons.layer import SpikingLayer, channel_problems, over
from rmploss.norm import Operands, TDBatchNorm2d
from rmploss.ops import Spikes
from rmploss.stats import open_stats, recomputing
from rmploss.surrogate import Surrogate, as_surrogate


class MembraneOptions(TypedDict, total=False):
    """Options of `LIF` that its variants pass on unchanged; their defaults are those of `LIF`."""

    v_threshold: float
    v_reset: float | None
    detach_reset: bool
    carry_state: bool


class IFOptions(MembraneOptions, total=False):
    """The same, with the surrogate."""

    surrogate: str | Surrogate


class LIFOptions(IFOptions, total=False):
    """The same, with the leak."""

    decay: float


class LIF(SpikingLayer):
    """LIF neurons over time (Eqs. 1-3): `[T, B, C, ...]` input current to spikes of the same shape.

        u_pre(t) = decay u(t-1) + x(t)                        (1)
        o(t)     = 1 if u_pre(t) >= v_threshold else 0        (2)
        u(t)     = u_pre(t) (1 - o(t)) + v_reset o(t)         (3)

    All quantities are dimensionless.

    channels: C, which x must then have; None: any number.
    decay: in [0, 1]; the paper's tau = 0.25.
    v_threshold: at which a neuron fires.
    v_reset: the potential after a spike; None: the soft reset, u_pre - v_threshold o.
    reset_by: what the soft reset subtracts instead of v_threshold.
    detach_reset: keep the gradient out of the reset.
    surrogate: a name in `SURROGATES`, or a `Surrogate`.
    carry_state: by default a forward starts at rest and leaves nothing behind. With it the membrane
        goes on from call to call until `reset_state()`, and `step` takes one time step at a time,
        `[B, C, ...]`; the gradient through time ends with a call, and a warning says so. With
        gradient: all steps in one call, or `functional.lif_step`, which takes and returns the
        state.

    Raises `UserError` for values out of range.
    """

    unregularized: ClassVar[str | None] = None

    @checked(**ADVICE)
    def __init__(
        self,
        channels: int | None = None,
        *,
        decay: float = 0.25,
        v_threshold: float = 0.5,
        v_reset: float | None = 0.0,
        reset_by: float | None = None,
        detach_reset: bool = False,
        surrogate: str | Surrogate = "clipped_tanh",
        carry_state: bool = False,
    ) -> None:
        problems = channel_problems(channels)
        problems += functional.problems_in(
            decay=decay, v_threshold=v_threshold, v_reset=v_reset, reset_by=reset_by
        )
        chosen = collect(problems, lambda: as_surrogate(surrogate))
        if problems or chosen is None:
            raise UserError(f"bad {type(self).__name__}", problems)
        super().__init__(channels, v_threshold)
        self.decay = decay
        self.v_reset = v_reset
        self.reset_by = reset_by
        self.detach_reset = detach_reset
        self.surrogate = chosen
        self.carry_state = carry_state
        self.u: Tensor | None = None
        self._had_gradient = False

    @classmethod
    @checked(channels="LIF.from_tau(2.0, channels=64)")
    def from_tau(cls, tau: float, **options: Any) -> "LIF":
        """A neuron from a membrane time constant in time steps: decay = 1 - 1/tau, tau >= 1.

        SpikingJelly's `tau` with decay_input=False: from_tau(4/3) has the paper's decay 0.25. Of
        `LIF` alone: neurons that are derived from it have a leak of their own (`UserError`).
        """
        if cls is not LIF:
            problem = Problem(f"{cls.__name__}.from_tau", "has no decay to choose", "LIF.from_tau")
            raise UserError("bad neuron", [problem])
        functional.check_tau(tau)
        if "decay" in options:
            problem = Problem("decay", "follows from tau", "LIF.from_tau(tau), or LIF(decay=...)")
            raise UserError("bad LIF", [problem])
        return LIF(decay=1 - 1 / tau, **options)

    @entry
    def forward(
        self,
        x: Tensor,
        *,
        norm: TDBatchNorm2d | None = None,
        residual: Tensor | Spikes | None = None,
        repeats: int = 1,
        as_spikes: bool = False,
        dense: bool = True,
    ) -> Any:
        """Spikes `[T, B, C, ...]`, of the type of x, for the input current norm(x) + residual.

        norm, the shortcut and the neurons run as one operation.

        x: `[T, B, C, ...]`, or `[1, B, C, ...]` that stands for `repeats` equal steps.
        residual: `[T, B, C, ...]`.
        as_spikes: return `Spikes` instead of a tensor, for convolutions and shortcuts that read
            their bits; where the neurons are not binary or the backend has no bits, a tensor. A
            residual that is a tensor is then not looked at for being all 0 and 1.
        dense: with as_spikes: False if the next reader takes bits, so that a GPU writes no
            numbers unless they are asked for.
        """
        if not isinstance(x, Tensor) or x.ndim < 3 or x.shape[2] != self.channels:
            check_axes(x, self.channels)
        if self.carry_state:
            functional.check_recomputing(recomputing())
        stats = open_stats()
        scale = self.input_gain()
        if residual is not None:
            if not isinstance(residual, Tensor | Spikes):
                _no_residual(residual)
            if isinstance(residual, Tensor):
                ops.check_current(residual, "residual")
            if scale is not None:
                residual = residual * scale
        given = Operands(None, None, None, False, 1.0)
        running = None
        if norm is not None:
            if not isinstance(norm, TDBatchNorm2d):
                raise _no_norm(norm)
            self.meet(norm)
            given = norm.operands(x)
            if given.eps is not None:
                shown = repeats if norm.counts_repeats else 1
                running = norm.running(x.numel() // x.shape[2] * shown)
        gain, bias = given.gain, given.bias
        if scale is not None:
            gain = scale.expand(x.shape[2]) if gain is None else scale * gain
            bias = None if bias is None else scale * bias
        spikes, moments, u, *_ = ops.lif_layer(
            x,
            functional.carried(self.u, self._had_gradient) if self.carry_state else None,
            neuron={**self.options(), "moments": None if stats is None else stats.spec},
            gain=gain,
            bias=bias,
            residual=residual,
            repeats=repeats,
            eps=given.eps,
            sync=given.sync,
            scale=given.scale,
            running=running,
            last=self.carry_state,
            as_spikes=as_spikes and self.is_binary,
            dense=dense,
            look=not as_spikes,
        )
        if stats is not None and moments is not None:
            stats.record(self, moments, x.numel() // (x.shape[0] * x.shape[2]) * spikes.shape[0])
        if self.carry_state:
            self.u, self._had_gradient = u.detach(), u.requires_grad
        return spikes if isinstance(spikes, Spikes) else self.emit(spikes)

    def meet(self, norm: TDBatchNorm2d) -> None:
        """Nothing: for variants whose constants follow the norm in front, before each forward."""

    def options(self) -> ops.NeuronOptions:
        """The equations of these neurons as the operations take them."""
        decay, v_threshold = self.constants()
        return {
            "decay": decay,
            "v_threshold": v_threshold,
            "v_reset": self.v_reset,
            "reset_by": self.reset_by,
            "detach_reset": self.detach_reset,
            "surrogate": self.surrogate,
        }

    def input_gain(self) -> Tensor | None:
        """A scalar that the input current is multiplied by; None: by nothing."""
        return None

    def firing_current(self) -> float:
        """The threshold over the gain of the input."""
        gain = self.input_gain()
        return self.v_threshold if gain is None else over(self.v_threshold, gain)

    def constants(self) -> tuple[float | Tensor, float | Tensor]:
        """Decay and threshold: numbers, or tensors of the graph that are learnt."""
        return self.decay, self.v_threshold

    @property
    def is_binary(self) -> bool:
        """True if every output is exactly 0 or 1 (a NaN membrane does not fire).

        A class with its own `emit` overrides it together with that.
        """
        return type(self).emit is LIF.emit and "emit" not in self.__dict__

    def emit(self, spikes: Tensor) -> Tensor:
        """What leaves the layer for its spikes `[T, B, C, ...]`: the spikes."""
        return spikes

    @entry
    def membrane(self, x: Tensor) -> Tensor:
        """u_pre `[T, B, C, ...]` for the input current x, without gradient: to look at."""
        check_axes(x, self.channels)
        decay, v_threshold = (c.detach() if isinstance(c, Tensor) else c for c in self.constants())
        scale = self.input_gain()
        return functional.membrane(
            x if scale is None else x * scale.detach(),
            decay=decay,
            v_threshold=v_threshold,
            v_reset=self.v_reset,
            reset_by=self.reset_by,
            channels=x.shape[2],
        )

    @entry
    def step(self, x: Tensor) -> Tensor:
        """Spikes `[B, C, ...]` of one time step; only with carry_state=True."""
        functional.check_carry(self.carry_state)
        ops.check_current(x)
        return self.forward(x.unsqueeze(0)).squeeze(0)

    def reset_state(self) -> None:
        """Bring a carried membrane back to rest."""
        self.u, self._had_gradient = None, False

    def extra_repr(self) -> str:
        """The values that differ between neurons."""
        return (
            f"decay={self.decay}, v_threshold={self.v_threshold}, v_reset={self.v_reset}, "
            + (f"reset_by={self.reset_by}, " if self.reset_by is not None else "")
            + f"detach_reset={self.detach_reset}, surrogate={self.surrogate}"
        )


class IF(LIF):
    """Integrate-and-fire neurons: `LIF` without leak, decay = 1.

    channels, reset_by, others: of `LIF`.

    Raises `UserError` for values out of range.
    """

    @checked(**{**ADVICE, "decay": "LIF(decay=...): IF has none"})
    def __init__(
        self,
        channels: int | None = None,
        *,
        reset_by: float | None = None,
        **lif: Unpack[IFOptions],
    ) -> None:
        super().__init__(channels, decay=1.0, reset_by=reset_by, **lif)


def _no_residual(residual: object) -> NoReturn:
    """Raise the error for a shortcut that is no tensor."""
    problem = Problem(f"residual is a {type(residual).__name__}", "not a tensor", "x's own shape")
    raise UserError("no shortcut", [problem])


def _no_norm(norm: object) -> UserError:
    """The error for a norm that cannot run in one operation with neurons."""
    problem = Problem(
        f"norm = {type(norm).__name__}",
        "is no TDBatchNorm2d",
        "or apply it before: lif(norm(x))",
    )
    return UserError("no norm for neurons over time", [problem])
