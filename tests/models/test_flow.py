"""How spikes flow in networks: one set of bits for each tensor, and what it spares a GPU.

Triton reads TRITON_INTERPRET when it is imported, so its interpreter has a process of its own: one
test runs this file again.
"""

import copy
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss import ops
from rmploss.lifecycle import fold
from rmploss.models import MODELS, SpikingNetwork, create
from rmploss.models.flow import calls, through
from rmploss.models.layers import OverTime
from rmploss.neurons import NEURONS
from rmploss.neurons.lif import LIF
from rmploss.objectives.joint import Branches
from rmploss.ops import Spikes, native
from rmploss.ops.spikes import op as spikes_op
from tests import interpreter
from tests.given import labels, normal

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
needs_native = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))


def narrow(name: str, neuron: str = "lif", **options: Any) -> SpikingNetwork:
    """A narrow network of a neuron, in training mode, made for images of 32 x 32."""
    torch.manual_seed(0)
    sizes = {"liafnet": 16, "liafnet-conv3d": 16}
    if name in ("cifarnet", "plifnet", "plifnet-dvs", "vggsnn", "diet-vgg16", "diet-resnet20",
                "tssl-cifarnet", "liafnet", "liafnet-conv3d"):  # fmt: skip
        options = {"image_size": sizes.get(name, 32), **options}
    usual = {"T": 2, "num_classes": 3, "width": 1 / 16, "in_channels": 3, **options}
    return create(name, **usual, neuron=partial(NEURONS[neuron])).train()


def frames(net: SpikingNetwork, steps: int = 2) -> Tensor:
    side = net.image_size or 32
    return normal(steps, 2, net.in_channels, side, side, name="frames").float()


class Counts:
    """Calls of the kernels that pack and unpack, and every set of bits that was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packed = self.unpacked = 0
        self.sets: list[Tensor] = []
        for name in ("pack_rows", "unpack_rows"):
            run = getattr(spikes_op.native, name)
            monkeypatch.setattr(spikes_op.native, name, self._counting(name, run))
        make = Spikes.__init__

        def made(spikes: Spikes, *given: Any, is_dense: bool) -> None:
            bits = given[2]
            if bits is not None:
                self.sets.append(bits[0])
            make(spikes, *given, is_dense=is_dense)

        monkeypatch.setattr(Spikes, "__init__", made)

    def _counting(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.packed += name == "pack_rows"
            self.unpacked += name == "unpack_rows"
            return run(*arguments)

        return counted


MAXIMA = ("plifnet", "plifnet-dvs", "sew-resnet18", "sew-resnet34", "spiking-resnet18",
          "spiking-resnet34")  # fmt: skip
"""Networks in which maxima of spikes are read by convolutions: those are packed, once each."""
LOOKED = ("preact-resnet18",)
"""Its first convolution stands in no `ConvNorm`: the image is looked at."""


@needs_native
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"liafnet-conv3d"}))
def test_a_step_packs_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The neuron kernels write the bits; every spiking convolution layer has one set of them."""
    net = narrow(name)
    x, counts = frames(net), Counts(monkeypatch)
    outputs: Any = net(x, over_time=True)
    tensors = (
        [*outputs.snn.logits, *outputs.ann.logits] if isinstance(outputs, Branches) else [outputs]
    )
    sum(t.square().sum() for t in tensors).backward()  # pyright: ignore[reportAttributeAccessIssue]
    pools = {"plifnet": 1, "plifnet-dvs": 3}.get(name, 1)
    assert counts.packed == (pools if name in MAXIMA else 1 if name in LOOKED else 0)
    addresses = [words.data_ptr() for words in counts.sets]
    assert len(addresses) == len(set(addresses)) > 2


