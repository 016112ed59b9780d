"""A layer in one pass gives the spikes of its operations one by one, bit for bit."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rmploss import ops
from rmploss.ops import Affine, Convolution, Kept, Spikes, inference, native
from rmploss.surrogate import SURROGATES
from tests.given import normal


def neuron(**changes: Any) -> Any:
    """The paper's neuron with other options."""
    options: dict[str, Any] = {
        "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "reset_by": None,
        "detach_reset": False, "surrogate": SURROGATES.make("clipped_tanh"),
    }  # fmt: skip
    return {**options, **changes}


RESETS = {
    "hard": neuron(),
    "hard, to a potential": neuron(v_reset=-0.3, decay=0.9),
    "soft": neuron(v_reset=None),
    "soft, by a number": neuron(v_reset=None, reset_by=0.3, decay=1.0),
}


def bits(*shape: int, density: float = 0.3, name: str = "x") -> Spikes:
    """Spikes `[T, B, C, H, W]`."""
    threshold = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - density))
    found = Spikes.found_in((normal(*shape, name=name) > threshold).float())
    assert isinstance(found, Spikes)
    return found


def convolution(
    channels: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, *, bias: bool
) -> Convolution:
    weight = normal(outputs, channels, kernel, kernel, name="w", std=channels**-0.5).float()
    offsets = normal(outputs, name="b", std=0.1).float() if bias else None
    return Convolution(weight, offsets, stride, padding)


def norm_of(channels: int) -> Affine:
    gain = normal(channels, name="gain", mean=1, std=0.1).float()
    shift = normal(channels, name="shift", std=0.1).float()
    return Affine((gain, shift), (), lambda: (gain, shift))


def one_by_one(
    x: Spikes, conv: Convolution, norm: Affine | None, options: Any, residual: Any
) -> Tensor:
    """The spikes of the operations."""
    y = ops.spike_conv2d(x, conv.weight, conv.bias, stride=conv.stride, padding=conv.padding)
    gain, shift = (None, None) if norm is None else norm.make()
    return ops.lif(y, gain=gain, bias=shift, residual=residual, **options)[0]


@torch.no_grad()
def assert_same(
    x: Spikes, conv: Convolution, norm: Affine | None, options: Any, residual: Any = None
) -> None:
    found = ops.conv_lif(Kept(), x, conv, norm, options, residual)
    assert found is not None, "the kernel did not run"
    expected = one_by_one(x, conv, norm, options, residual)
    assert torch.equal(found.dense, expected)
    assert 0 < float(expected.mean()) < 1
    words = found.bits
    assert words is not None
    assert int(words[1]) == int(expected.sum())


@pytest.mark.parametrize("options", RESETS.values(), ids=RESETS)
@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("shortcut", ["none", "spikes", "numbers"])
def test_every_neuron_and_shortcut(
    instruction_set: str, options: Any, has_norm: bool, shortcut: str
) -> None:
    x, shape = bits(3, 2, 70, 5, 4), (3, 2, 90, 5, 4)
    residual: Any = {
        "none": None,
        "spikes": bits(*shape, name="r"),
        "numbers": normal(*shape, name="r", std=0.2).float(),
    }[shortcut]
    conv = convolution(70, 90, 3, padding=1, bias=has_norm)
    assert_same(x, conv, norm_of(90) if has_norm else None, options, residual)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(1, 6),
    images=st.integers(1, 5),
    channels=st.integers(1, 140),
    outputs=st.integers(24, 140),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
)
def test_every_shape(
    steps: int,
    images: int,
    channels: int,
    outputs: int,
    size: tuple[int, int],
    kernel: int,
    stride: int,
    padding: int,
) -> None:
    assume(min(size) + 2 * padding >= kernel)
    x = Spikes.found_in((normal(steps, images, channels, *size) > 0.3).float())
    conv = convolution(channels, outputs, kernel, stride, padding, bias=True)
    with torch.no_grad():
        found = ops.conv_lif(Kept(), x, conv, None, neuron(), None)
        # With too many spikes dense convolutions are faster.
        dense = int(x.bits[1]) > 0.6 * steps * images * channels * size[0] * size[1]
        assert (found is None) == dense
        assume(not dense)
        assert found is not None
        assert torch.equal(found.dense, one_by_one(x, conv, None, neuron(), None))


@pytest.mark.parametrize("steps", [4, 300])
def test_many_steps_and_weights_beyond_the_cache(instruction_set: str, steps: int) -> None:
    x = bits(steps, 3, 200, 3, 3, density=0.1)
    assert_same(x, convolution(200, 130, 3, padding=1, bias=False), norm_of(130), neuron())


def test_threads_do_not_change_a_bit(instruction_set: str) -> None:
    x, conv = bits(4, 3, 64, 9, 9), convolution(64, 150, 3, padding=1, bias=True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            with torch.no_grad():
                spikes = ops.conv_lif(Kept(), x, conv, None, neuron(), None)
            assert spikes is not None
            found.append(spikes.dense)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, found[0]) for each in found)


def test_a_membrane_that_is_no_number_does_not_fire(instruction_set: str) -> None:
    x, conv = bits(2, 1, 64, 4, 4), convolution(64, 64, 1, bias=False)
    conv.weight[0, 0] = float("nan")
    assert_same(x, conv, None, neuron())


def test_blocks_are_made_once_and_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    x, conv, layer = bits(2, 1, 64, 4, 4), convolution(64, 64, 3, bias=False), Kept()
    made: list[int] = []
    seen = inference.native.module.make_blocks
    monkeypatch.setattr(native.module, "make_blocks", lambda **o: (made.append(1), seen(**o)))
    with torch.no_grad():
        for _ in range(3):
            ops.conv_lif(layer, x, conv, None, neuron(), None)
    assert len(made) == 1
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert isinstance(other, Kept)
        with torch.no_grad():
            ops.conv_lif(other, x, conv, None, neuron(), None)
    assert len(made) == 3


def test_where_it_does_not_run() -> None:
    x, conv, layer = bits(2, 1, 64, 4, 4), convolution(64, 64, 3, bias=False), Kept()

    def run(x: Spikes = x, conv: Convolution = conv, residual: Any = None) -> Spikes | None:
        return ops.conv_lif(layer, x, conv, None, neuron(), residual)

    assert run() is None  # with a gradient
    with torch.no_grad():
        assert run() is not None
        with ops.use_backend("reference"):
            assert run() is None
        with torch.autocast("cpu", torch.bfloat16):
            assert run() is None
        assert run(conv=conv._replace(weight=conv.weight.double())) is None
        assert run(conv=conv._replace(weight=conv.weight[:, :32])) is None
        assert run(conv=conv._replace(weight=normal(64, 64, 7, 7).float())) is None
        assert run(residual=torch.zeros(2, 1, 64, 4, 4)) is None  # the output is 2x2
        assert run(bits(2, 1, 64, 4, 4, density=0.8)) is None
    with torch.inference_mode():
        assert run(conv=conv._replace(weight=conv.weight.clone())) is None
        assert run() is not None
