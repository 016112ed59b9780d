"""The native kernels equal the reference: forward and backward, on every instruction set.

Float64 is compared at rounding error. In float32 both backends are compared with the reference in
float64, and the native one may err at most twice as much as plain PyTorch (plus one rounding of the
largest value): the tolerance follows from the data, nothing is chosen. Inputs whose membrane comes
close to the threshold are drawn again, so that rounding cannot decide about a spike.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

from rmploss import ops
from rmploss.conv import SpikeConv2d
from rmploss.errors import UserError
from rmploss.functional import membrane
from rmploss.neurons import LIF
from rmploss.ops import native
from rmploss.ops.lif import native as kernels
from rmploss.ops.lif.inputs import NeuronNumbers
from rmploss.ops.lif.moments import MomentSpec
from rmploss.ops.spikes import op as spikes_op
from rmploss.surrogate import SURROGATES, Sigmoid, Triangle
from tests.given import normal

pytestmark = pytest.mark.skipif(
    native.MISSING is not None and shutil.which("c++") is None, reason=str(native.MISSING)
)

SPECS = {
    "none": None,
    "paper": MomentSpec(),
    "p=1, target with gradient": MomentSpec(p=1, detach_target=False),
    "p=3/2 of the input": MomentSpec(p=1.5, potential="input"),
    "input, target with gradient": MomentSpec(potential="input", detach_target=False),
}


def neuron(**changes: Any) -> Any:
    """The paper's neuron with other options."""
    options: dict[str, Any] = {
        "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
        "surrogate": SURROGATES.make("clipped_tanh"), "moments": MomentSpec(),
    }  # fmt: skip
    return {**options, **changes}


def gradients(outputs: tuple[Tensor | None, ...], inputs: list[Tensor]) -> list[Tensor]:
    """Of a random linear function of all differentiable outputs."""
    loss = torch.zeros(())
    for index, output in enumerate(outputs):
        if output is not None and output.requires_grad:
            upstream = normal(*output.shape, name=f"upstream {index}")
            loss = loss + (output * upstream.to(output.dtype)).sum()
    return list(torch.autograd.grad(loss, inputs))


