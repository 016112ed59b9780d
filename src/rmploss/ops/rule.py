"""What a fused kernel must know of a neuron, as plain numbers.

`torch.library` operations take tensors and numbers, so the surrogate and the `MomentSpec` travel as
numbers. A rule is what the reference reads from these objects; `rule_of` says why there is none for
an object that no kernel knows.
"""

from collections.abc import Sequence
from typing import NamedTuple, NotRequired, TypedDict

from torch import Tensor

from rmploss.ops.moments import MomentSpec
from rmploss.surrogate import ArcTan, ClippedTanh, Rectangle, Sigmoid, Surrogate, Triangle


class NeuronOptions(TypedDict):
    """The keyword arguments that every operation with neurons shares (Eqs. 1-3).

    decay, v_threshold: a number, or one per channel `[C]`, learnable or not; v_reset: the
    potential after a spike, None for the soft reset, which subtracts reset_by (None: the
    threshold); moments: which membrane moments to take.
    """

    decay: float | Tensor
    v_threshold: float | Tensor
    v_reset: float | None
    reset_by: NotRequired[float | None]
    detach_reset: bool
    surrogate: Surrogate
    moments: NotRequired[MomentSpec | None]


PARAMETERS: dict[type[Surrogate], str] = {
    ClippedTanh: "slope",
    Rectangle: "width",
    Triangle: "width",
    Sigmoid: "alpha",
    ArcTan: "alpha",
}
"""A surrogate that kernels know -> the field that holds its one parameter."""
KINDS: dict[type[Surrogate], int] = {kind: number for number, kind in enumerate(PARAMETERS)}
"""Surrogate -> its number. Triton's kernels take it from here, `cpu.py` translates it by name."""
RESETS = ("HARD", "SOFT", "SOFT_BY_NUMBER")
"""The resets: to v_reset; by the threshold; by reset_by."""
HARD, SOFT, SOFT_BY_NUMBER = range(len(RESETS))


class Rule(NamedTuple):
    """A neuron and its moments as numbers.

    slope, damping: the parameter of the surrogate, and the factor on a tent's height; reset_to:
    the potential after a hard reset, or what a soft one subtracts (`SOFT_BY_NUMBER`).
    """

    reset_to: float
    slope: float
    damping: float
    p: float
    reset: int
    detach_reset: bool
    surrogate: int
    moments: bool
    of_input: bool
    detach_target: bool

    @property
    def numbers(self) -> list[float]:
        """Its fields as numbers, for a schema."""
        return [float(value) for value in self]

    @staticmethod
    def read(numbers: Sequence[float]) -> "Rule":
        """The rule that `numbers` were made from; a rule itself as it is."""
        if isinstance(numbers, Rule):
            return numbers
        reset_to, slope, damping, p, reset, detach, surrogate, moments, of_input, target = numbers
        return Rule(
            reset_to, slope, damping, p, int(reset), bool(detach), int(surrogate),
            bool(moments), bool(of_input), bool(target),
        )  # fmt: skip


def rule_of(neuron: NeuronOptions) -> Rule | str:
    """The rule of a neuron, or the reason why no kernel knows it."""
    surrogate = neuron["surrogate"]
    if type(surrogate) not in KINDS:
        return f"the surrogate {type(surrogate).__name__} has no fused form"
    spec = neuron.get("moments")
    moments = spec or MomentSpec()
    reset, reset_to = HARD, neuron["v_reset"]
    if reset_to is None:
        reset_to = neuron.get("reset_by")
        reset = SOFT if reset_to is None else SOFT_BY_NUMBER
    return Rule(
        reset_to=reset_to or 0.0,
        slope=getattr(surrogate, PARAMETERS[type(surrogate)]),
        damping=surrogate.damping if isinstance(surrogate, Triangle) else 1.0,
        p=moments.p,
        reset=reset,
        detach_reset=neuron["detach_reset"],
        surrogate=KINDS[type(surrogate)],
        moments=spec is not None,
        of_input=moments.potential == "input",
        detach_target=moments.detach_target,
    )
