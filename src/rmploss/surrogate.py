"""Surrogate gradients: smooth replacements of the derivative of the firing function (Eqs. 2, 5).

The firing function is a step, `o = 1 if v >= 0 else 0`, of the distance to the threshold
`v = u_pre - v_threshold`. Its derivative is zero almost everywhere, so backward uses the derivative
of a smooth `primitive` phi(v) instead. A surrogate has two methods, its primitive and that
derivative; a test compares them by finite differences. All quantities are dimensionless.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmploss.arguments import checked_fields
from rmploss.errors import Problem, UserError
from rmploss.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Surrogate(ABC):
    """A firing function: exact spikes forward, the derivative of `primitive` backward."""

    @abstractmethod
    def primitive(self, v: Tensor) -> Tensor:
        """phi(v), the smooth function that replaces the step; same shape as `v`."""

    @abstractmethod
    def derivative(self, v: Tensor) -> Tensor:
        """dphi/dv; same shape as `v`."""

    @property
    def half_width(self) -> float | None:
        """The |v| beyond which the derivative is 0; None where it is 0 nowhere."""
        return None

    def __call__(self, v: Tensor) -> Tensor:
        """Spikes `1[v >= 0]` (Eq. 2); v: the distance to the threshold, any shape."""
        # torch.compile refuses a function that has a forward-mode derivative of its own.
        fire = _Fire if torch.compiler.is_compiling() else _FireBothModes
        return fire.apply(v, self)

    def _require_positive(self, *fields: str) -> None:
        values = {field: getattr(self, field) for field in fields}
        problems = [
            Problem(f"{type(self).__name__}.{field} = {value!r}", "must be positive and finite")
            for field, value in values.items()
            if not (value > 0 and math.isfinite(value))
        ]
        if problems:
            raise UserError("bad surrogate", problems)


class _Fire(torch.autograd.Function):
    """The step function with a surrogate derivative."""

    generate_vmap_rule = True  # possible: forward and backward are PyTorch operations

    @staticmethod
    def forward(v: Tensor, surrogate: Surrogate) -> Tensor:
        return (v >= 0).to(v.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        v, ctx.surrogate = inputs
        ctx.save_for_backward(v)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return grad_outputs[0] * ctx.surrogate.derivative(v), None


class _FireBothModes(_Fire):
    """`_Fire` with its derivative in forward mode, too (`torch.func.jvp`)."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        _Fire.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Tensor:
        (v,) = ctx.saved_tensors
        return grad_inputs[0] * ctx.surrogate.derivative(v)


