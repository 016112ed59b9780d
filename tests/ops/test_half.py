"""Half precision: what is kept for backward, and that results err by the rounding of their type.

bfloat16 has eps = 2^-7: a value that is rounded once errs by at most half of it, relative.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss import ops
from rmploss.models import create
from rmploss.ops import native
from rmploss.ops.lif.moments import MomentSpec
from rmploss.surrogate import SURROGATES
from tests.given import normal

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))

NEURON: dict[str, Any] = {
    "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
    "surrogate": SURROGATES.make("clipped_tanh"), "moments": MomentSpec(),
}  # fmt: skip


def saved_bytes(net: torch.nn.Module, x: Tensor, half: bool) -> int:
    """What a forward keeps for backward, beside the parameters."""
    kept: dict[int, int] = {}

    def note(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    context = torch.autocast("cpu", torch.bfloat16) if half else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), context:
        net(x)
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    return sum(size for place, size in kept.items() if place not in parameters)


def test_autocast_keeps_half_as_much() -> None:
    net, x = create("resnet20", num_classes=10, T=4, width=0.25), normal(4, 3, 32, 32).float()
    # Half of the currents; bits, a twelfth of all in float32, do not shrink.
    assert saved_bytes(net, x, half=True) <= 0.6 * saved_bytes(net, x, half=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [9, 64], ids=["dense", "native"])
@pytest.mark.parametrize("kind", ["spikes", "real"])
def test_a_convolution_errs_by_the_rounding_of_its_type(
    kind: str, channels: int, dtype: torch.dtype
) -> None:
    x = normal(2, channels, 8, 8)
    x = ((x > 0.9).double() if kind == "spikes" else x).to(dtype)
    weight = normal(channels, channels, 3, 3, std=0.1, name="w").float()
    leaves = [x.requires_grad_(), weight.requires_grad_()]
    with torch.autocast("cpu", dtype):
        y = ops.spike_conv2d(leaves[0], leaves[1], padding=1, backend="cpu")
    assert y.dtype == dtype
    g = normal(*y.shape, name="g").to(dtype)
    g_x, g_w = torch.autograd.grad(y, leaves, g)
    assert (g_x.dtype, g_w.dtype) == (dtype, torch.float32)

    exact_leaves = [t.detach().double().requires_grad_() for t in leaves]
    exact = F.conv2d(exact_leaves[0], exact_leaves[1], padding=1)
    e_x, e_w = torch.autograd.grad(exact, exact_leaves, g.double())
    sizes = [t.detach().abs().requires_grad_() for t in exact_leaves]
    size = F.conv2d(sizes[0], sizes[1], padding=1)
    by_x, by_w = torch.autograd.grad(size, sizes, g.double().abs())
    # Half an eps for the result, half for the weight where a dense convolution rounds it; 1e-4 is
    # more than float32 sums of 576 terms (3.4e-5) and Winograd's transforms add.
    unit = torch.finfo(dtype).eps + 1e-4
    smallest = torch.finfo(dtype).smallest_normal
    for found, wanted, scale in ((y, exact, size), (g_x, e_x, by_x), (g_w, e_w, by_w)):
        error = (found.detach().double() - wanted.detach()).abs()
        assert torch.all(error <= unit * scale.detach() + smallest)


@pytest.mark.parametrize("residual", [None, "spikes", "current", "wide current"])
@pytest.mark.parametrize("norm", [False, True])
def test_a_layer_is_the_reference_up_to_one_rounding(norm: bool, residual: str | None) -> None:
    C, shape = 37, (3, 2, 37, 4, 3)
    r = normal(*shape, name="residual")
    given = {"spikes": (r > 1).bfloat16(), "current": r.bfloat16(), "wide current": r.float()}
    leaves = [normal(*shape, mean=0.5).bfloat16(), *(normal(C, name=n).float() for n in "wb")]
    leaves += [given[residual]] if residual else []
    results = []
    for backend in ("cpu", "reference"):
        x, weight, bias, *rest = (leaf.clone().requires_grad_() for leaf in leaves)
        options = {"residual": rest[0] if rest else None, "backend": backend, **NEURON}
        if norm:
            spikes, moments, last, *_ = ops.norm_lif(x, weight, bias, eps=1e-5, **options)
        else:
            spikes, moments, last = ops.lif(x, gain=weight, bias=bias, **options)
        assert spikes.dtype == torch.bfloat16
        assert last.dtype == torch.float32
        assert moments is not None
        loss = (spikes * normal(*shape, name="g").bfloat16()).sum() + moments.sum()
        results.append([spikes, *torch.autograd.grad(loss, [x, weight, bias, *rest])])
    fast, exact = results
    assert torch.equal(fast[0], exact[0])
    for one, other in zip(fast[1:], exact[1:], strict=True):
        assert one.dtype == other.dtype
        # The same float32 up to the order of sums; what is rounded to bfloat16 may fall on
        # either side of a tie.
        eps = torch.finfo(one.dtype).eps + 1e-5
        error = (one.double() - other.double()).abs()
        assert torch.all(error <= eps * other.double().abs() + 1e-5 * other.abs().max())


def test_what_is_kept_of_a_layer_has_its_own_type() -> None:
    x = normal(2, 2, 16, 3, 3).bfloat16().requires_grad_()
    spikes, *_ = ops.lif(x, residual=(x > 0).detach().to(x.dtype), **NEURON)
    assert spikes.grad_fn is not None
    kept: list[Tensor | None] = list(spikes.grad_fn.saved_tensors)  # pyright: ignore[reportAttributeAccessIssue]
    assert [t.dtype for t in kept if t is not None and t.numel() > 16] == [
        torch.bfloat16,
        torch.int64,
    ]
