"""The Triton kernels against the reference: in Triton's interpreter, and compiled where a GPU is.

Triton reads TRITON_INTERPRET when it is imported, so the interpreter has a process of its own: one
test runs this file again. All memory that the backend asks for is NaN at first (conftest.py).
"""

import itertools
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rmploss import LIF, ops
from rmploss.errors import UserError
from rmploss.norm import TDBatchNorm2d
from rmploss.ops import native, triton
from rmploss.ops.lif import triton as kernels
from rmploss.ops.lif.inputs import KINDS, LIFRows, NeuronNumbers
from rmploss.ops.lif.moments import MomentSpec
from rmploss.ops.spike_conv2d import triton as convolution
from rmploss.ops.spike_conv2d.inputs import Spatial
from rmploss.ops.spikes import triton as spikes_triton
from rmploss.ops.spikes.triton import pack_rows, pool_rows, unpack_rows
from rmploss.ops.spikes.value import Spikes
from rmploss.surrogate import SURROGATES
from tests import interpreter
from tests.given import normal

INSTALLED = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NOT_A_NUMBER = Path(__file__).with_name("test_not_a_number.py")
needs_triton = pytest.mark.skipif(not INSTALLED, reason="Triton is not installed")

ROUNDINGS = 100
"""Of a step, backward: some 30 operations, and a surrogate that makes an error of the membrane
3 to 4 times larger. Times the number of steps, and of the terms of a sum: what two orders of the
same arithmetic may differ by, in units of the last place of the largest value."""

SPECS = {
    "p2": MomentSpec(),
    "p1": MomentSpec(p=1, detach_target=False),
    "input": MomentSpec(p=1.5, potential="input"),
    "input-target": MomentSpec(p=1.5, potential="input", detach_target=False),
    "per-step": MomentSpec(p=1, detach_target=False, per_step=True),
    "none": None,
}
RESETS = {"hard": 0.0, "hard-0.3": -0.3, "soft": None}


class Case(NamedTuple):
    """A layer and its inputs; residual: none, dense or spikes."""

    shape: tuple[int, ...] = (3, 2, 5, 2)
    repeats: int = 1
    surrogate: str = "clipped_tanh"
    v_reset: float | None = 0.0
    reset_by: float | None = None
    damping: float | None = None
    detach_reset: bool = False
    spec: str = "p2"
    residual: str = "none"
    carried: bool = False
    affine: bool = True
    norm: bool = False

    @property
    def steps(self) -> int:
        return self.shape[0] * self.repeats


