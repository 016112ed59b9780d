"""A promise that a tensor is spikes: bits without a look, in every graph; a broken one is told."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from rmploss import ops
from rmploss.conv import SpikeConv2d
from rmploss.errors import UserError
from rmploss.ops import cpu
from rmploss.ops.kernels import BROKEN_PROMISE
from rmploss.surrogate import SURROGATES
from tests.given import normal

pytestmark = pytest.mark.skipif(cpu.MISSING is not None, reason=str(cpu.MISSING))
NEURON: dict[str, Any] = {
    "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
    "surrogate": SURROGATES.make("clipped_tanh"),
}  # fmt: skip
WRONG = [0.5, -1.0, 2.0, 1 + 2**-23, float("nan"), float("inf")]


def spikes(*shape: int, name: str = "spikes") -> Tensor:
    return (normal(*shape, name=name) > 0.8).float()


def weight() -> Tensor:
    """Enough channels for the event-driven kernels."""
    return normal(32, 64, 3, 3, name="weight").float()


def convolve(x: Tensor, w: Tensor, binary: bool | None = True) -> list[Tensor]:
    """y, and the gradients of x and w."""
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = ops.spike_conv2d(x, w, padding=1, binary=binary, backend="cpu")
    return [y, *torch.autograd.grad(y.square().sum(), [x, w])]


def layer(x: Tensor, residual: Tensor, binary: bool | None = True) -> list[Tensor]:
    """Spikes of a layer with a shortcut, and the gradients of both inputs."""
    x, residual = x.detach().requires_grad_(), residual.detach().requires_grad_()
    options = {"residual": residual, "binary_residual": binary, "backend": "cpu"}
    out, _, last = ops.lif(x, **options, **NEURON)
    return [out, *torch.autograd.grad(last.square().sum() + out.sum(), [x, residual])]


def inputs(run: Callable[..., list[Tensor]]) -> tuple[Tensor, Tensor]:
    """Of `convolve` (x, w) or `layer` (x, residual): where the promise is about x or the other."""
    if run is convolve:
        return spikes(2, 64, 6, 6), weight()
    return normal(3, 2, 64, 4, 4).float(), spikes(3, 2, 64, 4, 4)


def with_wrong(run: Callable[..., list[Tensor]], value: float) -> tuple[Tensor, Tensor]:
    """The inputs with one element that breaks the promise."""
    first, second = (t.clone() for t in inputs(run))
    (first if run is convolve else second).view(-1)[77] = value
    return first, second


RUNS = pytest.mark.parametrize("run", [convolve, layer], ids=["convolution", "shortcut"])


@RUNS
def test_a_promise_changes_no_number(run: Callable[..., list[Tensor]]) -> None:
    given = inputs(run)
    for binary in (True, False):
        for one, other in zip(run(*given, binary), run(*given, None), strict=True):
            assert torch.equal(one, other)


@RUNS
@pytest.mark.parametrize("value", WRONG)
def test_a_broken_promise_is_a_warning(run: Callable[..., list[Tensor]], value: float) -> None:
    """Looking is free on the CPU: nothing that was not spikes is kept as bits."""
    given = with_wrong(run, value)
    expected = run(*given, None)
    run(*given, False)
    with pytest.warns(UserWarning, match="leave the promise out"):
        found = run(*given)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_a_broken_promise_of_a_double_that_a_single_would_keep() -> None:
    x, residual = (t.double() for t in inputs(layer))
    layer(x, residual)
    residual.view(-1)[5] = 1 + 1e-12
    with pytest.warns(UserWarning, match="not all 0 and 1"):
        layer(x, residual)


def test_nothing_is_told_where_nothing_is_kept() -> None:
    x, w = with_wrong(convolve, 0.5)
    with torch.no_grad():
        y = ops.spike_conv2d(x, w, padding=1, binary=True)
        assert torch.equal(y, ops.spike_conv2d(x, w, padding=1))


def test_the_message_fits_into_an_assertion_on_a_gpu() -> None:
    assert len(BROKEN_PROMISE) < 256


def test_a_module_promises() -> None:
    conv = SpikeConv2d(64, 32, 3, padding=1, binary=True)
    assert conv.state_dict().keys() == torch.nn.Conv2d(64, 32, 3).state_dict().keys()
    x = spikes(1, 64, 4, 4)
    conv(x)
    with pytest.warns(UserWarning, match="promised"):
        conv(x / 2)
    conv.binary = None
    conv(x / 2)
    conv.fed = True
    with pytest.warns(UserWarning, match="promised"):
        conv(x / 2)
    conv.binary = False  # who made it knows better than its network
    conv(x / 2)


def traced(run: Callable[..., list[Tensor]], binary: bool | None) -> GraphModule:
    """Forward and backward as one graph of operations."""
    return make_fx(lambda *given: run(*given, binary))(*inputs(run))


def argument_of(graph: GraphModule, operation: str, name: str) -> Any:
    """The node that the graph hands an operation for one of its arguments."""
    target = getattr(torch.ops.rmploss, operation).default
    (node,) = (node for node in graph.graph.nodes if node.target is target)
    names = [argument.name for argument in target._schema.arguments]
    return node.args[names.index(name)]


@RUNS
@pytest.mark.parametrize("binary", [True, None])
def test_a_traced_graph_computes_the_same(run: Any, binary: bool | None) -> None:
    graph, given = traced(run, binary), inputs(run)
    for one, other in zip(graph(*given), run(*given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_traced_graph_keeps_bits_of_what_is_promised() -> None:
    for binary in (True, None):
        graph = traced(convolve, binary)
        kept = [argument_of(graph, "spike_conv2d_backward", name) for name in ("x", "bits")]
        assert [k is None for k in kept] == [bool(binary), not binary]
        graph = traced(layer, binary)
        residual = argument_of(graph, "lif_backward", "residual")
        assert residual.meta["val"].dtype == (torch.int64 if binary else torch.float32)


@RUNS
@pytest.mark.parametrize("value", WRONG)
def test_a_traced_graph_tells_of_a_broken_promise(run: Any, value: float) -> None:
    given = with_wrong(run, value)
    with pytest.raises(UserError, match="not all 0 and 1"):
        traced(run, True)(*given)
    for one, other in zip(traced(run, None)(*given), run(*given, None), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, equal_nan=True)


class Spy:
    """The native module, and who was called."""

    def __init__(self, module: Any) -> None:
        self.module, self.called = module, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.called.add(name)
        return getattr(self.module, name)


@pytest.mark.parametrize("binary", [True, None])
def test_backward_of_a_traced_graph_still_chooses_its_kernel(
    binary: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = traced(convolve, binary)
    for x, events in ((inputs(convolve)[0], True), (torch.ones(2, 64, 6, 6), False)):
        spy = Spy(cpu._native)
        with monkeypatch.context() as patch:
            patch.setattr(cpu, "_native", spy)
            graph(x, weight())
        assert ("event_weight_gradient" in spy.called) is events


def saved_bytes(y: Tensor) -> int:
    """Of all that the one node of a compiled function keeps."""
    return sum(t.untyped_storage().nbytes() for t in y.grad_fn.saved_tensors)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]


def test_a_compiled_function_keeps_bits_and_computes_the_same() -> None:
    T, w = 3, normal(64, 64, 3, 3, name="w").float()

    def block(x: Tensor, w: Tensor, binary: bool | None) -> Tensor:
        y = ops.spike_conv2d(x.flatten(0, 1), w, padding=1, binary=binary)
        y = y.unflatten(0, (T, -1)) / 16
        return ops.lif(y, residual=x, binary_residual=binary, **NEURON)[0]

    compiled: Any = torch.compile(block, backend="aot_eager", fullgraph=True)
    x = spikes(T, 2, 64, 6, 6)
    results, kept = [], []
    cases: list[tuple[Any, bool | None]] = [(block, True), (compiled, True), (compiled, None)]
    for run, binary in cases:
        leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
        out = run(*leaves, binary)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
        kept.append(0 if run is block else saved_bytes(run(*leaves, binary)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            size = float(one.detach().abs().max())
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5 * size)
    # Two tensors of float32 become one bit for each 32 of theirs (two if nobody shares them).
    size = x.numel() * x.element_size()
    assert kept[2] - kept[1] >= size - 2 * size // 32 - 64
    assert kept[1] < kept[2] * 0.8
    with pytest.raises(UserError, match="not all 0 and 1"):
        compiled(x / 2, w.requires_grad_(), True)