@needs_native
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_numbers_are_written_for_poolings_and_the_head_alone(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ResNet20: at the stem, before three projections and at the head; of 19 spiking layers."""
    net = narrow("resnet20", width=0.5).train(mode == "train")
    x, counts = frames(net), Counts(monkeypatch)
    with torch.set_grad_enabled(mode == "train"):
        net(x)
    assert len(counts.sets) == 19
    # Without gradient poolings read bits, and the head alone reads numbers.
    numbers = 5 if mode == "train" else 1
    assert (counts.packed, counts.unpacked) == (0, numbers)


@needs_native
def test_between_blocks_there_are_spikes_and_at_borders_tensors() -> None:
    net = narrow("resnet19")
    seen: list[bool] = []

    class Watching(nn.Sequential):
        """A stage of another class: it gets and returns tensors."""

        def forward(self, input: Any) -> Any:
            output = super().forward(input)
            seen.extend(isinstance(x, Tensor) for x in (input, output))
            return output

    stem = net.stem(frames(net))  # pyright: ignore[reportCallIssue]
    assert isinstance(stem, Spikes)
    assert isinstance(through(net.get_submodule("layer1"), stem), Spikes)
    assert isinstance(net.get_submodule("layer1")(stem.dense), Tensor)
    expected = net(frames(net))
    net.layer2 = Watching(*net.get_submodule("layer2").children())
    assert torch.equal(net(frames(net)), expected)
    assert seen == [True, True]


@needs_native
@pytest.mark.parametrize("neuron", ["real", "dsr-lif", "evolving", "plif", "diet", "inflor"])
def test_other_neurons_give_spikes_where_all_is_zero_or_one(neuron: str) -> None:
    net = narrow("resnet20", neuron)
    expected = {"real": Tensor, "dsr-lif": Tensor}.get(neuron, Spikes)
    x = frames(net)
    assert isinstance(net.conv1.fire(x, net.lif1), expected)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    folded: Any = fold(copy.deepcopy(net))
    with torch.no_grad():
        assert isinstance(folded.conv1.fire(x, folded.lif1), Spikes)
        with ops.use_backend("reference"):
            by_reference = folded(x)
        torch.testing.assert_close(folded(x), by_reference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in NEURONS if issubclass(NEURONS[name], LIF)])
def test_every_lif_is_one_operation_with_its_norm(name: str) -> None:
    assert calls(NEURONS[name](4), LIF)


@needs_native
def test_neurons_may_be_exchanged_in_any_mode() -> None:
    """No mode is set again: what flows follows from the neurons that run."""
    net: Any = narrow("convnet")
    x = frames(net)
    for other in (NEURONS["liaf"](4), LIF(4), NEURONS["relu"](4), nn.ReLU()):
        net.lif2 = other
        found = net(x)
        with ops.use_backend("reference"):
            torch.testing.assert_close(found, net(x), rtol=1e-4, atol=1e-4)


@needs_native
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch.compile's own
@pytest.mark.parametrize("place", ["layer1", "layer1.0"])
def test_a_forward_of_an_objects_own_and_a_compiled_module_are_called(place: str) -> None:
    net: Any = narrow("resnet20")
    expected = net(frames(net))
    part, called = net.get_submodule(place), []
    forward = part.forward
    part.forward = lambda x: called.append(x) or forward(x)
    assert torch.equal(net(frames(net)), expected)
    assert len(called) == 1
    del part.forward
    graphs: list[Any] = []
    part.compile(backend=lambda graph, _: graphs.append(graph) or graph.forward)
    torch.testing.assert_close(net(frames(net)), expected, rtol=1e-4, atol=1e-5)
    assert graphs


@needs_native
def test_a_layer_over_time_may_change_its_input() -> None:
    """What reads the spikes afterwards reads the changed numbers."""

    class Doubling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            """2 x, in place."""
            return x.mul_(2)

    net: Any = narrow("resnet20")
    with torch.no_grad():
        spikes = net.conv1.fire(frames(net), net.lif1)
        doubled = 2 * spikes.dense
        assert torch.equal(through(OverTime(Doubling()), spikes), doubled)
        assert spikes.bits is None
        assert torch.equal(net.conv2.convolve(spikes), net.conv2.convolve(doubled))


# A step of training ------------------------------------------------------------------------------


def resnet(device: str = "cpu") -> SpikingNetwork:
    """ResNet20 of 4 to 32 channels whose layers fire."""
    torch.manual_seed(0)
    return create("resnet20", T=2, num_classes=3, width=1 / 16).to(device).train()


def step(net: nn.Module, x: Tensor, target: Tensor) -> list[Tensor]:
    """The loss, and the gradients of all parameters."""
    net.zero_grad()
    loss = F.cross_entropy(net(x), target)
    loss.backward()
    return [loss.detach()] + [p.grad for p in net.parameters() if p.grad is not None]


def batch(device: str = "cpu", size: int = 2, side: int = 16) -> tuple[Tensor, Tensor]:
    return normal(size, 3, side, side).float().to(device), labels(size, 3).to(device)


def assert_alike(found: list[Tensor], expected: list[Tensor], unit: float) -> None:
    """Each within `unit` of the largest number of its tensor, and not all zero."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        size = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=unit * (size + 1e-6))
    assert float(expected[1].abs().max()) > 0


READS = ("tolist", "item", "__bool__", "__int__", "__float__", "__index__")
"""What a tensor's value leaves the device by."""


@contextmanager
def nobody_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Who took the value of a tensor, in code of this package."""
    readers: list[str] = []
    package = str(Path(ops.__file__).parents[1])

    def watched(name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(x: Tensor, *arguments: Any) -> Any:
            caller = sys._getframe(1)
            if caller.f_code.co_filename.startswith(package):
                readers.append(f"{name} in {caller.f_code.co_qualname}")
            return read(x, *arguments)

        return reading

    with monkeypatch.context() as patch:
        for name in READS:
            patch.setattr(Tensor, name, watched(name, getattr(Tensor, name)))
        yield readers


@needs_triton
class TestInterpreted:
    """In a process with TRITON_INTERPRET=1, which `test_in_the_interpreter` starts."""

    __test__ = INTERPRETED

    def test_a_step_reads_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        net, given = resnet(), batch()
        with ops.use_backend("reference"):
            expected = step(copy.deepcopy(net), *given)
        with ops.use_backend("triton"), nobody_reads(monkeypatch) as readers:
            found = step(net, *given)
            assert readers == []
            ops.spike_conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3, requires_grad=True))
            assert readers  # this is what looks, and would wait
        assert_alike(found, expected, 1e-4)

    def test_what_is_kept_is_bits(self) -> None:
        found: dict[int, Tensor] = {}
        hooks = (lambda x: found.setdefault(x.data_ptr(), x), lambda x: x)
        with ops.use_backend("triton"), torch.autograd.graph.saved_tensors_hooks(*hooks):
            resnet()(batch()[0])
        kept = list(found.values())
        maps = [t for t in kept if t.ndim > 3 and t.is_floating_point() and t.numel() > 64]
        assert not any(((t == 0) | (t == 1)).all() for t in maps)
        assert sum(t.dtype == torch.int64 and t.ndim == 2 for t in kept) == READ_AS_BITS

    @pytest.mark.parametrize("channels", [3, 64, 70, 130])
    @pytest.mark.parametrize("steps", [2, 17])
    def test_the_kernel_writes_the_bits_of_its_numbers(self, channels: int, steps: int) -> None:
        x = normal(steps, 3, channels, 5, 3, mean=0.3).float()
        options: Any = {
            "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
            "surrogate": LIF().surrogate, "backend": "triton",
        }  # fmt: skip
        spikes = ops.lif(x, as_spikes=True, **options)[0]
        assert spikes.is_dense
        assert torch.equal(spikes.dense, ops.lif(x, **options)[0])
        words, _ = spikes_op.pack("triton", spikes.dense)
        assert torch.equal(spikes.bits[0], words)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter() -> None:
    interpreter.assert_passed(f"{__file__}::TestInterpreted")


READ_AS_BITS = 17
"""Spike tensors of ResNet20 whose bits are kept for a convolution or a shortcut: all 19 but the
last of the stem, which is pooled, and the last of all."""


@needs_native
def test_a_compiled_step_keeps_bits() -> None:
    x, target = batch(size=4, side=32)
    net = resnet()
    expected = step(copy.deepcopy(net), x, target)
    compiled: Any = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert_alike(step(compiled, x, target), expected, 1e-4)
    kept = {t.data_ptr(): t for t in compiled(x).grad_fn.saved_tensors}.values()
    maps = [t for t in kept if t.ndim > 3 and t.is_floating_point() and t.numel() > 512]
    assert not any(((t == 0) | (t == 1)).all() for t in maps)
    assert sum(t.dtype == torch.int64 and t.ndim == 2 for t in kept) == READ_AS_BITS


# On a GPU ----------------------------------------------------------------------------------------


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnGpu:
    """A step waits for nothing, can be captured, and computes what the reference does."""

    def test_a_step_waits_for_nothing(self) -> None:
        net, given = resnet("cuda"), batch("cuda")
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            step(net, *given)
            optimizer.step()
        torch.cuda.synchronize()
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(net, *given)
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def test_a_captured_step_is_the_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
        net, (x, target) = resnet("cuda"), batch("cuda")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step(net, x, target)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step(net, x, target)
        x.copy_(normal(*x.shape, name="another batch"))
        graph.replay()
        torch.cuda.synchronize()
        assert_alike(captured, step(resnet("cuda"), x, target), 1e-4)

    def test_bfloat16_is_close_to_the_reference(self) -> None:
        given = batch("cuda", size=8)
        results = []
        for backend in ("triton", "reference"):
            with ops.use_backend(backend), torch.autocast("cuda", dtype=torch.bfloat16):
                results.append(step(resnet("cuda"), *given))
        (loss, *found), (expected_loss, *expected) = results
        torch.testing.assert_close(loss, expected_loss, rtol=0.05, atol=0.05)
        # Roundings fall on either side, and spikes at the threshold flip: directions count.
        one, other = (
            torch.cat([g.flatten() for g in gradients]) for gradients in (found, expected)
        )
        assert F.cosine_similarity(one, other, dim=0) > 0.95
