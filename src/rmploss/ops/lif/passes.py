"""Forward and backward of a layer, by the kernels of the backend that its inputs name."""

from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from rmploss.errors import UserError
from rmploss.ops import layout
from rmploss.ops.collectives import ranks
from rmploss.ops.lif import native, stepwise, tdbn, triton
from rmploss.ops.lif.inputs import LIFInputs, LIFOutputs, LIFRows, Places, Readers
from rmploss.ops.lif.tdbn import Running


class Kernels(Protocol):
    """The functions of a backend's file: `native.py` and `triton.py` beside this one.

    READS_HALF: y, residual and the gradient of the spikes may be of half precision.
    WRITES_DENSE: spikes are written as numbers even where bits are wanted, as the convolutions of
    this backend read numbers.
    SCALES: kernels multiply the gain by `LIFRows.scale`; otherwise it is a part of the gain.
    TRACKS: `statistics` updates the running ones.
    FORKS: `backward` adds up the gradients of several readers of the spikes.
    TAKES_STEPS: moments of every step are taken in one pass; otherwise in one per step.
    """

    READS_HALF: bool
    WRITES_DENSE: bool
    SCALES: bool
    TRACKS: bool
    FORKS: bool
    TAKES_STEPS: bool

    def forward(self, rows: LIFRows, dense: bool, bits: bool, last: bool) -> tuple[Tensor, ...]:
        """Spikes `[T, R, C]`, moments `[4, C]`, last u `[R, C]`, bits and their number.

        Where it TAKES_STEPS, moments are `[T, 4, C]` with `NeuronNumbers.per_step`.
        Spikes, moments, last u and bits are empty if not asked for.
        """
        ...

    def backward(
        self,
        rows: LIFRows,
        g_spikes: Tensor | None,
        g_moments: Tensor | None,
        g_last: Tensor | None,
        constants: bool,
        readers: Readers | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of x `[T, R, C]` and of start `[R, C]`, and sums `[4, C]`.

        The first has the type `LIFRows.current_dtype`, or is wider.
        Of a static y the gradient is summed, `[1, R, C]`; without a start its gradient is empty.
        readers: only where this backend FORKS; parts of the spikes' gradient beside g_spikes.
        The sums are the gradients of bias, gain, decay and threshold; the last two need not be
        right without `constants`.
        """
        ...

    def statistics(self, y: Tensor, running: Running | None = None) -> Tensor:
        """Mean, biased variance and number of values per channel, float64 `[3, C]`.

        running: updated by them, where this backend TRACKS.
        """
        ...

    def norm_gradient(self, rows: LIFRows, g_x: Tensor, sums: Tensor, out: Tensor) -> None:
        """out = gain inverse (g_x - S_1 / n - z S_2 / n), z = (y - mean) inverse: of Eqs. 6-7.

        sums: S_1 = sum g_x and `LIFRows.scale` S_2 = sum g_x z over all n values, the first two
            rows of a tensor `[.., C]`.
        out: of the type of y; may be g_x.
        """
        ...


KERNELS: dict[str, Kernels] = {"cpu": native, "triton": triton}  # pyright: ignore[reportAssignmentType]
"""Backend -> its kernels."""

NO_PLACES = Places(None, None)


def forward(*arguments: Any) -> LIFOutputs:
    """The outputs of the `LIFInputs` whose fields are given."""
    inputs = LIFInputs(*arguments)
    inputs.check()
    kernels, y = KERNELS[inputs.backend], inputs.y
    rows = LIFRows.of(inputs, kernels.READS_HALF, kernels.SCALES)
    statistics = torch.empty(0, dtype=torch.float64, device=y.device)
    if inputs.eps is not None:
        statistics = kernels.statistics(rows.y, inputs.running)
        if ranks(inputs.sync) > 1:
            statistics = tdbn.over_ranks(statistics)
        rows = rows._replace(statistics=statistics, eps=inputs.eps)
    wanted = (inputs.dense, inputs.bits, inputs.last)
    run = kernels.forward
    if rows.neuron.moments and rows.neuron.per_step and not kernels.TAKES_STEPS:
        run = partial(stepwise.forward, kernels)
    spikes, moments, last, bits, count = run(rows, *wanted)
    if inputs.dense:
        spikes = layout.sequence(spikes, y).to(y.dtype)
    else:
        spikes = y.new_full((), float("nan")).expand(inputs.steps, *y.shape[1:])
    if inputs.last:
        last = layout.whole(layout.state(last, y))
    return LIFOutputs(layout.whole(spikes), moments, last, statistics, bits, count)


class Gradients(NamedTuple):
    """The gradients of y, residual and u (empty without them), and of bias, gain, decay, threshold.

    The last four are the rows of `sums` `[4, C]`.
    """

    y: Tensor
    residual: Tensor
    u: Tensor
    sums: Tensor


def backward(
    inputs: LIFInputs,
    statistics: Tensor,
    g_spikes: Tensor | None,
    g_moments: Tensor | None,
    g_last: Tensor | None,
    constants: bool,
    places: Places = NO_PLACES,
) -> Gradients:
    """The gradients of the inputs; those of decay and threshold only with `constants`.

    places: the gradients that arrived there.
    """
    inputs.check()
    _check_gradients(inputs, statistics, g_spikes, g_moments, g_last, places)
    kernels, y = KERNELS[inputs.backend], inputs.y
    rows = LIFRows.of(inputs, kernels.READS_HALF, kernels.SCALES)
    if inputs.eps is not None:
        rows = rows._replace(statistics=statistics, eps=inputs.eps)
    run: Any = kernels.backward
    if g_moments is not None and rows.neuron.per_step and not kernels.TAKES_STEPS:
        run = partial(stepwise.backward, kernels)
    g_x, g_start, sums = run(
        rows,
        None if g_spikes is None else layout.rows(g_spikes, rows.y.dtype),
        None if g_moments is None else g_moments.contiguous(),
        None if g_last is None else layout.state_rows(g_last),
        constants,
        Readers.of(places, y, rows.y.dtype),
    )
    has_residual = inputs.residual is not None or inputs.residual_bits is not None
    g_residual = layout.sequence(g_x, y) if has_residual else y.new_empty(0)
    if inputs.eps is not None:
        totals = sums[:2]
        if ranks(inputs.sync) > 1:
            totals = totals.double().clone()  # a rank's own sums are what weight and bias get
            dist.all_reduce(totals)
        in_place = not has_residual and g_x.dtype == rows.y.dtype
        g_y = g_x if in_place else torch.empty_like(rows.y)
        kernels.norm_gradient(rows, g_x, totals, g_y)
    elif rows.gain is not None:
        g_y = g_x * rows.gain
        if rows.scale != 1:
            g_y = g_y * rows.scale
    else:  # an operation returns no tensor twice
        g_y = g_x.clone() if has_residual else g_x
    if inputs.scale != rows.scale:
        sums[1] *= inputs.scale
    g_u = g_start if inputs.u is None else layout.state(g_start, y)
    g_residual = g_residual.to(inputs.current_dtype)
    return Gradients(layout.sequence(g_y, y).to(y.dtype), g_residual, g_u, sums)


def _check_gradients(
    inputs: LIFInputs,
    statistics: Tensor,
    g_spikes: Tensor | None,
    g_moments: Tensor | None,
    g_last: Tensor | None,
    places: Places,
) -> None:
    """Raise `UserError` for tensors of backward that do not fit y."""
    y = inputs.y
    C, whole = y.shape[2], (inputs.steps, *y.shape[1:])
    expected = [
        ("gradient of the spikes", g_spikes, whole),
        ("gradient of the moments", g_moments, inputs.moments_shape),
        ("gradient of the last membrane", g_last, y.shape[1:]),
        ("statistics", statistics, (0,) if inputs.eps is None else (3, C)),
    ]
    if places is not NO_PLACES:
        squares = (*whole[:3], *(side // 2 for side in whole[3:]))
        expected.append(("gradient of the shortcut", places.shortcut, whole))
        expected.append(("gradient of the means", places.means, squares))
    for name, tensor, shape in expected:
        if tensor is not None and tuple(tensor.shape) != tuple(shape):
            raise UserError(f"{name}: {list(tensor.shape)} is not {list(shape)}")
    if statistics.dtype != torch.float64:
        raise UserError(f"statistics: {statistics.dtype} is not float64")
