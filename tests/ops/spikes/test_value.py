"""`Spikes`: the kernel's bits are those of the numbers, readers agree, changes drop the bits."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from rmploss import LIF, ops
from rmploss.conv import SpikeConv2d
from rmploss.errors import UserError
from rmploss.models.flow import through
from rmploss.models.layers import OverTime
from rmploss.ops import Spikes, dense_of, native
from rmploss.ops.spikes import op
from rmploss.ops.spikes.native import pack_rows
from rmploss.surrogate import SURROGATES
from tests.given import normal

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
NEURON: dict[str, Any] = {
    "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
    "surrogate": SURROGATES.make("clipped_tanh"),
}  # fmt: skip
T, B = 3, 2


def current(channels: int = 64, size: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    return normal(T, B, channels, size, size, mean=0.3).to(dtype).requires_grad_()


def fired(x: Tensor, **options: Any) -> Spikes:
    spikes = ops.lif(x, as_spikes=True, **options, **NEURON)[0]
    assert isinstance(spikes, Spikes)
    return spikes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 5, 16, 31, 63, 64, 65, 130])
def test_the_bits_are_those_of_the_numbers(
    instruction_set: str, channels: int, dtype: torch.dtype
) -> None:
    x = current(channels, 3, dtype).detach()
    residual = (normal(*x.shape, name="r") > 0.5).to(dtype)
    for options in ({}, {"residual": residual}, {"u": normal(*x.shape[1:], name="u")}):
        dense = ops.lif(x, **options, **NEURON)[0]
        spikes = fired(x, **options)
        assert spikes.bits is not None
        words, count = spikes.bits
        expected, number = pack_rows(dense.movedim(2, -1).reshape(-1, channels))
        assert torch.equal(words, expected)
        assert count == number
        assert torch.equal(spikes.dense, dense)
        assert spikes.dense.dtype == dtype


def test_a_norm_in_front_and_equal_steps(instruction_set: str) -> None:
    x, one = current(70).detach(), torch.ones(70)
    for y, repeats in ((x, 1), (x[:1], T)):
        options: Any = {"eps": 1e-5, "repeats": repeats, **NEURON}
        dense = ops.norm_lif(y, one, 0.2 * one, **options)[0]
        spikes = ops.norm_lif(y, one, 0.2 * one, as_spikes=True, **options)[0]
        assert torch.equal(spikes.dense, dense)
        assert spikes.bits[1] == int(dense.sum())


def test_numbers_that_nobody_reads_are_never_written() -> None:
    spikes = fired(current())
    assert spikes.edge.isnan().all()
    assert spikes.edge.untyped_storage().nbytes() == 4
    assert spikes.shape == (T, B, 64, 6, 6)
    assert spikes.dtype == torch.float32
    assert spikes.requires_grad
    before = native.memory()[0]
    ops.spike_conv2d(spikes, normal(64, 64, 3, 3, name="w").float(), padding=1)
    assert spikes.edge.isnan().all()
    assert native.memory()[0] - before < 4 * spikes.edge.numel()


@pytest.mark.parametrize("reader", ["convolution", "strided", "few outputs", "shortcut", "sum"])
def test_a_reader_computes_what_it_computes_of_the_numbers(reader: str) -> None:
    """Forward and backward to the last bit: the same kernels get the same bits."""
    outputs = 8 if reader == "few outputs" else 32
    w = normal(outputs, 64, 3, 3, name="w").float()

    def run(as_spikes: bool) -> list[Tensor]:
        x, weight = current(), w.clone().requires_grad_()
        spikes = ops.lif(x, as_spikes=as_spikes, **NEURON)[0]
        if reader == "sum":
            y = spikes + 2 * spikes
        elif reader == "shortcut":
            y = ops.lif(normal(*x.shape, name="y").float(), residual=spikes, **NEURON)[0]
        else:
            stride = 2 if reader == "strided" else 1
            given = spikes if as_spikes else spikes.flatten(0, 1)
            y = ops.spike_conv2d(given, weight, stride=stride, padding=1)
            y = y if as_spikes else y.unflatten(0, (T, B))
        leaves = [x] if reader in ("shortcut", "sum") else [x, weight]
        loss = (y * normal(*y.shape, name="g").float()).sum()
        return [y.detach(), *torch.autograd.grad(loss, leaves)]

    for found, expected in zip(run(True), run(False), strict=True):
        assert torch.equal(found, expected)
        assert expected.any()


def saved(node: Any) -> list[Tensor]:
    return [t for t in node.saved_tensors if t is not None]


def test_backward_keeps_bits_alone() -> None:
    spikes = fired(current())
    weight = normal(32, 64, 3, 3, name="w").float().requires_grad_()
    y = ops.spike_conv2d(spikes, weight, padding=1)
    (words, *rest) = saved(y.grad_fn.next_functions[0][0])  # pyright: ignore[reportOptionalMemberAccess]
    assert words is spikes.bits[0] or words.data_ptr() == spikes.bits[0].data_ptr()  # pyright: ignore[reportOptionalSubscript]
    assert {t.shape for t in rest} == {(), (32, 64, 3, 3)}
    out = ops.lif(current(), residual=spikes, **NEURON)[0]
    addresses = [t.data_ptr() for t in saved(out.grad_fn)]
    assert words.data_ptr() in addresses  # one set of bits for both readers


def test_the_gradient_passes_whatever_mode_asks_first() -> None:
    x = current()
    spikes = fired(x)
    with torch.no_grad():
        assert float(spikes.mean()) > 0
    (g,) = torch.autograd.grad(spikes.dense.square().sum(), x)
    plain = current()
    (expected,) = torch.autograd.grad(ops.lif(plain, **NEURON)[0].square().sum(), plain)
    assert torch.equal(g, expected)


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "scaled": lambda x: x.mul_(0.5),
    "one element": lambda x: x[1, 1, 7, 3, 2].fill_(0.25),
    "by a view": lambda x: x[0].add_(1),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_place_drops_the_bits(change: str, inference: bool) -> None:
    w = normal(32, 64, 3, 3, name="w").float()
    with torch.inference_mode(inference), torch.no_grad():
        x = current().detach().clone()
        spikes = fired(x)
        assert spikes.bits is not None
        CHANGES[change](spikes.dense)
        changed = ops.lif(x, **NEURON)[0].clone()
        CHANGES[change](changed)
        assert spikes.bits is None
        y = ops.spike_conv2d(spikes, w, padding=1)
        expected = ops.spike_conv2d(changed.flatten(0, 1), w, padding=1, look=False)
        assert torch.equal(y.flatten(0, 1), expected)
        out = ops.lif(x, residual=spikes, **NEURON)[0]
        assert torch.equal(out, ops.lif(x, residual=changed, **NEURON)[0])


def test_a_change_in_place_has_its_gradient() -> None:
    w = normal(32, 64, 3, 3, name="w").float()
    x, plain = current(), current()
    spikes = fired(x)
    spikes.dense.mul_(0.5)
    dense = ops.lif(plain, **NEURON)[0]
    dense.mul_(0.5)
    y = ops.spike_conv2d(spikes, w, padding=1)
    expected = ops.spike_conv2d(dense.flatten(0, 1), w, padding=1, look=False)
    assert torch.equal(y.flatten(0, 1), expected)
    (g,), (e,) = (
        torch.autograd.grad(v.square().sum(), x_) for v, x_ in ((y, x), (expected, plain))
    )
    assert torch.equal(g, e)


def test_it_stands_for_its_tensor() -> None:
    spikes: Any = fired(current())
    other = normal(T, B, 64, 6, 6, name="other").float()
    x = spikes.dense
    assert torch.equal(spikes + other, x + other)
    assert torch.equal(other + spikes, other + x)
    assert torch.equal(other * spikes, x * other)
    assert torch.equal(1 - spikes, 1 - x)
    assert torch.equal(spikes - other, x - other)
    assert torch.equal(spikes / 2, x / 2)
    assert torch.equal(-spikes, -x)
    assert torch.equal(spikes + spikes, 2 * x)
    assert torch.equal(spikes[1], x[1])
    assert torch.equal(spikes.flatten(2).mean(2), x.flatten(2).mean(2))
    assert torch.equal(F.avg_pool3d(spikes, 2), F.avg_pool3d(x, 2))
    assert torch.equal(torch.cat([spikes, other]), torch.cat([x, other]))
    assert torch.nn.AvgPool3d(2)(spikes).shape == (T, B, 32, 3, 3)
    assert len(spikes) == T
    assert spikes.ndim == 5
    assert dense_of(spikes) is x
    assert dense_of(other) is other
    assert "Spikes(shape=[3, 2, 64, 6, 6]" in repr(spikes)
    assert not isinstance(spikes, Tensor)
    with pytest.raises(AttributeError):
        spikes.no_such_thing  # noqa: B018
    assert torch.equal(copy.deepcopy(fired(current().detach())).dense, x)


def test_its_gradient_is_that_of_all_readers() -> None:
    spikes, seen = fired(current()), []
    spikes.register_hook(seen.append)
    w = normal(32, 64, 3, 3, name="w").float()
    y = ops.spike_conv2d(spikes, w, padding=1)
    (y.sum() + 3 * spikes.dense.sum()).backward()
    x = ops.lif(current().detach(), **NEURON)[0].requires_grad_()
    conv = ops.spike_conv2d(x.flatten(0, 1), w, padding=1)
    (expected,) = torch.autograd.grad(conv.sum() + 3 * x.sum(), x)
    (found,) = seen
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_a_look_in_inference_mode_leaves_training_alone() -> None:
    x = current()
    spikes = fired(x)
    with torch.inference_mode():
        assert 0 < float(spikes.mean()) < 1
    w = normal(32, 64, 3, 3, name="w").float().requires_grad_()
    (g,) = torch.autograd.grad(ops.spike_conv2d(spikes, w, padding=1).sum(), x)
    assert spikes.bits is not None
    assert g.any()


def test_it_is_compared_as_its_tensor_is() -> None:
    spikes: Any = fired(current())
    x = spikes.dense
    for found, expected in (
        (spikes == 1, x == 1), (spikes != 0, x != 0), (spikes > 0, x > 0), (spikes >= 1, x >= 1),
        (spikes < 1, x < 1), (spikes <= 0, x <= 0), (spikes**2, x**2), (abs(spikes), x),
        (1 / (spikes + 1), 1 / (x + 1)), (spikes @ x.mT, x @ x.mT),
    ):  # fmt: skip
        assert torch.equal(found, expected)
    assert len({spikes, spikes}) == 1


def test_a_tensor_that_was_looked_at_may_change() -> None:
    x = ops.lif(current().detach(), **NEURON)[0]
    found = Spikes.found_in(x)
    x.zero_()
    w = normal(32, 64, 3, 3, name="w").float()
    assert not ops.spike_conv2d(found, w, padding=1).any()


@pytest.mark.parametrize("shape", [(T, B, 63, 6, 6), (B, T, 64, 6, 6), (T, B, 64, 9, 4)])
def test_a_shortcut_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    spikes = fired(normal(*shape, mean=0.3).float())
    with pytest.raises(UserError, match="the residual has shape"):
        ops.lif(current(), residual=spikes, **NEURON)


def test_maxima_of_changed_spikes_are_no_spikes() -> None:
    pool = OverTime(torch.nn.MaxPool2d(2))
    spikes = fired(current())
    assert isinstance(through(pool, spikes), Spikes)
    spikes.dense.mul_(0.5)
    assert isinstance(through(pool, spikes), Tensor)


def test_what_would_reach_a_part_of_it_is_refused() -> None:
    spikes: Any = fired(current())
    for name in ("requires_grad_", "detach_", "data"):
        with pytest.raises(AttributeError, match="dense"):
            getattr(spikes, name)
    with pytest.raises(AttributeError, match="dense"):
        spikes.data = spikes.dense
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(spikes)
    spikes.retain_grad()
    spikes.dense.sum().backward()
    assert spikes.grad is not None
    spikes.grad = None
    assert spikes.grad is None
    with torch.no_grad():
        changed: Any = fired(current().detach())
        changed[0] = 0.5
        assert changed.bits is None


def test_maxima_are_packed_when_they_are_read() -> None:
    spikes = fired(current())
    y = F.max_pool2d(spikes.dense.flatten(0, 1), 2).unflatten(0, (T, B))
    maxima = spikes.maximum(y)
    assert maxima.dense is y
    assert maxima.bits is not None
    assert maxima.bits[1] == int(y.sum())


def test_only_tensors_of_zeros_and_ones_are_found() -> None:
    x = ops.lif(current().detach(), **NEURON)[0]
    found = Spikes.found_in(x)
    assert isinstance(found, Spikes)
    assert found.dense is x
    for value in (0.5, -1.0, float("nan")):
        changed = x.clone()
        changed[0, 0, 5, 0, 0] = value
        assert Spikes.found_in(changed) is changed
    with ops.use_backend("reference"):
        assert Spikes.found_in(x) is x


def test_the_reference_has_no_bits() -> None:
    with ops.use_backend("reference"):
        assert isinstance(ops.lif(current(), as_spikes=True, **NEURON)[0], Tensor)
    spikes = fired(current())
    w = normal(32, 64, 3, 3, name="w").float()
    with ops.use_backend("reference"):
        y = ops.spike_conv2d(spikes, w, padding=1)
    torch.testing.assert_close(y, ops.spike_conv2d(spikes, w, padding=1), rtol=1e-4, atol=1e-4)


def test_a_model_of_ones_own_may_hand_spikes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    packs: list[Any] = []
    monkeypatch.setattr(op.KERNELS["cpu"], "pack_rows", lambda x: packs.append(x) or pack_rows(x))
    lif, conv = LIF(64), SpikeConv2d(64, 32, 3, padding=1)
    x = current()
    y = conv(lif(x, as_spikes=True))
    assert packs == []
    assert torch.equal(y, conv(lif(x).flatten(0, 1)).unflatten(0, (T, B)))
    assert len(packs) == 1  # a tensor is looked at
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv(lif(x, as_spikes=True)).dtype == torch.bfloat16


def test_compiled_and_traced_graphs_keep_bits() -> None:
    w = normal(64, 64, 3, 3, name="w").float().requires_grad_()

    def block(x: Tensor, w: Tensor) -> Tensor:
        spikes = ops.lif(x, as_spikes=True, **NEURON)[0]
        y = ops.spike_conv2d(spikes, w, padding=1) / 16
        return ops.lif(y, residual=spikes, **NEURON)[0]

    expected = block(current(), w)
    compiled: Any = torch.compile(block, backend="aot_eager", fullgraph=True)
    x = current()
    found = compiled(x, w)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    kept = saved(found.grad_fn)
    assert sum(t.dtype == torch.int64 and t.ndim == 2 for t in kept) == 1
    maps = [t for t in kept if t.ndim >= 4 and t.shape[-1] == 6]
    assert not any(((t == 0) | (t == 1)).all() for t in maps)
    for one, two in zip(
        torch.autograd.grad(found.square().sum(), [x, w]),
        torch.autograd.grad(block(x, w).square().sum(), [x, w]), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4 * float(two.abs().max()))

    def changed(x: Tensor, w: Tensor) -> Tensor:
        spikes = ops.lif(x, as_spikes=True, **NEURON)[0]
        spikes.dense.mul_(0.5)
        return ops.spike_conv2d(spikes, w, padding=1)

    traced: Any = make_fx(changed)(current(), w.detach())
    torch.testing.assert_close(
        traced(x.detach(), w.detach()), changed(x.detach().clone(), w.detach())
    )


@pytest.mark.parametrize("channels", [5, 64, 70, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_means_of_bits_without_gradient(
    instruction_set: str, channels: int, dtype: torch.dtype
) -> None:
    """The means of the numbers, bit for bit; odd maps, and what has a gradient, are pooled so."""
    x = current(channels, 6, dtype)
    with torch.no_grad():
        spikes = fired(x)
        found = spikes.pooled()
        assert found is not None
        means = F.avg_pool2d(spikes.dense.flatten(0, 1).float(), 2).unflatten(0, (T, B))
        assert torch.equal(found, means.to(dtype))
        assert fired(x[..., :3, :]).pooled() is None
    assert fired(x).pooled() is None