def inputs(case: Case, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """The tensors of a case, all with a gradient."""
    C, sequence = case.shape[2], (case.steps, *case.shape[1:])
    made = {
        "x": normal(*case.shape, mean=0.3),
        "decay": normal(C, mean=0.4, std=0.1, name="decay"),
        "v_threshold": normal(C, mean=0.5, std=0.1, name="threshold"),
    }
    if case.affine or case.norm:
        made["gain"] = normal(C, mean=1, std=0.2, name="gain")
        made["bias"] = normal(C, std=0.2, name="bias")
    if case.residual != "none":
        residual = normal(*sequence, name="residual")
        made["residual"] = (residual > 0.5).double() if case.residual == "spikes" else residual
    if case.carried:
        made["u"] = normal(*case.shape[1:], std=0.3, name="u")
    return {k: v.to(device, dtype).requires_grad_() for k, v in made.items()}


def run(
    case: Case, given: dict[str, Tensor], backend: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs, and the gradient of every input for random gradients of the outputs."""
    given = {name: value.detach().requires_grad_() for name, value in given.items()}
    rest = {name: value for name, value in given.items() if name not in ("x", "gain", "bias")}
    shape = {} if case.damping is None else {"damping": case.damping}
    options: dict[str, Any] = {
        "v_reset": case.v_reset, "detach_reset": case.detach_reset, "repeats": case.repeats,
        "reset_by": case.reset_by,
        "surrogate": SURROGATES.make(case.surrogate, **shape), "moments": SPECS[case.spec],
        "backend": backend, **rest,
    }  # fmt: skip
    if case.norm:
        gain, bias = given["gain"], given["bias"]
        spikes, moments, last, mean, var = ops.norm_lif(given["x"], gain, bias, eps=1e-5, **options)
        out = {"spikes": spikes, "last": last, "mean": mean, "var": var}
    else:
        options |= {name: given.get(name) for name in ("gain", "bias")}
        spikes, moments, last = ops.lif(given["x"], **options)
        out = {"spikes": spikes, "last": last}
    loss = sum(
        ((out[k] * normal(*out[k].shape, name=k).to(out[k])).sum() for k in ("spikes", "last")),
        torch.zeros((), device=spikes.device),
    )
    if moments is not None:
        out["moments"] = moments
        loss = loss + (moments * normal(*moments.shape, name="moments").to(moments)).sum()
    gradients = torch.autograd.grad(loss, [*given.values()])
    return out, dict(zip(given, gradients, strict=True))


def assert_as_reference(case: Case, dtype: torch.dtype, device: str, relayout: Any = None) -> None:
    """The same spikes; everything else equal up to its order of rounding."""
    given = inputs(case, dtype, device)
    if relayout:
        given = {name: relayout(value.detach()) for name, value in given.items()}
    expected, expected_gradients = run(case, given, "reference")
    found, found_gradients = run(case, given, "triton")
    assert torch.equal(found["spikes"], expected["spikes"])
    assert 0 < expected["spikes"].mean() < 1 or expected["spikes"].numel() < 16
    terms = expected["spikes"].numel() / case.shape[2]
    unit = ROUNDINGS * case.steps * torch.finfo(dtype).eps
    for name in ("last", *found):
        assert_near(found[name], expected[name], unit, name)
    largest = max(
        expected_gradients[name].abs().max()
        for name in expected_gradients.keys() & {"x", "residual"}
    )
    if case.norm:  # what reaches y is a difference of terms that are this much larger
        largest = largest * (given["gain"] * (expected["var"] + 1e-5).rsqrt()).max().clamp(min=1)
    for name, gradient in expected_gradients.items():
        # The sum of a channel may cancel: its error is that of its terms.
        scale = largest * terms if gradient.ndim == 1 else largest
        assert_near(found_gradients[name], gradient, unit, f"gradient of {name}", scale)


def assert_near(
    found: Tensor, expected: Tensor, unit: float, name: str, scale: Tensor | None = None
) -> None:
    """Within `unit` of the scale of the values, the largest of them unless it is given."""
    assert found.shape == expected.shape, name
    assert found.dtype == expected.dtype, name
    scale = expected.abs().max() if scale is None else scale.maximum(expected.abs().max())
    error = (found - expected).abs().max()
    assert error <= unit * scale, f"{name}: {error} of {scale}"


def each(*names: str, **values: Any) -> Any:
    """`parametrize` over the product of values, each with its name."""
    product = [*itertools.product(*values.values())]
    ids = ["-".join(str(value) for value in row) for row in product]
    return pytest.mark.parametrize(names or tuple(values), product, ids=ids)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many programs, several tiles for each, idle lanes in both directions."""
    for name, value in {"TILE": 16, "CHANNELS": 4, "PROGRAMS": 6}.items():
        monkeypatch.setattr(triton, name, value)
    monkeypatch.setattr(spikes_triton, "ROWS", 4)


@pytest.fixture(autouse=True)
def full_precision() -> Any:
    """Convolutions of a GPU in float32, not in TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


NUMBERS = NeuronNumbers(0.0, 3.0, 1.0, 2.0, 0, False, 0, True, False, True, False)


class Cases:
    """What holds wherever the kernels run."""

    device = "cpu"

    @each(
        surrogate=SURROGATES,
        reset=RESETS,
        detach_reset=(False, True),
        spec=("p2", "p1", "input"),
    )
    def test_every_neuron(self, surrogate: str, reset: str, detach_reset: bool, spec: str) -> None:
        # Shortcut and carried membrane take turns, so that each meets each of the others.
        turn = (len(surrogate) + len(reset) + detach_reset + len(spec)) % 6
        case = Case(
            surrogate=surrogate, v_reset=RESETS[reset], detach_reset=detach_reset, spec=spec,
            residual=("none", "dense", "spikes")[turn % 3], carried=turn >= 3,
        )  # fmt: skip
        for dtype in (torch.float64, torch.float32):
            assert_as_reference(case, dtype, self.device)

    @each(reset_by=(1.0, 0.2), detach_reset=(False, True))
    def test_a_soft_reset_by_a_number_and_a_damped_tent(
        self, reset_by: float, detach_reset: bool
    ) -> None:
        for shape in ((3, 2, 5, 2), (20, 1, 3)):
            case = Case(
                shape=shape, surrogate="triangle", damping=0.3, v_reset=None, reset_by=reset_by,
                detach_reset=detach_reset,
            )  # fmt: skip
            for dtype in (torch.float64, torch.float32):
                assert_as_reference(case, dtype, self.device)

    @each(norm=(False, True), residual=("none", "dense", "spikes"), spec=SPECS)
    def test_shortcuts_and_norm(self, norm: bool, residual: str, spec: str) -> None:
        case = Case(norm=norm, residual=residual, spec=spec, v_reset=None, carried=norm)
        for dtype in (torch.float64, torch.float32):
            assert_as_reference(case, dtype, self.device)

    @each(
        shape=(
            (1, 1, 1), (1, 2, 5), (4, 1, 1, 3), (20, 1, 3), (10, 2, 3), (2, 2, 65), (2, 3, 5, 3, 4),
        ),
        norm=(False, True),
    )  # fmt: skip
    def test_shapes(self, shape: tuple[int, ...], norm: bool) -> None:
        case = Case(shape=shape, norm=norm, residual="spikes", carried=True, spec="input-target")
        for dtype in (torch.float64, torch.float32):
            assert_as_reference(case, dtype, self.device)

    @pytest.mark.usefixtures("small_tiles")
    @each(shape=((3, 5, 5, 3), (20, 3, 6, 3)), norm=(False, True), spec=("p1", "per-step"))
    def test_many_programs(self, shape: tuple[int, ...], norm: bool, spec: str) -> None:
        case = Case(shape=shape, norm=norm, residual="spikes", carried=True, spec=spec)
        assert_as_reference(case, torch.float32, self.device)

    @each(repeats=(4, 20), norm=(False, True), residual=("none", "spikes"), spec=("p2", "per-step"))
    def test_one_step_that_stands_for_many(
        self, repeats: int, norm: bool, residual: str, spec: str
    ) -> None:
        case = Case((1, 2, 5, 2), repeats, spec=spec, residual=residual, norm=norm)
        for dtype in (torch.float64, torch.float32):
            assert_as_reference(case, dtype, self.device)

    def test_without_gain_and_bias(self) -> None:
        for repeats in (1, 4):
            shape = (3 if repeats == 1 else 1, 2, 5, 2)
            assert_as_reference(Case(shape, repeats, affine=False), torch.float64, self.device)

    def test_any_layout_of_memory(self) -> None:
        def spaced(x: Tensor) -> Tensor:
            return torch.stack([x, x + 1], -1)[..., 0]

        def reverse(x: Tensor) -> Tensor:
            return (
                x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))
            )

        for relayout in (spaced, reverse):
            for norm in (False, True):
                case = Case(norm=norm, residual="dense", carried=True)
                assert_as_reference(case, torch.float64, self.device, relayout)

    def test_half_precision(self) -> None:
        x = normal(3, 2, 5, mean=0.3).to(self.device, torch.bfloat16)
        options: dict[str, Any] = {
            "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
            "surrogate": SURROGATES.make("arctan"),
        }  # fmt: skip
        expected, _, last = ops.lif(x, backend="reference", **options)
        found, moments, found_last = ops.lif(x, backend="triton", **options)
        assert moments is None
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected)
        assert torch.equal(found_last, last)

    @each(norm=(False, True), residual=("none", "dense", "spikes"), repeats=(1, 4))
    def test_half_precision_backward(self, norm: bool, residual: str, repeats: int) -> None:
        case = Case((4 // repeats, 2, 5, 2), repeats, norm=norm, residual=residual)
        given = inputs(case, torch.float32, self.device)
        for name in given.keys() & {"x", "residual"}:
            given[name] = given[name].detach().bfloat16()
        expected, expected_gradients = run(case, given, "reference")
        found, found_gradients = run(case, given, "triton")
        assert found["spikes"].dtype == torch.bfloat16
        assert torch.equal(found["spikes"], expected["spikes"])
        for name, gradient in expected_gradients.items():
            # Computed in float32: two roundings that fall on either side, of x and, where a static
            # one is repeated for a shortcut, of the sum of its steps.
            unit = (1 + case.steps) * torch.finfo(gradient.dtype).eps + 1e-4
            assert_near(found_gradients[name], gradient, unit, name)

    @pytest.mark.parametrize(
        ("readers", "spec", "repeats"),
        [("all", "p2", 1), ("all", "per-step", 1), ("means", "p2", 3), ("shortcut", "p2", 1)],
    )
    def test_gradients_of_several_readers(self, readers: str, spec: str, repeats: int) -> None:
        """A shortcut and a pooling have their own places in the graph, and add up to one."""
        T, shape = 3, (3, 5, 6, 8)
        given = {
            "x": normal(T // repeats, *shape, mean=0.3),
            "next": normal(T, *shape, name="next", mean=0.1),
        }
        neuron: Any = {
            "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
            "surrogate": SURROGATES.make("clipped_tanh"), "moments": SPECS[spec],
        }  # fmt: skip
        found = []
        for backend in ("reference", "triton"):
            leaves = {name: x.to(self.device).requires_grad_() for name, x in given.items()}
            options: Any = {"neuron": neuron, "backend": backend}
            spikes, moments, *_ = ops.lif_layer(
                leaves["x"], repeats=repeats, as_spikes=True, dense=readers != "means", **options
            )
            assert moments is not None
            read = [moments]
            if readers != "shortcut":
                means = spikes.pooled() if isinstance(spikes, Spikes) else None
                assert (means is None) == (backend == "reference")
                if means is None:
                    means = torch.nn.functional.avg_pool2d(spikes.flatten(0, 1), 2)
                    means = means.unflatten(0, (T, shape[0]))
                read.append(means)
            if readers != "means":
                read.append(ops.lif_layer(leaves["next"], residual=spikes, **options)[0])
            if readers == "all":
                read.append(spikes.read() if isinstance(spikes, Spikes) else spikes)
            parts = [(x * normal(*x.shape, name=f"g{i}").to(x)).sum() for i, x in enumerate(read)]
            loss = torch.stack(parts).sum()
            gradients = [*torch.autograd.grad(loss, leaves["x"], retain_graph=True)]
            with FlopCounterMode(display=False):  # backward alone is traced
                gradients += torch.autograd.grad(loss, leaves["x"])
            found.append([*read[1:], *gradients])
        assert 0 < found[0][0].mean() < 1
        unit = ROUNDINGS * T * torch.finfo(torch.float64).eps
        for index, (expected, value) in enumerate(zip(*found, strict=True)):
            assert_near(value, expected, unit, f"number {index}")

    def test_a_watched_gradient_is_that_of_all_readers(self) -> None:
        def fire() -> Any:
            x = normal(2, 1, 3, 4, 4, mean=0.3).to(self.device).requires_grad_()
            return LIF(3).double()(x, as_spikes=True)

        with ops.use_backend("triton"):
            spikes = fire()
            spikes.retain_grad()
            assert spikes.pooled() is None
            place, bits = spikes.as_bits()
            assert bits is not None
            (2 * place + 3 * spikes.read()).sum().backward()
            assert spikes.grad.unique().tolist() == [5]
            for read in (Spikes.pooled, Spikes.as_bits):
                spikes = fire()
                read(spikes)
                with pytest.raises(UserError, match="retain_grad: comes after a shortcut"):
                    spikes.retain_grad()

    @pytest.mark.parametrize("p", [0.5, 1, 1.5, 2])
    def test_no_gradient_where_the_potential_is_the_spike(self, p: float) -> None:
        x = torch.tensor([0.0, 1.0], dtype=torch.float64, device=self.device)
        x = x.view(1, 1, 2).requires_grad_()
        _, moments, _ = ops.lif(
            x, decay=0.25, v_threshold=0.5, v_reset=0.0, detach_reset=False,
            surrogate=SURROGATES.make("rectangle"), moments=MomentSpec(p=p), backend="triton",
        )  # fmt: skip
        assert moments is not None
        assert moments[2].tolist() == [0, 0]
        (gradient,) = torch.autograd.grad(moments[2].sum(), x)
        assert gradient.flatten().tolist() == [0, 0]

    def test_the_spikes_of_backward_are_those_of_forward(self) -> None:
        """Potentials at the threshold, give or take a rounding: d last / d x tells o of each."""
        threshold, decay = 0.7, 0.3
        near = torch.tensor(threshold, dtype=torch.float32) * (1 + 1e-7 * normal(1, 64, 4).float())
        first = normal(1, 64, 4, name="first").float().abs() * 0.6
        x = torch.cat([first, near - decay * first]).to(self.device).requires_grad_()
        spikes, _, last = ops.lif(
            x, decay=decay, v_threshold=threshold, v_reset=0.0, detach_reset=True,
            surrogate=SURROGATES.make("rectangle"), backend="triton",
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(last.sum(), x)
        assert 0.2 < spikes[1].mean() < 0.8
        assert torch.equal(gradient[1], 1 - spikes[1])

    @pytest.mark.usefixtures("small_tiles")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_statistics_do_not_cancel(self, dtype: torch.dtype) -> None:
        y = normal(7, 23, 6, std=0.1).to(dtype)
        y += torch.tensor([0, 1, -30, 1e3, 1e4, -1e5]).to(dtype)
        y[:, :, 5] = -1e5  # a constant channel
        exact = y.double().flatten(0, 1)
        mean, var, count = kernels.statistics(y.to(self.device)).cpu()
        assert count.unique().tolist() == [7 * 23]
        eps = torch.finfo(dtype).eps
        # Whatever the mean, errors are those of the spread: values that lie close together have
        # an exact distance. The float64 that a mean is returned in is all that it adds.
        away = exact - exact[0]
        expected = exact[0] + away.mean(0)
        bound = 8 * eps * 0.1 + torch.finfo(torch.float64).eps * expected.abs()
        assert ((mean - expected).abs() <= bound).all()
        variance = away.var(0, correction=0)
        torch.testing.assert_close(var, variance, rtol=16 * eps, atol=0)

    @pytest.mark.usefixtures("small_tiles")
    @pytest.mark.parametrize("repeats", [1, 3])
    def test_a_norm_with_alpha_and_running_statistics(self, repeats: int) -> None:
        """The factor of Eq. 6 and the running statistics are the kernels' business, too."""
        given = normal(1 if repeats > 1 else 3, 4, 6, 2, 3, mean=0.3)
        found = []
        for backend in ("reference", "triton"):
            norm = TDBatchNorm2d(6, alpha=1.4, v_threshold=0.5, momentum=0.3).double()
            norm = norm.to(self.device)
            x = given.to(self.device).requires_grad_()
            with ops.use_backend(backend):
                spikes = LIF(6)(x, norm=norm, repeats=repeats)
            weights = normal(*spikes.shape, name="g").to(self.device)
            gradients = torch.autograd.grad((spikes * weights).sum(), [x, norm.weight, norm.bias])
            found.append([spikes, *gradients, norm.running_mean, norm.running_var])
        assert 0 < found[0][0].mean() < 1
        for index, (expected, value) in enumerate(zip(*found, strict=True)):
            unit = ROUNDINGS * 3 * torch.finfo(torch.float64).eps
            assert_near(value, expected, 24 * unit, f"number {index}")

    @pytest.mark.usefixtures("small_tiles")
    @pytest.mark.parametrize("in_place", [False, True])
    def test_norm_gradient(self, in_place: bool) -> None:
        g_x, y = (normal(3, 7, 5, name=name).to(self.device) for name in ("g", "y"))
        mean, var, weight = (normal(5, name=name).to(self.device) for name in ("m", "v", "w"))
        var, eps, n = var.square(), 1e-5, torch.full_like(var, 21.0)
        z = (y - mean) / (var + eps).sqrt()
        s_1, s_2 = g_x.sum((0, 1)), (g_x * z).sum((0, 1))
        expected = weight / (var + eps).sqrt() * (g_x - s_1 / n - z * s_2 / n)
        out = g_x.clone() if in_place else torch.empty_like(g_x)
        rows = rows_of(y, statistics=torch.stack([mean, var, n]), gain=weight, eps=eps)
        sums = torch.stack([s_1, s_2])
        kernels.norm_gradient(rows, out if in_place else g_x, sums, out)
        # Some ten float64 operations, of values up to those of the largest term.
        size = (weight.abs() / (var + eps).sqrt()) * (
            g_x.abs() + s_1.abs() / n + (z * s_2).abs() / n
        )
        assert ((out - expected).abs() <= 16 * torch.finfo(torch.float64).eps * size).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("channels", [1, 5, 64, 65, 130])
    def test_bits(self, channels: int, dtype: torch.dtype) -> None:
        x = (normal(19, channels) > 0.5).to(self.device, dtype)
        x[3, -1] = -0.0
        x[4] = 1
        bits, count = pack_rows(x)
        assert count == int(x.sum(dtype=torch.float64))
        assert bits.shape == (19, (channels + 63) // 64)
        for row, c in itertools.product(range(19), (0, channels // 2, channels - 1)):
            assert int(bits[row, c // 64]) >> (c % 64) & 1 == int(x[row, c])
        assert torch.equal(unpack_rows(bits, channels, torch.float32), x.float())
        for wrong in (0.5, 2.0, -1.0, float("nan"), float("inf")):
            changed = x.clone()
            changed[17, -1] = wrong
            assert pack_rows(changed)[1] == -1

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("channels", [1, 65])
    def test_means_of_bits(self, channels: int, dtype: torch.dtype) -> None:
        x = (normal(2, channels, 4, 6) > 0.5).to(self.device, dtype)
        bits, _ = pack_rows(x.movedim(1, -1).reshape(-1, channels))
        means = pool_rows(bits, channels, 3, dtype).view(2, 2, 3, channels).movedim(-1, 1)
        assert torch.equal(means, torch.nn.functional.avg_pool2d(x, 2))

    def test_almost_a_spike_is_none(self) -> None:
        x = torch.ones(2, 3, dtype=torch.float64, device=self.device)
        x[1, 1] += 1e-12
        assert pack_rows(x)[1] == -1

    @each(
        spikes=(True, False), stride=(1, 2), layout=(torch.contiguous_format, torch.channels_last)
    )
    def test_convolution(self, spikes: bool, stride: int, layout: torch.memory_format) -> None:
        x = normal(2, 5, 6, 4)
        x = ((x > 0.5).double() if spikes else x).float().to(self.device, memory_format=layout)
        weight = normal(7, 5, 3, 3, name="weight").float()
        weight = weight.to(self.device, memory_format=layout)
        bias = normal(7, name="bias").float().to(self.device)
        results = []
        for backend in ("reference", "triton"):
            leaves = [value.detach().requires_grad_() for value in (x, weight, bias)]
            y = ops.spike_conv2d(*leaves, stride=stride, padding=1, backend=backend)
            g_y = normal(*y.shape, name="g").to(y)
            results.append([y, *torch.autograd.grad(y, leaves, g_y)])
            (only,) = torch.autograd.grad(
                ops.spike_conv2d(*leaves, stride=stride, padding=1, backend=backend), leaves[0], g_y
            )
            results[-1].append(only)
        for name, found, expected in zip(
            ("y", "x", "weight", "bias", "x alone"), results[1], results[0], strict=True
        ):
            # At most 9 x 7 terms for x and y, 2 x 6 x 4 for the others.
            assert_near(found, expected, 64 * torch.finfo(torch.float32).eps, name)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_convolution_in_half_precision_from_bits(self, dtype: torch.dtype) -> None:
        x = (normal(2, 5, 4, 3) > 0.5).to(self.device, dtype)
        weight = normal(7, 5, 3, 3, name="weight").to(self.device, dtype)
        shape = Spatial.of(x.shape, weight, 1, 1)
        bits, count = pack_rows(x.movedim(1, -1).reshape(-1, 5))
        y = convolution.convolve(shape, x, bits, count, weight, None, dtype)
        assert torch.equal(y, torch.conv2d(x, weight, padding=1))
        by_bits = convolution.convolve_backward(shape, y, None, bits, count, weight, (True, True))
        by_x = convolution.convolve_backward(shape, y, x, bits, count, weight, (True, True))
        for found, expected in zip(by_bits, by_x, strict=True):
            assert found is not None
            assert expected is not None
            assert found.dtype == dtype
            torch.testing.assert_close(found, expected, rtol=0, atol=0)

    @pytest.mark.parametrize("repeats", [1, 4])
    def test_the_operations_are_what_they_say(self, repeats: int) -> None:
        """Schema, fake tensors and autograd registration, by PyTorch's own check."""
        y = normal(4 // repeats, 6, 5, 1).float().to(self.device).requires_grad_()
        constant = torch.full((5,), 0.5, device=self.device)
        rule = [0.0, 3.0, 1.0, 2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]
        constants = (constant, constant, 4, None, False, 0.5, None, None, 0.0, 0)
        given = ("triton", y, constant, None, None, None, None, *constants, rule)
        arguments = (*given, True, True, True, True)
        # Not its fourth part: ahead-of-time autograd warns of PyTorch's own reading of .grad.
        parts = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(torch.ops.rmploss.lif.default, arguments, test_utils=parts)


def rows_of(y: Tensor, **changes: Any) -> LIFRows:
    """The rows `[T, R, C]` y with nothing else."""
    constant = y.new_full((y.shape[2],), 0.5)
    rows = LIFRows(
        y, None, 0.0, 1.0, None, None, None, None, None, constant, constant, y.shape[0], y.dtype,
        NUMBERS,
    )  # fmt: skip
    return rows._replace(**changes)


@needs_triton
class TestInterpreted(Cases):
    """In a process with TRITON_INTERPRET=1, which `test_in_the_interpreter` starts."""

    __test__ = INTERPRETED


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnGpu(Cases):
    """Compiled."""

    __test__ = not INTERPRETED
    device = "cuda"

    def test_auto_picks_it(self) -> None:
        assert ops.choose("auto", torch.device("cuda")) == ("triton", "the fastest that runs here")

    @pytest.mark.parametrize("spec", ["p2", "per-step"])
    def test_the_same_bits_every_time(self, spec: str) -> None:
        case = Case(shape=(4, 8, 33, 16, 16), norm=True, residual="spikes", spec=spec)
        given = inputs(case, torch.float32, "cuda")
        first, second = run(case, given, "triton"), run(case, given, "triton")
        for one, other in zip(first, second, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)

    @pytest.mark.parametrize("spec", ["p2", "per-step"])
    def test_more_programs_than_places(self, spec: str) -> None:
        case = Case(shape=(4, 64, 70, 32, 32), residual="spikes", spec=spec)
        assert_as_reference(case, torch.float32, "cuda")


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter() -> None:
    interpreter.assert_passed(f"{__file__}::TestInterpreted", f"{NOT_A_NUMBER}", "-k", "not cpu")


def test_importing_the_package_does_not_import_triton() -> None:
    code = (
        "import sys, rmploss, rmploss.ops as ops, torch\n"
        "ops.pick('auto', torch.device('cpu'))\n"
        "print('triton' in sys.modules)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert child.stdout == "False\n"


def test_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(triton, "_is_installed", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="its kernels run on GPUs, not on cpu"):
        ops.pick("triton", cpu)
    with pytest.raises(UserError, match=r"its kernels take no torch\.float8"):
        ops.pick("triton", gpu, torch.float8_e5m2)
    assert ops.pick("triton", gpu) == ops.pick("auto", gpu) == "triton"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert ops.pick("triton", cpu) == "triton"
    with pytest.raises(UserError, match="not on meta"):
        ops.pick("triton", torch.device("meta"))
    monkeypatch.setattr(triton, "_is_installed", lambda: False)
    for device in (cpu, gpu):
        with pytest.raises(UserError, match="triton is not installed"):
            ops.pick("triton", device)
    assert ops.choose("auto", gpu) == ("reference", "triton: triton is not installed")


def test_auto_never_interprets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(native, "MISSING", "not built")
    assert ops.choose("auto", torch.device("cpu")) == ("reference", "cpu: not built")


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
class TestCompiled:
    """Compiled for a GPU that need not be there."""

    @pytest.fixture(autouse=True)
    def cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    @pytest.mark.parametrize("name", ["lif_forward", "lif_backward"])
    @pytest.mark.parametrize("steps", [4, 0])
    @pytest.mark.parametrize("dtype", ["fp32", "bf16"])
    def test_no_product_is_contracted(self, name: str, steps: int, dtype: str) -> None:
        """The code has no fused multiply-add of floats."""
        code = compile_for_hopper("neurons", name, dtype, STEPS=steps, KIND=1, RESET_TO=-0.3)
        assert "fma." not in code["ptx"]
        assert "FMUL" in code["sass"]
        # The division of float64 moves a word by 0 * a + b.
        assert not re.search(r"FFMA\S* \w+, (?!RZ)", code["sass"])

    @pytest.mark.parametrize("name", ["lif_forward", "lif_backward"])
    @pytest.mark.parametrize("dtype", ["fp32", "bf16"])
    def test_moments_of_every_step(self, name: str, dtype: str) -> None:
        code = compile_for_hopper("neurons", name, dtype, PER_STEP=True)
        assert "STL" not in code["sass"]

    @pytest.mark.parametrize("kind", range(len(KINDS)))
    def test_every_surrogate(self, kind: int) -> None:
        code = compile_for_hopper("neurons", "lif_backward", "bf16", STEPS=4, KIND=kind)
        assert "STL" not in code["sass"]  # nothing is spilled

    @pytest.mark.parametrize("dtype", ["fp32", "bf16"])
    @pytest.mark.parametrize(
        ("of", "name"),
        [
            ("norm", "statistics"), ("norm", "combine"), ("norm", "norm_gradient"),
            ("norm", "fold"), ("bits", "pack"), ("bits", "unpack"), ("bits", "pool"),
        ],
    )  # fmt: skip
    def test_every_other_kernel(self, of: str, name: str, dtype: str) -> None:
        assert "EXIT" in compile_for_hopper(of, name, dtype)["sass"]


FOLDERS = {
    "neurons": "rmploss.ops.lif.triton_kernels.neurons",
    "norm": "rmploss.ops.lif.triton_kernels.norm",
    "bits": "rmploss.ops.spikes.triton_kernels",
}
TYPES = {
    "*i64": ("residual", "bits", "found"),
    "*fp64": ("statistics", "sums", "partial", "out"),
    "i32": ("steps", "rows", "channels", "tiles", "programs", "words", "width", "height", "values"),
}
HALVES = ("x", "y", "spikes", "g_spikes", "g_shortcut", "g_means", "g_current")
"""Of a kernel's arguments; those of neurons and norm_gradient of the same name are float32."""


def compile_for_hopper(of: str, name: str, dtype: str, **changes: Any) -> Any:
    """The code of a kernel in every language from Triton to the machine's; dtype: of y, spikes."""
    from triton.backends import backends
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    if "nvidia" not in backends:
        pytest.skip("this Triton has no compiler for NVIDIA GPUs")
    kernel = getattr(import_module(f"{FOLDERS[of]}"), name)
    constants = {
        "STATIC": False, "BITS": True, "RESET": 0, "DETACH_RESET": False, "RESET_TO": 0.0,
        "SLOPE": 1.0, "SCALE": 1.0, "DAMPING": 1.0, "MOMENTS": True, "PER_STEP": False, "EPS": 1e-5,
        "OF_INPUT": False, "DETACH_TARGET": False, "P": 2.0, "BLOCK_R": 8, "BLOCK_C": 64,
        "STEPS": 4, "KIND": 0, "FACTOR": 0.5, "CONSTANTS": False, "LOADS": 4, "MOMENTUM": 0.1,
        **changes,
    }  # fmt: skip
    known = {argument: kind for kind, arguments in TYPES.items() for argument in arguments}
    if of == "neurons" or name in ("norm_gradient", "fold"):
        halves = dtype if name == "norm_gradient" else "fp32"
        known = {**known, "partial": "*fp32", "out": f"*{halves}", "g_x": f"*{halves}"}
        known["sums"] = "*fp32"
    known |= dict.fromkeys(HALVES, f"*{dtype}")
    known |= dict.fromkeys(constants, "constexpr")
    signature = {argument: known.get(argument, "*fp32") for argument in kernel.arg_names}
    constants = {argument: value for argument, value in constants.items() if argument in signature}
    # As at run time: addresses and channels that 16 divides, for which loads are vectors.
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, argument in enumerate(kernel.arg_names)
        if signature[argument].startswith("*") or argument == "channels"
    }
    source = ASTSource(kernel, signature, constants, aligned)
    return compile(source, target=GPUTarget("cuda", 90, 32), options=triton.OPTIONS).asm
