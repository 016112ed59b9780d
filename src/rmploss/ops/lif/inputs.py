"""The inputs of the LIF operation: the options of a neuron, and the record of one call.

`LIFInputs` holds the tensors in the caller's shapes, and is checked once, before an address of it
reaches a kernel. `LIFRows` is the same as channels-last rows, which kernels read. The fields name
everything once: the schema of the registered operation is made from them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor

from rmploss.entry import is_proxy
from rmploss.errors import Problem, UserError
from rmploss.ops import layout, native
from rmploss.ops.constants import filled
from rmploss.ops.lif.moments import MomentSpec
from rmploss.ops.lif.tdbn import Running
from rmploss.ops.spikes.value import Spikes
from rmploss.sizes import room_problems
from rmploss.surrogate import ArcTan, ClippedTanh, Rectangle, Sigmoid, Surrogate, Triangle


class NeuronOptions(TypedDict):
    """The keyword arguments that every operation with neurons shares (Eqs. 1-3).

    decay, v_threshold: a number, or one per channel `[C]`, learnable or not.
    v_reset: the potential after a spike; None for the soft reset, which subtracts reset_by.
    reset_by: None for the threshold.
    detach_reset: True keeps the gradient out of the reset.
    surrogate: the derivative of a spike by the membrane.
    moments: which membrane moments to take; None for none.
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
"""A surrogate that kernels compute -> the field that holds its one parameter."""
KINDS: dict[type[Surrogate], int] = {kind: number for number, kind in enumerate(PARAMETERS)}
"""Surrogate -> its number. Triton's kernels take it from here, the native ones by its name."""
assert tuple(kind.__name__ for kind in KINDS) == native.SURROGATES
HARD, SOFT, SOFT_BY_NUMBER = range(len(native.RESETS))
"""The resets: to v_reset; by the threshold; by reset_by."""


class NeuronNumbers(NamedTuple):
    """The numbers by which a kernel computes a neuron and its moments.

    reset_to: the potential after a hard reset, or what a soft one subtracts (`SOFT_BY_NUMBER`).
    slope: the parameter of the surrogate.
    damping: the factor on the height of a triangle.
    p: the exponent of Eq. 9.
    reset: HARD, SOFT or SOFT_BY_NUMBER.
    detach_reset: as in `NeuronOptions`.
    surrogate: its number in `KINDS`.
    moments: whether to take them.
    of_input, detach_target, per_step: as `potential`, `detach_target` and `per_step` of the
        `MomentSpec`.
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
    per_step: bool

    @staticmethod
    def of(neuron: NeuronOptions) -> "NeuronNumbers | str":
        """The numbers of a neuron, or the reason why no kernel computes it."""
        surrogate = neuron["surrogate"]
        kind = KINDS.get(type(surrogate))
        if kind is None:
            return f"the surrogate {type(surrogate).__name__} has no fused form"
        spec = neuron.get("moments")
        moments = spec or DEFAULT_MOMENTS
        reset, reset_to = HARD, neuron["v_reset"]
        if reset_to is None:
            reset_to = neuron.get("reset_by")
            reset = SOFT if reset_to is None else SOFT_BY_NUMBER
        return NeuronNumbers(
            reset_to=reset_to or 0.0,
            slope=getattr(surrogate, PARAMETERS[type(surrogate)]),
            damping=surrogate.damping if isinstance(surrogate, Triangle) else 1.0,
            p=moments.p,
            reset=reset,
            detach_reset=neuron["detach_reset"],
            surrogate=kind,
            moments=spec is not None,
            of_input=moments.potential == "input",
            detach_target=moments.detach_target,
            per_step=moments.per_step,
        )

    @staticmethod
    def read(numbers: Sequence[float]) -> "NeuronNumbers":
        """The record that the numbers of a schema were made from."""
        *real, reset, detach, kind, moments, of_input, target, per_step = numbers
        flags = bool(moments), bool(of_input), bool(target), bool(per_step)
        return NeuronNumbers(*real, int(reset), bool(detach), int(kind), *flags)  # pyright: ignore[reportArgumentType, reportCallIssue]


CURRENTS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""The types of an input current."""
DEFAULT_MOMENTS = MomentSpec()
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
RESET = ": call reset_state() before a batch of another shape"


