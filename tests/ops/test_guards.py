"""What does not fit is refused before an address of it reaches a kernel, on every way in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rmploss import ops
from rmploss.errors import UserError
from rmploss.models import create
from rmploss.ops import native
from rmploss.ops.lif import passes
from rmploss.ops.lif.inputs import NeuronNumbers
from rmploss.ops.lif.moments import MomentSpec
from rmploss.surrogate import SURROGATES
from tests.given import normal

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
REFUSED = (RuntimeError, ValueError, IndexError, UserError)
T, B, C = 3, 2, 70

NEURON: dict[str, Any] = {
    "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
    "surrogate": SURROGATES.make("clipped_tanh"), "moments": MomentSpec(),
}  # fmt: skip
NUMBERS = NeuronNumbers.of(NEURON)  # pyright: ignore[reportArgumentType]
assert not isinstance(NUMBERS, str)
LAYER: dict[str, Any] = {
    "backend": "cpu", "y": torch.ones(T, B, C, 2, 2), "gain": torch.ones(C),
    "bias": torch.ones(C), "residual": torch.ones(T, B, C, 2, 2), "residual_bits": None,
    "u": torch.ones(B, C, 2, 2), "decay": torch.ones(C), "threshold": torch.ones(C),
    "steps": T, "eps": 1e-5, "sync": False, "scale": 1.0, "running_mean": None,
    "running_var": None, "momentum": 0.0, "values": 0, "neuron": [float(n) for n in NUMBERS],
    "dense": True, "bits": True, "last": True, "look": True,
}  # fmt: skip
GRADIENTS = {
    "statistics": torch.ones(3, C, dtype=torch.float64), "g_spikes": torch.ones(T, B, C, 2, 2),
    "g_moments": torch.ones(4, C), "g_last": torch.ones(B, C, 2, 2), "constants": True,
}  # fmt: skip
BITS = torch.zeros(T * B * 4, 2, dtype=torch.int64)


def strided(x: Tensor) -> Tensor:
    """The same values, every other one of memory."""
    return torch.stack([x, x], -1)[..., 0]


def short(x: Tensor) -> Tensor:
    """One less in every dimension."""
    return x[tuple(slice(1, None) for _ in x.shape)].contiguous()


def other_type(x: Tensor) -> Tensor:
    """Values of twice or half the width."""
    return x.to(torch.float32 if x.dtype == torch.float64 else torch.float64)


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "strided": strided, "short": short, "of another type": other_type,
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["gain", "bias", "residual", "u", "decay", "threshold"])
def test_arguments_of_a_layer(name: str, wrong: str) -> None:
    given = {**LAYER, name: WRONG[wrong](LAYER[name])}
    made_fit = {"residual": ("strided",), "u": ("strided",)}
    if wrong in made_fit.get(name, ()):
        torch.ops.rmploss.lif(**given)
        return
    for eps in (1e-5, None):
        if eps and wrong == "strided" and name == "gain":  # of which Eq. 6 makes another
            continue
        with pytest.raises(REFUSED):
            torch.ops.rmploss.lif(**{**given, "eps": eps})


@pytest.mark.parametrize("name", ["gain", "bias", "residual", "u", "decay", "threshold"])
def test_another_device(name: str) -> None:
    given = {**LAYER, name: LAYER[name].to("meta")}
    with pytest.raises(UserError, match="is on meta, the input current on cpu"):
        passes.forward(*given.values())


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["statistics", "g_spikes", "g_moments", "g_last"])
def test_arguments_of_its_backward(name: str, wrong: str) -> None:
    good = {**LAYER, **GRADIENTS}
    torch.ops.rmploss.lif_backward(**good)
    given = {**good, name: WRONG[wrong](good[name])}
    if name.startswith("g_") and (
        wrong == "strided" or (name, wrong) == ("g_spikes", "of another type")
    ):
        torch.ops.rmploss.lif_backward(**given)  # what autograd hands over is made fit
        return
    with pytest.raises(REFUSED):
        torch.ops.rmploss.lif_backward(**given)


def test_bits_of_a_layer() -> None:
    good = {**LAYER, **GRADIENTS}
    bits = BITS
    torch.ops.rmploss.lif_backward(**{**good, "residual_bits": bits})
    for wrong in (bits[1:], bits[:, :1], strided(bits), bits.int()):
        with pytest.raises(REFUSED):
            torch.ops.rmploss.lif_backward(**{**good, "residual_bits": wrong})
        with pytest.raises(REFUSED):
            torch.ops.rmploss.lif(**{**LAYER, "residual_bits": wrong})


def test_one_step_that_stands_for_many_has_no_shortcut() -> None:
    given = {**LAYER, "y": LAYER["y"][:1]}
    with pytest.raises(UserError, match="changes over time"):
        torch.ops.rmploss.lif(**given)


MISFITS: dict[str, dict[str, Any]] = {
    "fewer channels": {"weight": (64, 32, 3, 3)},
    "more channels": {"weight": (64, 65, 3, 3)},
    "a long bias": {"bias": (65,)},
    "no room": {"x": (1, 64, 2, 2), "padding": 0},
    "half a weight": {"weight_dtype": torch.bfloat16},
    "a double weight": {"weight_dtype": torch.float64},
}


@pytest.mark.parametrize("case", MISFITS.values(), ids=MISFITS)
@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_a_convolution_that_does_not_fit_is_refused(case: dict[str, Any], backend: str) -> None:
    x = torch.zeros(case.get("x", (1, 64, 8, 8)))
    w = torch.zeros(case.get("weight", (64, 64, 3, 3)), dtype=case.get("weight_dtype"))
    b = torch.zeros(case.get("bias", (64,)), dtype=case.get("weight_dtype"))
    padding = case.get("padding", 1)
    with pytest.raises((RuntimeError, UserError)):
        ops.spike_conv2d(x, w, b, padding=padding, backend=backend)
    with pytest.raises((RuntimeError, UserError)):
        torch.ops.rmploss.spike_conv2d("cpu", x, None, None, w, b, 1, padding, True, True)


MAPS = {
    "backend": "cpu", "g_y": torch.ones(1, 64, 8, 8), "x": None,
    "bits": torch.zeros(64, 2, dtype=torch.int64), "spike_count": torch.tensor(0),
    "weight": torch.ones(64, 70, 3, 3), "size": [1, 70, 8, 8], "stride": 1, "padding": 1,
    "needs": [True, True],
}  # fmt: skip
WRONG_MAPS = {
    "a short gradient": {"g_y": torch.ones(1, 64, 7, 8)},
    "a gradient of fewer channels": {"g_y": torch.ones(1, 63, 8, 8)},
    "a double gradient": {"g_y": torch.ones(1, 64, 8, 8, dtype=torch.float64)},
    "short bits": {"bits": torch.zeros(63, 2, dtype=torch.int64)},
    "narrow bits": {"bits": torch.zeros(64, 1, dtype=torch.int64)},
    "strided bits": {"bits": strided(torch.zeros(64, 2, dtype=torch.int64))},
    "bits of another type": {"bits": torch.zeros(64, 2, dtype=torch.int32)},
    "two numbers of bits": {"spike_count": torch.zeros(2, dtype=torch.int64)},
    "another weight": {"weight": torch.ones(64, 71, 3, 3)},
    "a double weight": {"weight": torch.ones(64, 70, 3, 3, dtype=torch.float64)},
    "nothing": {"bits": None},
}


@pytest.mark.parametrize("case", WRONG_MAPS.values(), ids=list(WRONG_MAPS))
def test_arguments_of_the_backward_of_a_convolution(case: dict[str, Any]) -> None:
    torch.ops.rmploss.spike_conv2d_backward(**MAPS)
    with pytest.raises(REFUSED):
        torch.ops.rmploss.spike_conv2d_backward(**{**MAPS, **case})


@pytest.mark.parametrize("operation", ["convolution", "layer"])
def test_a_second_derivative_is_refused_though_the_first_gradient_is_a_constant(
    operation: str,
) -> None:
    """A penalty on a gradient: `once_differentiable` would drop its share."""
    x = normal(2, 32, 4, 4).float().requires_grad_()
    w = normal(32, 32, 3, 3, name="w").float().requires_grad_()
    if operation == "convolution":
        y = ops.spike_conv2d(x, w, padding=1, backend="cpu")
    else:
        y = ops.lif(x.unsqueeze(0), backend="cpu", **NEURON)[0]
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(UserError, match="use_backend"):
        g.square().sum().backward()


def gradient(y: Tensor, x: Tensor) -> Tensor:
    """dy/dx with its graph; None, for y that does not depend on x, is an error of the test."""
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
    assert g is not None
    return g


@pytest.mark.parametrize("case", ["input", "weight", "spikes", "residual", "earlier layer"])
def test_a_second_derivative_is_refused_where_it_may_be_unused(case: str) -> None:
    """Without the inputs in its graph, `allow_unused=True` would make it None: zero."""
    x = normal(2, 2, 32, 4, 4).float().requires_grad_()
    w = normal(32, 32, 3, 3, name="w").float().requires_grad_()
    spikes = (x.detach() > 0.5).float().requires_grad_()
    neuron: Any = {**NEURON, "backend": "cpu"}
    flat = spikes.flatten(0, 1)
    if case == "input":
        first, by = gradient(ops.lif(x, **neuron)[0], x), x
    elif case == "weight":
        first, by = gradient(ops.spike_conv2d(flat, w, padding=1, backend="cpu"), flat), w
    elif case == "spikes":
        first, by = gradient(ops.spike_conv2d(flat, w, padding=1, backend="cpu"), w), flat
    elif case == "residual":
        first, by = gradient(ops.lif(x, residual=spikes, **neuron)[0], x), spikes
    else:
        scale = torch.ones(32, 1, 1, requires_grad=True)
        first, by = gradient(ops.lif(x * scale, **neuron)[0], x), scale
    with pytest.raises(UserError, match="use_backend"):
        gradient(first.square(), by)


def test_a_network_with_pooling_keeps_the_graph_of_its_gradient() -> None:
    net, x = create("convnet", in_channels=1, T=2, width=0.25), torch.rand(2, 1, 8, 8)
    parameters = [*net.parameters()]
    kept = torch.autograd.grad(net(x).sum(), parameters, create_graph=True)
    for one, other in zip(kept, torch.autograd.grad(net(x).sum(), parameters), strict=True):
        assert torch.equal(one, other)


def test_a_first_derivative_may_keep_its_graph() -> None:
    x = normal(2, 32, 4, 4).float().requires_grad_()
    w = normal(32, 32, 3, 3, name="w").float().requires_grad_()
    y = ops.spike_conv2d(x, w, padding=1, backend="cpu")
    kept = torch.autograd.grad(y.sum(), [x, w], create_graph=True, retain_graph=True)
    for one, other in zip(kept, torch.autograd.grad(y.sum(), [x, w]), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("bits", [(4, 1), (4, 0), (4,), (4, 3)])
@pytest.mark.parametrize("channels", [65, 6400, 0])
def test_bits_that_do_not_fit_are_not_unpacked(bits: tuple[int, ...], channels: int) -> None:
    words = torch.zeros(bits, dtype=torch.int64)
    with pytest.raises(REFUSED):
        torch.ops.rmploss.unpack("cpu", words, channels, torch.float32)
    with pytest.raises(REFUSED):
        torch.ops.rmploss.unpack("cpu", words.int(), 64, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.int32])
def test_a_type_that_no_kernel_computes_in_is_refused(dtype: torch.dtype) -> None:
    names = ("y", "gain", "bias", "residual", "u", "decay", "threshold")
    given = {**LAYER, **{name: LAYER[name].to(dtype) for name in names}}
    with pytest.raises(REFUSED):
        torch.ops.rmploss.lif(**given)
    with pytest.raises(REFUSED):
        torch.ops.rmploss.lif_backward(**{**given, **GRADIENTS})
    with pytest.raises(REFUSED):
        torch.ops.rmploss.pack("cpu", LAYER["y"].to(torch.int8))


@pytest.mark.parametrize("name", ["decay", "threshold"])
def test_a_missing_constant_is_refused(name: str) -> None:
    with pytest.raises((*REFUSED, AttributeError)):
        torch.ops.rmploss.lif(**{**LAYER, name: None})
