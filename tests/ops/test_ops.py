"""The LIF operation at its edges: types, layouts, shapes, constants per channel, wrong inputs."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rmploss import ops
from rmploss.errors import UserError
from rmploss.ops import native
from rmploss.ops.lif.moments import MomentSpec
from rmploss.surrogate import SURROGATES
from tests import lif_oracle as oracle
from tests.given import normal
from tests.lif_oracle import Neuron

SHAPE = (5, 2, 3, 2)


def lif(x: Tensor, u: Tensor | None = None, **changes: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The operation with the paper's constants, and its moments."""
    options: dict[str, Any] = {
        "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
        "surrogate": SURROGATES.make("clipped_tanh"), "moments": MomentSpec(),
    }  # fmt: skip
    spikes, moments, last = ops.lif(x, u, **{**options, **changes})
    assert moments is not None
    return spikes, moments, last


def test_decay_and_threshold_per_channel() -> None:
    x = normal(*SHAPE, mean=0.3).requires_grad_()
    decay = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    threshold = torch.tensor([0.3, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    spikes, moments, last = lif(x, decay=decay, v_threshold=threshold, v_reset=None)
    loss = (moments * normal(4, 3)).sum() + (last * normal(*SHAPE[1:])).sum() + spikes.sum()
    by_tensor = torch.autograd.grad(loss, (x, decay, threshold))
    for c in range(3):
        one = x.detach()[:, :, c : c + 1].requires_grad_()
        d, v = (value.detach()[c].requires_grad_() for value in (decay, threshold))
        o, m, u = lif(one, decay=d, v_threshold=v, v_reset=None)
        torch.testing.assert_close(o, spikes[:, :, c : c + 1], rtol=0, atol=0)
        torch.testing.assert_close(m[:, 0], moments[:, c], rtol=1e-14, atol=0)
        part = (m * normal(4, 3)[:, c : c + 1]).sum() + o.sum()
        part = part + (u * normal(*SHAPE[1:])[:, c : c + 1]).sum()
        g_x, g_d, g_v = torch.autograd.grad(part, (one, d, v))
        torch.testing.assert_close(g_x, by_tensor[0][:, :, c : c + 1], rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(g_d, by_tensor[1][c], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(g_v, by_tensor[2][c], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["decay", "v_threshold"])
def test_one_constant_is_learnt_as_both_are(name: str, backend: str) -> None:
    if backend == "cpu" and native.MISSING:
        pytest.skip(native.MISSING)
    x = normal(*SHAPE, mean=0.3).requires_grad_()
    constants = {n: torch.tensor(v, dtype=torch.float64) for n, v in
                 (("decay", 0.3), ("v_threshold", 0.5))}  # fmt: skip
    gradients = []
    for learnt in ([name], ["decay", "v_threshold"]):
        given = {n: v.clone().requires_grad_(n in learnt) for n, v in constants.items()}
        spikes, moments, last = lif(x, v_reset=None, backend=backend, **given)
        (spikes.sum() + moments.square().sum() + last.sum()).backward()
        gradients.append(given[name].grad)
    assert gradients[0] is not None
    assert gradients[0] != 0
    assert torch.equal(*gradients)


def test_a_number_per_channel_equals_the_number() -> None:
    x = normal(*SHAPE)
    same = torch.full((3,), 0.25, dtype=torch.float64)
    for one, other in zip(lif(x), lif(x, decay=same), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_membrane_in_float32(dtype: torch.dtype) -> None:
    x = normal(*SHAPE, mean=0.3).to(dtype).requires_grad_()
    spikes, moments, last = lif(x)
    wide_x = x.detach().float().requires_grad_()
    wide_spikes, wide_moments, wide_last = lif(wide_x)
    assert spikes.dtype == dtype
    assert moments.dtype == last.dtype == torch.float32
    torch.testing.assert_close(spikes.float(), wide_spikes, rtol=0, atol=0)
    torch.testing.assert_close(moments, wide_moments, rtol=0, atol=0)
    torch.testing.assert_close(last, wide_last, rtol=0, atol=0)
    (spikes.float().sum() + moments.sum()).backward()
    (wide_spikes.sum() + wide_moments.sum()).backward()
    assert x.grad is not None
    assert wide_x.grad is not None
    torch.testing.assert_close(x.grad, wide_x.grad.to(dtype), rtol=0, atol=0)


def layouts() -> dict[str, Tensor]:
    """The same values in every layout of memory that a convolution or a loader may hand over."""
    plain = normal(3, 2, 4, 5, 6, mean=0.3)
    spaced = torch.zeros(3, 2, 4, 5, 12, dtype=torch.float64)
    spaced[..., ::2] = plain
    last = plain.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return {
        "channels last": last.unflatten(0, (3, 2)),
        "batch first": plain.transpose(0, 1).contiguous().transpose(0, 1),
        "every other value": spaced[..., ::2],
        "a view with an offset": torch.cat([plain[:1], plain])[1:],
    }


@pytest.mark.parametrize("layout", layouts())
def test_any_layout_of_memory(layout: str) -> None:
    plain, x = normal(3, 2, 4, 5, 6, mean=0.3), layouts()[layout]
    torch.testing.assert_close(x, plain, rtol=0, atol=0)
    for one, other in zip(lif(x), lif(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-14)


def test_one_image_shown_for_many_steps_as_a_view() -> None:
    image = normal(1, 2, 3, 4, mean=0.3).requires_grad_()
    copy = image.detach().repeat(4, 1, 1, 1).requires_grad_()
    spikes, moments, _ = lif(image.expand(4, -1, -1, -1))
    other_spikes, other_moments, _ = lif(copy)
    torch.testing.assert_close(spikes, other_spikes, rtol=0, atol=0)
    (spikes.sum() + moments.sum()).backward()
    (other_spikes.sum() + other_moments.sum()).backward()
    assert image.grad is not None
    assert copy.grad is not None
    torch.testing.assert_close(image.grad[0], copy.grad.sum(0), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 1, 3), (4, 2, 1), (1, 1, 1), (2, 2, 3, 4, 5, 6)])
def test_small_and_unusual_shapes(shape: tuple[int, ...]) -> None:
    x = normal(*shape, mean=0.3)
    spikes, moments, last = lif(x)
    expected = oracle.forward(x.numpy(), np.zeros(shape[1:]), Neuron())
    np.testing.assert_array_equal(spikes.numpy(), expected.o)
    np.testing.assert_array_equal(last.numpy(), expected.u)
    np.testing.assert_allclose(moments.numpy(), expected.moments, rtol=1e-12, atol=1e-14)


def test_rest_is_the_reset_potential() -> None:
    x = torch.zeros(1, 1, 1, dtype=torch.float64)
    assert lif(x, v_reset=-0.4)[2].item() == pytest.approx(0.25 * -0.4, abs=1e-17)
    assert lif(x, v_reset=None)[2].item() == 0
    given = torch.full((1, 1), 0.2, dtype=torch.float64)
    assert lif(x, given, v_reset=-0.4)[2].item() == pytest.approx(0.25 * 0.2, abs=1e-17)


def test_wrong_inputs_are_told() -> None:
    with pytest.raises(UserError, match=r"\[4, 2\].*\[T, B, C"):
        lif(normal(4, 2))
    with pytest.raises(UserError, match=r"int64.*floating-point"):
        lif(torch.ones(2, 2, 2, dtype=torch.int64))
    with pytest.raises(UserError, match=r"\[3, 3\].*\[2, 3\](?s:.*)reset_state"):
        lif(normal(4, 2, 3), normal(3, 3))


def test_a_backend_that_cannot_run_is_refused() -> None:
    x = normal(2, 2, 2)
    with pytest.raises(UserError, match='unknown "refrence"') as caught:
        lif(x, backend="refrence")
    assert caught.value.problems[0].fix == 'did you mean "reference"?'
    assert ops.pick("auto", x.device) in ops.BACKENDS
    assert ops.pick("reference", x.device) == "reference"


def test_memory_is_poisoned() -> None:
    assert torch.empty(3).isnan().all()
    assert torch.empty_like(torch.ones(2, 2)).isnan().all()
    assert torch.ones(2).new_empty(4, dtype=torch.float64).isnan().all()
    assert torch.empty(2, dtype=torch.int64).eq(torch.iinfo(torch.int64).max).all()
