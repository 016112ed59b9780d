"""What is kept of a layer for inference is never stale, and never read beyond its end."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmploss import ops
from rmploss.ops import Affine, Convolution, Kept, Spikes, inference, native
from tests.given import normal
from tests.ops.test_inference import bits, convolution, neuron, norm_of, one_by_one


def layer() -> tuple[Convolution, Affine]:
    """A square layer with bias and norm, whose tensors are made from `made_from`."""
    gain, shift = torch.ones(64), torch.zeros(64)
    return convolution(64, 64, 3, padding=1, bias=True), Affine(
        (gain, shift), (), lambda: (gain * 1.0, shift)
    )


def check(kept: Kept, x: Spikes, conv: Convolution, norm: Affine | None) -> Tensor:
    """The spikes of one pass, which are those of single operations."""
    with torch.no_grad():
        found = ops.conv_lif(kept, x, conv, norm, neuron(), None)
        assert found is not None, "the kernel did not run"
        expected = one_by_one(x, conv, norm, neuron(), None)
    assert torch.equal(found.dense, expected)
    return expected


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "scaled": lambda x: x.data.mul_(3.0),
    "negative": lambda x: x.data.neg_(),
    "one value": lambda x: x.data.view(-1)[-1].fill_(9.0),
    "pruned": lambda x: x.data.masked_fill_(abs(x) < 0.5 * abs(x).max(), 0.0),
    "other order": lambda x: x.data.copy_(x.data.flip(0).clone()),
    "by NumPy": lambda x: x.detach().numpy().__imul__(2.0),
    "counted": lambda x: x.mul_(1.5),
    "memory of its own": lambda x: setattr(x, "data", x.data * 0.5),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("which", ["weight", "bias", "gain", "shift"])
@torch.no_grad()
def test_no_change_goes_unseen(which: str, change: Callable[[Tensor], Any]) -> None:
    x, kept = bits(2, 1, 64, 4, 4), Kept()
    conv, norm = layer()
    assert conv.bias is not None
    norm.made_from[1].copy_(normal(64, name="shift", std=0.1))
    norm.made_from[0].copy_(normal(64, name="gain", mean=1, std=0.3))
    tensors = {"weight": conv.weight, "bias": conv.bias}
    tensors |= {"gain": norm.made_from[0], "shift": norm.made_from[1]}
    check(kept, x, conv, norm)
    before = tensors[which].clone()
    change(tensors[which])
    assert not torch.equal(before, tensors[which])
    check(kept, x, conv, norm)
    check(kept, bits(2, 2, 64, 4, 4), conv, norm)


@torch.no_grad()
def test_axes_that_trade_places_in_the_same_memory() -> None:
    x, kept, conv = bits(2, 1, 64, 4, 4), Kept(), convolution(64, 64, 3, padding=1, bias=False)
    before = check(kept, x, conv, None)
    conv.weight.data = conv.weight.data.transpose(0, 1)
    assert not torch.equal(check(kept, x, conv, None), before)


@torch.no_grad()
def test_another_tensor_number_or_norm() -> None:
    x, kept, factor = bits(2, 1, 64, 4, 4), Kept(), [1.0]
    conv, norm = layer()
    scale = Affine(norm.made_from, (1.0,), lambda: (norm.make()[0] * factor[0], norm.make()[1]))
    before = check(kept, x, conv, scale)
    check(kept, x, conv._replace(weight=conv.weight.clone().neg_()), scale)
    factor[0] = 2.0
    assert not torch.equal(check(kept, x, conv, scale._replace(numbers=(2.0,))), before)
    check(kept, x, conv, None)
    kept.forget()
    assert kept.is_empty
    check(kept, x, conv, norm)


@torch.no_grad()
def test_settled_weights_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x, kept, conv, read = bits(2, 1, 64, 4, 4), Kept(), layer()[0], list[int]()
    seen = native.module.fingerprint
    monkeypatch.setattr(
        native.module, "fingerprint", lambda a, n, t: (read.extend(n), seen(a, n, t))[1]
    )
    kept.is_settled = True
    before = check(kept, x, conv, None)
    check(kept, x, conv, None)
    assert conv.weight.numel() not in read
    conv.weight.mul_(-1.0)  # counted
    assert not torch.equal(check(kept, x, conv, None), before)
    assert conv.bias is not None
    conv.bias.data.fill_(5.0)  # small tensors are always read
    check(kept, x, conv, None)
    conv.weight.data.mul_(-1.0)
    kept.is_settled = False
    check(kept, x, conv, None)
    assert conv.weight.numel() in read


@torch.no_grad()
def test_a_wider_layer_in_the_place_of_another() -> None:
    """Decay and threshold are as long as the channels of the layer that runs."""
    kept, x = Kept(), bits(2, 1, 32, 4, 4)
    check(kept, x, convolution(32, 32, 3, padding=1, bias=False), norm_of(32))
    check(kept, x, convolution(32, 4096, 3, padding=1, bias=False), None)


@torch.no_grad()
def test_shapes_that_do_not_fit_are_left_to_the_operations() -> None:
    x, conv, kept = bits(2, 1, 64, 4, 4), convolution(64, 64, 3, padding=1, bias=True), Kept()

    def runs(x: Spikes = x, conv: Convolution = conv, norm: Affine | None = None) -> bool:
        return ops.conv_lif(kept, x, conv, norm, neuron(), None) is not None

    def empty(*shape: int) -> Spikes:
        edge = torch.zeros(*shape)
        words = torch.zeros(shape[0] * shape[1] * 16, 1, dtype=torch.int64)
        return Spikes("cpu", edge, (words, torch.zeros((), dtype=torch.int64)), is_dense=False)

    assert runs(norm=norm_of(64))
    assert not runs(norm=norm_of(32))
    assert not runs(conv=conv._replace(bias=torch.zeros(32)))
    assert not runs(conv=conv._replace(bias=torch.zeros(64, 1)))
    assert not runs(conv=conv._replace(stride=0))
    assert not runs(conv=conv._replace(padding=-1))
    assert not runs(empty(0, 1, 64, 4, 4))
    assert not runs(empty(2, 0, 64, 4, 4))


@pytest.mark.parametrize("name", ["decay", "v_threshold", "v_reset"])
@torch.no_grad()
def test_constants_that_are_tensors_are_left_to_the_operations(name: str) -> None:
    x, conv, kept = bits(2, 1, 64, 4, 4), convolution(64, 64, 3, padding=1, bias=False), Kept()
    for value in (nn.Parameter(torch.tensor(0.5)), torch.full((64,), 0.5)):
        for _ in range(2):
            options = neuron(**{name: value})
            assert ops.conv_lif(kept, x, conv, None, options, None) is None


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rows": 0}, {"rows": 17}, {"channels": 65}])
def test_the_kernel_refuses_neurons_of_another_shape(wrong: dict[str, int]) -> None:
    shape = inference.Spatial(2, 64, 4, 4, 64, 3, 3, 1, 1)
    fields = {"steps": 2, "rows": 16, "channels": 64, **wrong}
    with pytest.raises(ValueError, match=r"time step|outputs"):
        native.module.event_lif(
            shape=inference.record(shape),
            layer=native.module.layer(**fields),
            bits=0,
            blocks=0,
            bias=0,
            out=native.module.forward(),
        )


def test_threads_share_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """One replaces the blocks, and writes over freed memory, before the other's kernel reads."""
    kept, x = Kept(), bits(2, 1, 64, 4, 4)
    conv = convolution(64, 64, 3, padding=1, bias=False)
    other = convolution(64, 64, 3, padding=1, bias=False)
    other = other._replace(weight=-other.weight)
    with torch.no_grad():
        expected = one_by_one(x, conv, None, neuron(), None)
    before, run = threading.get_ident(), native.module.event_lif
    held: list[Tensor] = []

    def late(**fields: Any) -> None:
        if threading.get_ident() == before:
            thread = threading.Thread(target=replace)
            thread.start()
            thread.join()
        run(**fields)

    def replace() -> None:
        with torch.no_grad():
            assert ops.conv_lif(kept, x, other, None, neuron(), None) is not None
        size = 64 * 64 * 9
        held.extend(native.module.empty((size,), (1,), False).fill_(9.0) for _ in range(20))

    monkeypatch.setattr(native.module, "event_lif", late)
    with torch.no_grad():
        found = ops.conv_lif(kept, x, conv, None, neuron(), None)
    assert found is not None
    assert torch.equal(found.dense, expected)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 64, 65, 1 << 16, (1 << 17) + 3])
def test_a_fingerprint_changes_with_every_value(instruction_set: str, size: int) -> None:
    x = normal(size, name="values").float()

    def printed(threads: int = 1) -> int:
        return native.module.fingerprint([x.data_ptr()], [size], threads)

    before = printed()
    assert printed(threads=2) == before
    for at in {0, size // 2, size - 1} if size else ():
        x[at] *= -1
        assert printed() != before
        x[at] *= -1
    assert printed() == before