@checked_fields
@dataclass(frozen=True, kw_only=True)
class ClippedTanh(Surrogate):
    """Eq. 5: a tanh that runs from 0 to 1 over `|v| <= 1/2` and is constant outside.

    phi(v) = tanh(s v) / (2 tanh(s/2)) + 1/2, with s = `slope` = 3 in the paper. Eq. 5 is written in
    `u` for V_th = 1/2, where v = u - 1/2; for another threshold the window moves with it.
    """

    slope: float = 3.0

    def __post_init__(self) -> None:
        self._require_positive("slope")

    def primitive(self, v: Tensor) -> Tensor:
        """phi(v) of Eq. 5."""
        v = v.clamp(-0.5, 0.5)
        return torch.tanh(self.slope * v) / (2 * math.tanh(self.slope / 2)) + 0.5

    def derivative(self, v: Tensor) -> Tensor:
        """s (1 - tanh(s v)^2) / (2 tanh(s/2)) on [-1/2, 1/2], both ends included; 0 outside."""
        scale = self.slope / (2 * math.tanh(self.slope / 2))
        inside = (v.abs() <= 0.5).to(v.dtype)
        return scale * (1 - torch.tanh(self.slope * v).square()) * inside

    @property
    def half_width(self) -> float:
        """1/2."""
        return 0.5


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Rectangle(Surrogate):
    """STBP (Wu et al. 2018, Eq. 24 of the first paper): height 1/a over `|v| < a/2`; a = `width`.

    phi(v) = clamp(v/a + 1/2, 0, 1).
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        self._require_positive("width")

    def primitive(self, v: Tensor) -> Tensor:
        """A ramp from 0 to 1 over the width."""
        return (v / self.width + 0.5).clamp(0, 1)

    def derivative(self, v: Tensor) -> Tensor:
        """1/a inside the open interval, 0 outside."""
        return (v.abs() < self.width / 2).to(v.dtype) / self.width

    @property
    def half_width(self) -> float:
        """a/2."""
        return self.width / 2


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Triangle(Surrogate):
    """A tent of height d/w over `|v| < w` (TET: w = 1, d = 1; Bellec et al. 2018: d = 0.3).

    phi(v) = 1/2 + d sign(v) (m - m^2/2) with m = min(|v|/w, 1), w = `width`, d = `damping`.
    """

    width: float = 1.0
    damping: float = 1.0

    def __post_init__(self) -> None:
        self._require_positive("width", "damping")

    def primitive(self, v: Tensor) -> Tensor:
        """The integral of the tent: two parabolas, from (1 - d)/2 to (1 + d)/2."""
        m = (v.abs() / self.width).clamp(max=1)
        return 0.5 + self.damping * v.sign() * (m - m.square() / 2)

    def derivative(self, v: Tensor) -> Tensor:
        """d max(0, 1 - |v|/w) / w."""
        return (1 - v.abs() / self.width).clamp(min=0) * (self.damping / self.width)

    @property
    def half_width(self) -> float:
        """w."""
        return self.width


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Sigmoid(Surrogate):
    """The logistic function, phi(v) = 1 / (1 + exp(-a v)) with a = `alpha`."""

    alpha: float = 4.0

    def __post_init__(self) -> None:
        self._require_positive("alpha")

    def primitive(self, v: Tensor) -> Tensor:
        """sigmoid(a v)."""
        return torch.sigmoid(self.alpha * v)

    def derivative(self, v: Tensor) -> Tensor:
        """a s (1 - s) with s = sigmoid(a v)."""
        s = torch.sigmoid(self.alpha * v)
        return self.alpha * s * (1 - s)


@checked_fields
@dataclass(frozen=True, kw_only=True)
class ArcTan(Surrogate):
    """phi(v) = arctan(pi/2 a v) / pi + 1/2 with a = `alpha` (Fang et al. 2021, PLIF and SEW)."""

    alpha: float = 2.0

    def __post_init__(self) -> None:
        self._require_positive("alpha")

    def primitive(self, v: Tensor) -> Tensor:
        """arctan(pi/2 a v) / pi + 1/2."""
        return torch.atan(math.pi / 2 * self.alpha * v) / math.pi + 0.5

    def derivative(self, v: Tensor) -> Tensor:
        """a/2 / (1 + (pi/2 a v)^2)."""
        return self.alpha / 2 / (1 + (math.pi / 2 * self.alpha * v).square())


SURROGATES: Registry[type[Surrogate]] = Registry(
    "surrogate",
    {
        "clipped_tanh": "rmploss.surrogate:ClippedTanh",
        "rectangle": "rmploss.surrogate:Rectangle",
        "triangle": "rmploss.surrogate:Triangle",
        "sigmoid": "rmploss.surrogate:Sigmoid",
        "arctan": "rmploss.surrogate:ArcTan",
    },
    family="surrogate",
)


def as_surrogate(surrogate: str | Surrogate) -> Surrogate:
    """The surrogate of a name in `SURROGATES`, with default options; a `Surrogate` as it is."""
    if isinstance(surrogate, str):
        return SURROGATES.make(surrogate)
    if not isinstance(surrogate, Surrogate):
        where, names = f"surrogate = {surrogate!r}", ", ".join(SURROGATES)
        raise UserError("bad surrogate", [Problem(where, "must be a name", f"one of {names}")])
    return surrogate