def both(
    run: Any, inputs: list[Tensor], dtype: torch.dtype, backend: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients of a run with inputs of a type."""
    leaves = [x.to(dtype).detach().requires_grad_() for x in inputs]
    outputs = run(*leaves, backend=backend)
    grads = gradients(outputs, leaves)
    return [o.detach() for o in outputs if o is not None], grads


def assert_equal(run: Any, inputs: list[Tensor]) -> None:
    """Float64 to rounding, float32 as well as plain PyTorch."""
    exact = both(run, inputs, torch.float64, "reference")
    fast = both(run, inputs, torch.float64, "cpu")
    single = both(run, inputs, torch.float32, "cpu")
    plain = both(run, inputs, torch.float32, "reference")
    torch.testing.assert_close(fast[0][0], exact[0][0], rtol=0, atol=0)  # spikes
    torch.testing.assert_close(single[0][0].double(), exact[0][0], rtol=0, atol=0)
    for f, s, p, e in zip(*(out + grad for out, grad in (fast, single, plain, exact)), strict=True):
        scale = float(e.abs().max())
        eps = torch.finfo(torch.float64).eps
        # Sums of at most a few thousand terms of the size of the result.
        torch.testing.assert_close(f, e, rtol=1e4 * eps, atol=1e4 * eps * max(scale, 1e-3))
        error = float((s.double() - e).abs().max())
        bound = 2 * float((p.double() - e).abs().max())
        assert error <= bound + 8 * torch.finfo(torch.float32).eps * max(scale, 1e-3)


def apart(*shape: int, **constants: Any) -> Tensor:
    """An input current whose membrane keeps away from the threshold."""
    for seed in range(100):
        x = normal(*shape, mean=0.3, seed=seed)
        threshold = constants["v_threshold"]
        u = membrane(x, **constants)
        if float((u - threshold).abs().min()) > 1e-4 and float((x - threshold).abs().min()) > 1e-4:
            return x
    raise AssertionError("no seed keeps the membrane away from the threshold")


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("v_reset", [0.0, -0.3, None])
@pytest.mark.parametrize("surrogate", list(SURROGATES))
def test_every_neuron(
    instruction_set: str,
    surrogate: str,
    v_reset: float | None,
    detach_reset: bool,
    spec: MomentSpec | None,
) -> None:
    options = neuron(
        surrogate=SURROGATES.make(surrogate), v_reset=v_reset, detach_reset=detach_reset,
        moments=spec,
    )  # fmt: skip
    x = apart(4, 2, 5, 3, 2, decay=0.25, v_threshold=0.5, v_reset=v_reset)
    u = 0 * x[0] + (v_reset or 0.0)
    constants = [torch.full((5,), value, dtype=torch.float64) for value in (0.25, 0.5)]

    def run(x: Tensor, u: Tensor, decay: Tensor, threshold: Tensor, **o: Any) -> Any:
        learnable = {**options, "decay": decay, "v_threshold": threshold}
        return ops.lif(x, u, **o, **learnable)

    assert_equal(run, [x, u, *constants])


UNUSUAL: dict[str, dict[str, Any]] = {
    "nothing": {},
    "the reset": {"v_reset": None},
    "its potential": {"v_reset": -0.3},
    "the reset by a number": {"v_reset": None, "reset_by": 0.3},
    "no gradient of the reset": {"detach_reset": True},
    "no moments": {"moments": None},
    "p": {"moments": MomentSpec(p=1)},
    "the potential": {"moments": MomentSpec(potential="input")},
    "the target": {"moments": MomentSpec(detach_target=False)},
    "moments of every step": {"moments": MomentSpec(detach_target=False, per_step=True)},
    "a start": {},
    "a residual": {},
    "constants": {},
}
"""Each differs in one thing from the neurons of which native code has a copy of its own."""


@pytest.mark.parametrize("what", UNUSUAL)
def test_one_thing_that_is_not_usual(instruction_set: str, what: str) -> None:
    """Channels for two registers together, for one, and for a part of one."""
    options = neuron(**UNUSUAL[what])
    v_reset, C = options["v_reset"], 53
    x = apart(3, 2, C, 2, 1, decay=0.25, v_threshold=0.5, v_reset=v_reset)
    more = {
        "a start": [0.1 * normal(2, C, 2, 1, name="start")],
        "a residual": [0.1 * normal(3, 2, C, 2, 1, name="residual")],
        "constants": [torch.full((C,), value, dtype=torch.float64) for value in (0.25, 0.5)],
    }.get(what, [])

    def run(x: Tensor, *given: Any, **o: Any) -> Any:
        if what == "a start":
            return ops.lif(x, given[0], **o, **options)
        if what == "a residual":
            return ops.lif(x, residual=given[0], **o, **options)
        if what == "constants":
            decay, v_threshold = given
            return ops.lif(x, **o, **{**options, "decay": decay, "v_threshold": v_threshold})
        return ops.lif(x, **o, **options)

    assert_equal(run, [x, *more])


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset_by", [1.0, 0.2])
def test_a_soft_reset_by_a_number_and_a_damped_tent(
    instruction_set: str, reset_by: float, detach_reset: bool
) -> None:
    options = neuron(
        surrogate=Triangle(width=0.8, damping=0.3), v_reset=None, detach_reset=detach_reset,
        moments=SPECS["paper"],
    )  # fmt: skip
    options["reset_by"] = reset_by
    x = apart(4, 2, 5, 3, 2, decay=0.25, v_threshold=0.5, v_reset=None, reset_by=reset_by)
    constants = [torch.full((5,), value, dtype=torch.float64) for value in (0.25, 0.5)]

    def run(x: Tensor, decay: Tensor, threshold: Tensor, **o: Any) -> Any:
        learnable = {**options, "decay": decay, "v_threshold": threshold}
        return ops.lif(x, None, **o, **learnable)

    assert_equal(run, [x, *constants])


@pytest.mark.parametrize("residual", [None, "spikes", "current"])
@pytest.mark.parametrize("learnable", [False, True])
def test_norm_lif(instruction_set: str, residual: str | None, learnable: bool) -> None:
    C = 37
    y = normal(3, 2, C, 4, 3, mean=2.0)
    weight, bias = normal(C, name="weight") + 1, normal(C, name="bias")
    inputs = [y, weight, bias]
    if residual:
        r = normal(*y.shape, name="residual")
        inputs.append((r > 1).double() if residual == "spikes" else r)
    options = neuron()

    def run(y: Tensor, w: Tensor, b: Tensor, *rest: Tensor, **o: Any) -> Any:
        r = rest[0] if residual else None
        constants: dict[str, Any] = {}
        if learnable:
            constants = {"decay": rest[-2], "v_threshold": rest[-1]}
        given: dict[str, Any] = {**options, **constants, **o}
        return ops.norm_lif(y, w, b, eps=1e-5, residual=r, **given)[:3]

    if learnable:
        inputs += [normal(C, name="decay").sigmoid(), normal(C, name="threshold").sigmoid() + 0.2]
    assert_equal_but_for_ties(run, inputs)


def assert_equal_but_for_ties(run: Any, inputs: list[Tensor]) -> None:
    """As `assert_equal`; a norm leaves no hold on the membrane, so look for a seed without ties."""
    for seed in range(20):
        moved = [inputs[0] + 1e-3 * normal(*inputs[0].shape, seed=seed), *inputs[1:]]
        exact = run(*moved, backend="reference")[0]
        single = run(*(x.float() for x in moved), backend="reference")[0]
        if torch.equal(exact, single.double()):
            return assert_equal(run, moved)
    raise AssertionError("no seed without ties")


def test_the_statistics_have_no_cancellation(instruction_set: str) -> None:
    y = (normal(4, 8, 3, 16, 16) + torch.tensor([0.0, 1e3, -1e4]).view(3, 1, 1)).float()
    rows = y.movedim(2, -1).reshape(4, -1, 3).contiguous()
    mean, var, count = kernels.statistics(rows)
    assert count.unique().tolist() == [rows.numel() / 3]
    exact = rows.double().view(-1, 3)
    torch.testing.assert_close(mean, exact.mean(0), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(var, exact.var(0, correction=0), rtol=1e-6, atol=0)


def test_a_static_input_stands_for_all_steps(instruction_set: str) -> None:
    y, weight, bias = normal(1, 3, 6, 4, 4), normal(6, name="w") + 1, normal(6, name="b")
    options = neuron(moments=MomentSpec())

    def once(y: Tensor, w: Tensor, b: Tensor, **o: Any) -> Any:
        return ops.norm_lif(y, w, b, eps=1e-5, repeats=4, **options, **o)[:3]

    def often(y: Tensor, w: Tensor, b: Tensor, **o: Any) -> Any:
        return ops.norm_lif(y.expand(4, -1, -1, -1, -1), w, b, eps=1e-5, **options, **o)[:3]

    inputs = [y, weight, bias]
    assert_equal_but_for_ties(once, inputs)
    one, other = (both(run, inputs, torch.float64, "cpu") for run in (once, often))
    for a, b in zip(one[0] + one[1], other[0] + other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gain_and_bias_are_the_norm_in_evaluation(instruction_set: str) -> None:
    x = apart(3, 2, 21, 2, 2, decay=0.25, v_threshold=0.5, v_reset=None)
    gain, bias = torch.ones(21, dtype=torch.float64), torch.zeros(21, dtype=torch.float64)
    residual = torch.zeros_like(x)
    options = neuron(v_reset=None)

    def run(x: Tensor, gain: Tensor, bias: Tensor, r: Tensor, **o: Any) -> Any:
        return ops.lif(x, gain=gain, bias=bias, residual=r, **options, **o)

    assert_equal(run, [x, gain, bias, residual])


@settings(max_examples=60, deadline=None)
@given(
    T=st.integers(1, 6), B=st.integers(1, 4), C=st.integers(1, 70), H=st.integers(1, 5),
    last=st.booleans(), stepped=st.booleans(),
)  # fmt: skip
def test_any_shape_and_layout(T: int, B: int, C: int, H: int, last: bool, stepped: bool) -> None:
    x = normal(T, B, C, H, H + 1, mean=0.3)
    if last:
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    if stepped:
        x = x.repeat_interleave(2, dim=4)[..., ::2]
    options = neuron(v_reset=-0.1)
    for dtype in (torch.float64, torch.float32):
        fast, exact = (
            ops.lif(x.to(dtype), backend=backend, **options) for backend in ("cpu", "reference")
        )
        assert torch.equal(fast[0], exact[0])  # the same operations in the same order
        assert torch.equal(fast[2], exact[2])
    leaves = [x.detach().requires_grad_() for _ in range(2)]
    fast, exact = (
        gradients(ops.lif(leaf, backend=backend, **options), [leaf])[0]
        for leaf, backend in zip(leaves, ("cpu", "reference"), strict=True)
    )
    # A few roundings per step, of values that the surrogate (at most 1.66) multiplies up.
    bound = 100 * T * torch.finfo(torch.float64).eps * max(1.0, float(exact.abs().max()))
    torch.testing.assert_close(fast, exact, rtol=0, atol=bound)


def test_extreme_currents(instruction_set: str) -> None:
    values = [0.0, -0.0, 1e-45, 0.5, 0.5 - 2**-25, -1e30, 1e30, 3.0e38, -3.0e38]
    x = torch.tensor(values).repeat(3, 1).view(3, 1, -1)
    fast, exact = (ops.lif(x, backend=b, **neuron(moments=None)) for b in ("cpu", "reference"))
    assert torch.equal(fast[0], exact[0])
    assert torch.equal(fast[2], exact[2])


@pytest.mark.parametrize("alpha", [1.0, 4.0, 100.0])
def test_the_exponential_is_right_far_out(instruction_set: str, alpha: float) -> None:
    x = torch.linspace(-30, 30, 601, dtype=torch.float64).view(1, 1, -1).clone()
    options = neuron(surrogate=Sigmoid(alpha=alpha), moments=None)
    assert_equal(lambda x, **o: ops.lif(x, **options, **o), [x + 0.0123])


def test_the_exponential_in_ulp(instruction_set: str) -> None:
    """The logistic's slope is e / (1 + e)^2, e = exp(-|v|), which errs by 2 ulp, simd.h says.

    Three more roundings of half an ulp: of 1 + e, its square and the quotient.
    """
    v = torch.cat([torch.arange(-5440, -511), torch.arange(512, 5441)]) / 64  # exact, as is v + 1/2
    x = (v + 0.5).float().view(1, 1, -1).requires_grad_()
    options = neuron(surrogate=Sigmoid(alpha=1.0), moments=None)
    (slope,) = torch.autograd.grad(ops.lif(x, backend="cpu", **options)[0].sum(), x)
    e = torch.exp(-v.double().abs())
    exact = e / (1 + e).square()
    error = (slope.double().flatten() - exact).abs() / exact
    assert error.max() <= 3.5 * torch.finfo(torch.float32).eps


def _busy_threads() -> dict[str, int]:
    """Thread -> clock ticks that it has run for."""
    tasks = Path("/proc/self/task").glob("*/stat")
    fields = {t.parent.name: t.read_text().rpartition(")")[2].split() for t in tasks}
    return {name: int(f[11]) for name, f in fields.items()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells of threads")
def test_threads_are_used() -> None:
    y = torch.zeros(1, 2**16, 64)
    before, used, busy = torch.get_num_threads(), {}, []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            start, deadline = _busy_threads(), time.monotonic() + 60
            while time.monotonic() < deadline:
                kernels.statistics(y)
                busy = [n for n, t in _busy_threads().items() if t >= start.get(n, 0) + 5]
                if len(busy) >= threads:
                    break
            used[threads] = len(busy)
    finally:
        torch.set_num_threads(before)
    assert used == {1: 1, 2: 2}


def test_threads_do_not_change_a_bit(instruction_set: str) -> None:
    y, w = normal(4, 8, 40, 8, 8).float(), normal(48, 40, 3, 3).float()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = [y.clone().requires_grad_(), w.clone().requires_grad_()]
            one = torch.ones(40)
            spikes, moments, *_ = ops.norm_lif(
                leaves[0], one, 0 * one, eps=1e-5, **neuron(), backend="cpu"
            )
            out = ops.spike_conv2d(spikes.flatten(0, 1), leaves[1], padding=1, backend="cpu")
            assert moments is not None
            loss = out.square().sum() + moments.sum()
            results.append([out, moments, *torch.autograd.grad(loss, leaves)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def operations() -> dict[str, tuple[Any, ...]]:
    """Arguments of every fused operation."""
    numbers = NeuronNumbers.of(neuron())
    assert not isinstance(numbers, str)
    rule = [float(number) for number in numbers]
    y, one = normal(3, 2, 5, 2, 2).float(), torch.ones(5)
    r, u = (normal(*y.shape, name="r") > 0).float(), normal(2, 5, 2, 2, name="u").float()
    x, w = (normal(2, 9, 4, 4) > 0.5).float(), normal(8, 9, 3, 3).float()
    need = [t.clone().requires_grad_() for t in (y, one, one, r, u, one / 4, one / 2)]
    half = [need[0].detach().bfloat16().requires_grad_(), *need[1:]]
    words, _ = spikes_op.pack("cpu", r)
    x_words, x_count = spikes_op.pack("cpu", x.unsqueeze(0))
    x = x.requires_grad_()
    nothing = (need[0], None, None, None, None, None, *need[5:])

    def layer(y: Any, *others: Any, eps: float | None = None, **changes: bool) -> Any:
        dense, bits = changes.get("dense", True), changes.get("bits", False)
        return (
            "cpu",
            y,
            *others,
            3,
            eps,
            False,
            0.5,
            None,
            None,
            0.0,
            0,
            rule,
            dense,
            bits,
            True,
            True,
        )

    plain = (*need[:4], None, *need[4:])
    last = w.detach().to(memory_format=torch.channels_last).requires_grad_()
    return {
        "lif": layer(*plain),
        "lif, nothing but x": layer(*nothing),
        "lif, norm": layer(*plain, eps=1e-5),
        "lif, half precision": layer(half[0], *plain[1:], eps=1e-5),
        "lif, spikes as numbers and bits": layer(*plain, bits=True),
        "lif, a shortcut of bits": layer(*need[:4], words, *need[4:], bits=True),
        "pack": ("cpu", r),
        "unpack": ("cpu", words, 5, torch.float32),
        "spike_conv2d": ("cpu", x, None, None, w.requires_grad_(), None, 1, 1, True, True),
        "spike_conv2d, not looked at": ("cpu", x, None, None, w, None, 1, 1, True, False),
        "spike_conv2d, of bits": ("cpu", x, x_words, x_count, w, None, 1, 1, True, False),
        "spike_conv2d, channels last": (
            "cpu", x, None, None, last, None, 1, 1, True, True,
        ),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck's own
@pytest.mark.parametrize("name", list(operations()))
def test_the_operations_are_good_citizens_of_torch(name: str) -> None:
    opcheck(getattr(torch.ops.rmploss, name.partition(",")[0]), operations()[name])


def test_they_hold_under_compile() -> None:
    options = neuron()
    weight = normal(6, 4, 3, 3).float()

    def step(y: Tensor, weight: Tensor) -> Tensor:
        one = torch.ones(4)
        spikes, moments, *_ = ops.norm_lif(y, one, 0 * one, eps=1e-5, **options)
        assert moments is not None
        out = ops.spike_conv2d(spikes.flatten(0, 1), weight, padding=1)
        return out.square().sum() + moments[2].sum()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    results = []
    for run in (step, compiled):
        leaves = [normal(2, 3, 4, 5, 5).float().requires_grad_(), weight.clone().requires_grad_()]
        loss = run(*leaves)
        results.append([loss, *torch.autograd.grad(loss, leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.detach().abs().max()))


def test_a_surrogate_without_a_kernel_runs_on_the_reference_unless_asked() -> None:
    class Own(Sigmoid):
        """One of a user's own."""

    options = neuron(surrogate=Own())
    x = normal(2, 2, 3)
    assert torch.equal(ops.lif(x, **options)[0], ops.lif(x, **options, backend="reference")[0])
    with pytest.raises(UserError, match="Own has no fused form"):
        ops.lif(x, **options, backend="cpu")
    with ops.use_backend("cpu"), pytest.raises(UserError, match="Own has no fused form"):
        ops.lif(x, **options)


def test_spikes_are_kept_as_bits() -> None:
    spikes = (normal(2, 64, 8, 8) > 0.8).float().requires_grad_()
    y = ops.spike_conv2d(spikes, normal(16, 64, 3, 3).float().requires_grad_(), padding=1)
    saved = y.grad_fn.saved_tensors  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    kept = [None if t is None else (t.dtype, t.ndim) for t in saved]
    assert kept == [None, (torch.int64, 2), (torch.int64, 0), (torch.float32, 4)]
    residual = spikes.detach().unsqueeze(0)
    out = ops.lif(residual.clone().requires_grad_(), residual=residual, **neuron())[0]
    kept = [node for node in _nodes(out.grad_fn) if "lif" in type(node).__name__.lower()]
    assert any(t is not None and t.dtype == torch.int64 for t in kept[0].saved_tensors)


def _nodes(node: Any) -> Iterator[Any]:
    if node is not None:
        yield node
        for parent, _ in node.next_functions:
            yield from _nodes(parent)


LIBRARIES = """
import torch
from rmploss import ops
x = torch.ones(2, 32, 4, 4, requires_grad=True)
ops.spike_conv2d(x, torch.ones(32, 32, 3, 3), padding=1).sum().backward()
print(*{line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line or "iomp" in line})
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells the libraries")
def test_one_openmp_runtime_serves_torch_and_the_kernels() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.split()) == 1


def test_a_norm_that_does_not_fit_is_refused() -> None:
    y, options = torch.zeros(2, 3, 64, 4, 4), neuron()
    for weight, bias in ((torch.ones(32), torch.ones(64)), (torch.ones(64), torch.ones(32))):
        with pytest.raises(UserError, match=r"\[32\].*needs \[64\]"):
            ops.norm_lif(y, weight, bias, eps=1e-5, **options)
    strided = torch.ones(128)[::2]
    assert ops.norm_lif(y + normal(*y.shape), strided, strided, eps=1e-5, **options)[0].any()


def test_a_named_backend_does_not_fall_back() -> None:
    x, w = torch.zeros(1, 32, 4, 4), torch.zeros(32, 32, 3, 3)
    with pytest.raises(UserError, match="float32"):
        ops.spike_conv2d(x.double(), w.double(), backend="cpu")
    with pytest.raises((RuntimeError, UserError)):  # types that only autocast brings together
        ops.spike_conv2d(x.bfloat16(), w, backend="cpu")
    conv = torch.zeros(32, 32, 3, 3, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(UserError, match="neither"):
        ops.spike_conv2d(x, conv, backend="cpu")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own
def test_forward_mode_and_torch_func_run_on_the_reference() -> None:
    conv = SpikeConv2d(2, 32, 3)
    x = torch.randn(1, 2, 5, 5)
    tangent: Any = torch.func.jvp(conv, (x,), (x,))[1]
    torch.testing.assert_close(tangent, conv(x) - conv(0 * x), rtol=1e-4, atol=1e-4)
    y = torch.randn(3, 2, 4)
    g = torch.func.grad(lambda x: ops.lif(x, **neuron())[0].sum())(y)
    leaf = y.clone().requires_grad_()
    (expected,) = torch.autograd.grad(ops.lif(leaf, **neuron())[0].sum(), leaf)
    torch.testing.assert_close(g, expected)
    with ops.use_backend("cpu"), pytest.raises(UserError, match="forward-mode"):
        torch.func.jvp(conv, (x,), (x,))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own
def test_the_forward_derivative_is_the_transpose_of_backward() -> None:
    x, tangent, g = (normal(4, 2, 3, 5, name=name) for name in ("x", "tangent", "g"))
    layer = LIF(3)
    ahead: Any = torch.func.jvp(layer, (x,), (tangent,))[1]
    (behind,) = torch.autograd.grad(layer(leaf := x.requires_grad_()), leaf, g)
    torch.testing.assert_close((g * ahead).sum(), (behind * tangent).sum(), rtol=1e-12, atol=0)


def test_outputs_may_be_changed_in_place() -> None:
    x = (normal(2, 8, 5, 5) > 0).float()
    conv = SpikeConv2d(8, 32, 3, padding=1)
    changed = conv(x).add_(1).mul_(2)
    changed.sum().backward()
    assert conv.weight.grad is not None
    spikes, *_ = ops.lif(normal(2, 2, 4).float().requires_grad_(), **neuron())
    spikes.mul_(2).sum().backward()


def test_devices_and_constants_that_do_not_fit_are_refused() -> None:
    x = normal(2, 2, 5)
    with pytest.raises(UserError, match="residual is on meta"):
        ops.lif(x, residual=x.to("meta"), **neuron())
    for backend in ("cpu", "reference"):
        with pytest.raises(UserError, match=r"gain has shape \[3\].*needs \[5\]"):
            ops.lif(x, gain=torch.ones(3), backend=backend, **neuron())
    with pytest.raises(UserError, match="repeats"):
        ops.lif(x[:1], repeats=2.5, **neuron())  # pyright: ignore[reportArgumentType]


def test_nothing_is_counted_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    x, residual = normal(2, 2, 5).float(), (normal(2, 2, 5, name="r") > 0).float()

    def kept() -> set[torch.dtype]:
        spikes = ops.lif(x.clone().requires_grad_(), residual=residual, **neuron())[0]
        nodes = [n for n in _nodes(spikes.grad_fn) if "lif" in type(n).__name__.lower()]
        return {t.dtype for t in nodes[0].saved_tensors if t is not None}

    assert torch.int64 in kept()
    monkeypatch.setattr(spikes_op, "is_capturing", lambda x: True)
    assert torch.int64 not in kept()