class LIFInputs(NamedTuple):
    """The tensors and numbers of one call of the operation.

    The input current is x(t) = (y(t) - mean) gain + bias + residual(t).

    backend: the one that runs.
    y: `[T, B, C, ...]`, or `[1, B, C, ...]` that stands for `steps` equal steps.
    gain, bias: `[C]`, or None for 1 and 0.
    residual: `[T, B, C, ...]` or None; only its gradient counts where there are `residual_bits`.
    residual_bits: the residual as bits, `[T R, words]`.
    u: the membrane before the first step `[B, C, ...]`; None for rest.
    decay, threshold: `[C]`.
    steps: T.
    eps: with it tdBN comes first (Eqs. 6-7): mean and variance of y, and gain / sqrt(var + eps).
        None: the mean is 0.
    sync: take mean and variance over all ranks of a process group.
    neuron: the neuron as numbers.
    scale: a factor of the gain, alpha V_th of Eq. 6.
    running_mean, running_var: `[C]`, or None: running statistics that are to be updated.
    momentum: the share of the new ones.
    values: the number of values that they are of, equal steps and all ranks included.
    dense: write the spikes as numbers, in the type of y. False: see `LIFOutputs`.
    bits: write the spikes as bits.
    last: whether the membrane after the last step is wanted.
    look: whether backward may look at a residual to see if it is all 0 and 1, and keep its bits.

    y and residual may be of half precision; all else has the type that is computed in, float32 or
    float64.
    """

    backend: str
    y: Tensor
    gain: Tensor | None
    bias: Tensor | None
    residual: Tensor | None
    residual_bits: Tensor | None
    u: Tensor | None
    decay: Tensor
    threshold: Tensor
    steps: int
    eps: float | None
    sync: bool
    scale: float
    running_mean: Tensor | None
    running_var: Tensor | None
    momentum: float
    values: int
    neuron: Sequence[float]
    dense: bool
    bits: bool
    last: bool
    look: bool

    @staticmethod
    def of(
        backend: str,
        numbers: Sequence[float],
        neuron: NeuronOptions,
        y: Tensor,
        *,
        u: Tensor | None,
        gain: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | Spikes | None,
        repeats: int,
        eps: float | None,
        sync: bool,
        scale: float,
        running: Running | None,
        dense: bool,
        bits: bool,
        last: bool,
        look: bool,
    ) -> "LIFInputs":
        """The inputs of a call, of their final types. Raises `UserError` for a y that is none.

        repeats: y `[1, B, C, ...]` stands for that many equal steps.
        """
        if not y.is_floating_point() or y.layout is not torch.strided:
            check_current(y)
        if y.ndim < 3 or not y.numel():
            raise UserError(
                f"x has shape {list(y.shape)}; a neuron needs [T, B, C, ...], time first, none 0"
            )
        if not isinstance(repeats, int) or repeats < 1 or (repeats > 1 and y.shape[0] != 1):
            raise UserError(f"repeats = {repeats} needs one time step, x has shape {list(y.shape)}")
        if repeats > 1 and not y.is_meta and not torch.compiler.is_compiling():
            _require_room(repeats, y.numel())
        dtype = torch.float64 if y.dtype == torch.float64 else torch.float32
        steps, found = y.shape[0] * repeats, None
        if isinstance(residual, Spikes):
            residual, found = residual.as_bits()
        if residual is not None:
            if repeats > 1:  # a shortcut changes over time
                y = y.expand(steps, *y.shape[1:])
            if found is None and residual.dtype != y.dtype:
                residual = residual.to(dtype)
        return LIFInputs(
            backend,
            y,
            gain if gain is None else gain.to(dtype).contiguous(),
            bias if bias is None else bias.to(dtype).contiguous(),
            residual,
            found,
            u if u is None else u.to(dtype),
            _constant(neuron["decay"], y, dtype),
            _constant(neuron["v_threshold"], y, dtype),
            steps,
            eps,
            sync,
            scale,
            *(running or (None, None, 0.0, 0)),
            numbers,
            dense,
            bits,
            last,
            look,
        )

    def check(self) -> None:
        """Raise `UserError` for the first tensor that does not fit y: kernels check no bounds."""
        y, T, dtype = self.y, self.steps, self.decay.dtype
        if dtype not in native.TYPES:
            raise UserError(f"decay is {dtype}; neurons are computed in float32 or float64")
        if y.ndim < 3 or not y.numel() or T < 1:
            raise UserError(f"y has shape {list(y.shape)} for {T} steps; it needs [T, B, C, ...]")
        step, C = tuple(y.shape[1:]), y.shape[2]
        if y.shape[0] not in (1, T):
            raise UserError(f"y has {y.shape[0]} steps, not 1 or {T}")
        if y.shape[0] < T and (self.residual is not None or self.residual_bits is not None):
            raise UserError("a residual changes over time: one step of y cannot stand for all")
        if self.eps is not None and (self.gain is None or self.bias is None):
            raise UserError("eps needs a gain and a bias")
        words = (T * y[0].numel() // C, -(-C // 64))
        for name, x, shape, types in (
            ("input current", y, y.shape, (dtype, torch.float16, torch.bfloat16)),
            ("decay", self.decay, (C,), (dtype,)),
            ("threshold", self.threshold, (C,), (dtype,)),
            ("gain", self.gain, (C,), (dtype,)),
            ("bias", self.bias, (C,), (dtype,)),
            ("carried membrane", self.u, step, (dtype,)),
            ("residual", self.residual, (T, *step), (y.dtype, dtype)),
            ("residual's bits", self.residual_bits, words, (torch.int64,)),
            ("running mean", self.running_mean, (C,), FLOATS),
            ("running variance", self.running_var, (C,), FLOATS),
        ):
            if x is None:
                if name in ("decay", "threshold"):
                    raise UserError(f"the {name} is missing")
                continue
            if x.device != y.device:
                raise UserError(f"the {name} is on {x.device}, the input current on {y.device}")
            # Of a residual whose bits are given only the shape and the gradient count.
            is_edge = name == "residual" and self.residual_bits is not None
            if x.dtype not in types and not is_edge:
                raise UserError(f"the {name} is {x.dtype}, to be computed in {dtype}")
            if x.shape != shape:
                raise UserError(
                    f"the {name} has shape {list(x.shape)}, the input current {list(y.shape)} "
                    f"needs {list(shape)}" + (RESET if name == "carried membrane" else "")
                )

    @property
    def moments_shape(self) -> tuple[int, ...]:
        """Of the moments, where they are taken."""
        C = self.y.shape[2]
        return (self.steps, 4, C) if NeuronNumbers(*self.neuron).per_step else (4, C)  # pyright: ignore[reportArgumentType]

    @property
    def current_dtype(self) -> torch.dtype:
        """The type of the gradient of x(t): that of the residual, or of y."""
        return self.y.dtype if self.residual is None else self.residual.dtype

    @property
    def running(self) -> Running | None:
        """The running statistics that are to be updated."""
        if self.running_mean is None or self.running_var is None:
            return None
        return Running(self.running_mean, self.running_var, self.momentum, self.values)

    @property
    def schema(self) -> tuple[Any, ...]:
        """The fields as a registered operation takes them."""
        return self._replace(neuron=[float(number) for number in self.neuron])


SCHEMA = ", ".join(
    {
        str: "str", Tensor: "Tensor", Tensor | None: "Tensor?", int: "SymInt", bool: "bool",
        float: "float", float | None: "float?", Sequence[float]: "float[]",
    }[hint] + f" {name}"
    for name, hint in LIFInputs.__annotations__.items()
)  # fmt: skip
"""The arguments of the registered operation: the fields of `LIFInputs` in their order."""


class LIFOutputs(NamedTuple):
    """What the operation returns.

    spikes: `[T, B, C, ...]` in the type of y. Without `dense` a tensor of that shape over a single
        NaN (stride 0): it has the spikes' place in the graph, and their numbers are in the bits.
    moments: `[4, C]`, per step `[T, 4, C]`, or empty.
    u: the membrane after the last step, `[B, C, ...]`, or empty.
    statistics: of y, mean, biased variance and number of values, float64 `[3, C]`; or empty.
    bits: of the spikes, `[T R, words]`, or empty.
    spike_count: how many spikes there are, `[]`; on a GPU, where no kernel reads it, any number.
    """

    spikes: Tensor
    moments: Tensor
    u: Tensor
    statistics: Tensor
    bits: Tensor
    spike_count: Tensor


class Places(NamedTuple):
    """Places of the spikes in the graph of autograd beside `LIFOutputs.spikes`, one per reader.

    Tensors over a single number of any value (stride 0). What reads the spikes at a place of its
    own leaves its gradient there, and backward adds it up with the others in the pass that it makes
    anyway, where autograd would write the sum of two and read it again.

    shortcut: `[T, B, C, ...]`, for a residual that is read as bits.
    means: `[T, B, C, H / 2, W / 2]`, of their means over 2x2 squares; None where no squares tile y.
    """

    shortcut: Tensor | None
    means: Tensor | None

    @staticmethod
    def of(inputs: "LIFInputs") -> "Places":
        """Those of a call."""
        y, step = inputs.y, inputs.y.shape[1:]
        any_number, means = y.new_empty(()), None
        if y.ndim == 5 and not (step[2] % 2 or step[3] % 2):
            halved = (inputs.steps, *step[:2], step[2] // 2, step[3] // 2)
            means = layout.whole(any_number.expand(halved))
        return Places(layout.whole(any_number.expand(inputs.steps, *step)), means)

    def added_to(self, g_spikes: Tensor | None) -> Tensor | None:
        """The gradient of the spikes, of that at `LIFOutputs.spikes` and those at these places."""
        means = self.means
        if means is not None:
            means = means.repeat_interleave(2, -2).repeat_interleave(2, -1) / 4
        found = [g for g in (g_spikes, self.shortcut, means) if g is not None]
        return sum(found[1:], found[0]) if found else None


class Readers(NamedTuple):
    """The gradients that arrive at `Places`, as rows `[T, R, C]` and `[T, R / 4, C]`, or None.

    width: of the maps, W.
    """

    shortcut: Tensor | None
    means: Tensor | None
    width: int

    @staticmethod
    def of(places: Places, y: Tensor, dtype: torch.dtype) -> "Readers | None":
        """The rows of gradients `places` that arrive at spikes of y; None where there are none."""
        if places.shortcut is places.means is None:
            return None
        shortcut, means = (None if g is None else layout.rows(g, dtype) for g in places)
        return Readers(shortcut, means, y.shape[-1])


class LIFRows(NamedTuple):
    """`LIFInputs` as kernels read them: channels-last rows, R = B H W.

    y: `[T, R, C]`, or `[1, R, C]` for `steps` equal steps.
    statistics: of y, float64 `[3, C]`: with them the mean is theirs, and the gain is multiplied by
        1 / sqrt(var + eps), in float64 and rounded once (Eq. 6). None: the mean is 0.
    residual: `[T, R, C]` or None; residual_bits: `[T R, words]` or None.
    start: the membrane before the first step `[R, C]`, None for rest.
    current_dtype: as in `LIFInputs`.
    scale: a factor of the gain that kernels multiply it by.
    gain, bias, decay, threshold, steps, eps: as in `LIFInputs`.
    """

    y: Tensor
    statistics: Tensor | None
    eps: float
    scale: float
    gain: Tensor | None
    bias: Tensor | None
    residual: Tensor | None
    residual_bits: Tensor | None
    start: Tensor | None
    decay: Tensor
    threshold: Tensor
    steps: int
    current_dtype: torch.dtype
    neuron: NeuronNumbers

    @staticmethod
    def of(inputs: LIFInputs, reads_half: bool, scales: bool) -> "LIFRows":
        """The rows of the inputs, without statistics.

        reads_half: y may stay of half precision.
        scales: the kernels multiply the gain by the scale.
        """
        gain, scale = inputs.gain, inputs.scale
        if gain is not None and scale != 1 and not scales:
            gain, scale = gain * scale, 1.0
        y, residual, dtype, neuron = inputs.y, inputs.residual, inputs.decay.dtype, inputs.neuron
        if inputs.residual_bits is not None or residual is None:
            residual = None
        else:
            residual = layout.rows(residual, residual.dtype if reads_half else dtype)
        return LIFRows(
            layout.rows(y, y.dtype if reads_half else dtype),
            None,
            0.0,
            scale,
            gain,
            inputs.bias,
            residual,
            inputs.residual_bits,
            None if inputs.u is None else layout.state_rows(inputs.u),
            inputs.decay,
            inputs.threshold,
            inputs.steps,
            inputs.current_dtype,
            neuron if isinstance(neuron, NeuronNumbers) else NeuronNumbers.read(neuron),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, R, C."""
        return self.steps, self.y.shape[1], self.y.shape[2]

    @property
    def is_static(self) -> bool:
        """True if one step of y stands for all."""
        return self.y.shape[0] < self.steps


def check_current(x: Tensor, name: str = "x") -> None:
    """Raise `UserError` for an input current that is no tensor of real numbers."""
    if not isinstance(x, Tensor | Spikes):
        fix = "torch.as_tensor(x)" if hasattr(x, "__array__") else "a tensor [T, B, C, ...]"
        if is_proxy(x):
            fix = "a layer, LIF(...), which torch.fx records as one node"
        problem = Problem(f"{name} is a {type(x).__name__}", "not a tensor", fix)
        raise UserError("no input current", [problem])
    if x.dtype not in CURRENTS:
        problem = Problem(f"{name} is {x.dtype}", "no floating-point numbers", f"{name}.float()")
        raise UserError("a neuron needs a floating-point input current", [problem])
    if x.layout is not torch.strided:
        problem = Problem(f"{name} is {x.layout}", "is not dense", f"{name}.to_dense()")
        raise UserError("a neuron needs a dense input current", [problem])


def _require_room(repeats: int, values: int) -> None:
    """Raise `UserError` for spikes that no memory here holds; values: of one step."""
    fix, what = "the paper: 1 to 10 time steps", "the spikes of all steps"
    problems = room_problems(f"repeats = {repeats}", repeats * values, fix, what)
    if problems:
        raise UserError("too many time steps", problems)


def _constant(value: float | Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    """A constant as one number per channel `[C]`."""
    C = y.shape[2]
    if isinstance(value, Tensor):
        return value.to(dtype).expand(C).contiguous()
    return filled(value, C, dtype, y.device)
