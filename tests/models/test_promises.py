"""Which convolutions and shortcuts are promised spikes, that it is true, and what it spares a GPU.

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
from rmploss.conv import ReadsSpikes, SpikeConv2d
from rmploss.lifecycle import fold
from rmploss.models import MODELS, SpikingNetwork, create
from rmploss.models.dropout import Dropout
from rmploss.models.factorized import FactorizedConv2d
from rmploss.models.layers import Shortcut, is_binary
from rmploss.models.promises import promise
from rmploss.models.resnet import ResNet20
from rmploss.neurons import NEURONS
from rmploss.neurons.lif import LIF
from rmploss.neurons.relu import ReLU
from rmploss.objectives.joint import Branches
from tests import interpreter
from tests.given import labels, normal

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


def narrow(name: str, neuron: str = "lif", **options: Any) -> SpikingNetwork:
    """A narrow network of a neuron, in training mode."""
    torch.manual_seed(0)
    known = MODELS.options(name)
    given = {"width": 1 / 32, "dropout": 0.5, **options}
    make = partial(NEURONS.make, neuron)
    net = create(
        name, T=2, num_classes=3, neuron=make, **{k: v for k, v in given.items() if k in known}
    )
    return net.train()


def images(net: SpikingNetwork) -> Tensor:
    return normal(2, net.in_channels, net.image_size or 32, net.image_size or 32).float()


def promises(net: nn.Module) -> dict[str, bool | None]:
    """What every reader was told."""
    return {name: m.known for name, m in net.named_modules() if isinstance(m, ReadsSpikes)}


def promised(net: nn.Module) -> set[str]:
    return {name for name, binary in promises(net).items() if binary}


@contextmanager
def inputs_of_readers(net: nn.Module) -> Iterator[dict[str, bool]]:
    """Whether each reader got nothing but 0 and 1, in the forwards of the block."""
    got: dict[str, bool] = {}

    def look(name: str, _: nn.Module, given: tuple[Tensor]) -> None:
        (x,) = given
        got[name] = got.get(name, True) and bool(((x == 0) | (x == 1)).all())

    hooks = [
        module.register_forward_pre_hook(partial(look, name))
        for name, module in net.named_modules()
        if hasattr(module, "fed")
    ]
    yield got
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("neuron", list(NEURONS))
@pytest.mark.parametrize("name", list(MODELS))
def test_what_is_promised_is_true(name: str, neuron: str) -> None:
    net = narrow(name, neuron)
    with inputs_of_readers(net) as got:  # with a gradient, for which shortcuts are kept
        net(images(net), over_time=True)
    for reader in promised(net):
        assert got[reader], reader


COUNTS = {
    # promised, known to read no spikes
    "resnet20": (21, 6),
    "resnet19": (24, 1),
    "resnet18-cifar": (24, 1),
    "resnet18": (22, 2),
    "vgg16": (8, 5),
    "vggsnn": (4, 4),
    "plifnet": (5, 1),
    "spiking-resnet18": (24, 0),
    "sew-resnet18": (9, 10),
    "diet-vgg16": (0, 13),
    "diet-resnet20": (14, 3),
    "preact-resnet18": (20, 1),
    "liafnet": (3, 1),
    "convnet": (0, 3),
    "joint": (33, 26),
    "cifarnet": (0, 0),
    "tssl-cifarnet": (0, 0),
}


@pytest.mark.parametrize("name", COUNTS)
def test_how_many_are_told(name: str) -> None:
    told = list(promises(narrow(name)).values())
    assert (told.count(True), told.count(False)) == COUNTS[name]


def test_means_sums_and_images_are_no_spikes() -> None:
    told = promises(narrow("resnet20"))
    assert told["conv1.conv"] is told["layer1.0.conv1.conv"] is told["layer1.0.shortcut"] is False
    assert told["layer2.0.shortcut.1.conv"] is False
    assert told["conv2.conv"] is told["layer2.0.conv1.conv"] is told["layer1.1.shortcut"] is True
    told = promises(narrow("sew-resnet18"))
    assert told["layer1.1.conv1.conv"] is told["layer2.0.shortcut.conv"] is False
    assert told["layer1.0.conv1.conv"] is True  # behind a maximum


def test_a_dropout_that_drops_nothing_is_none() -> None:
    assert promised(narrow("diet-vgg16", dropout=0.0)) == {
        f"layers.conv{name}.conv" for name in
        ("1_2", "2_2", "3_2", "3_3", "4_2", "4_3", "5_2", "5_3")
    }  # fmt: skip


@pytest.mark.parametrize("neuron", ["real", "dsr-if", "liaf", "relu", "tssl"])
def test_analog_neurons_promise_nothing(neuron: str) -> None:
    told = promises(narrow("resnet20", neuron))
    assert True not in told.values()


@pytest.mark.parametrize("neuron", ["real", "dsr-if"])
def test_folded_heights_are_a_promise(neuron: str) -> None:
    net = narrow("resnet20", neuron)
    spiking = promised(narrow("resnet20"))
    fold(net)
    # A shortcut whose height was folded became a scale, which is no spike.
    assert promised(net) == {name for name in spiking if not name.endswith("shortcut")}
    with torch.no_grad(), inputs_of_readers(net) as got:
        net(images(net))
    assert all(got[name] for name in promised(net))
    net(images(net))


def test_only_the_snn_of_a_joint_network() -> None:
    net = narrow("joint")
    names = promised(net)
    assert names
    assert all(name.startswith("snn") for name in names)
    assert all(isinstance(net.get_submodule(n), FactorizedConv2d | Shortcut) for n in names)
    assert isinstance(net(images(net), over_time=True), Branches)
    assert promised(fold(net)) == {name for name in names if not name.startswith("snn_heads")}


def test_neurons_may_be_replaced_before_the_mode_is_set() -> None:
    net, x = narrow("resnet20"), images(narrow("resnet20"))
    before = promises(net)
    block = net.get_submodule("layer1.0")
    block.lif1 = ReLU()
    if not ops.cpu.MISSING:
        with pytest.warns(UserWarning, match=r"call net\.train\(\)"):
            net(x)
    net.train()
    assert promises(net) == {**before, "layer1.0.conv2.conv": False}
    net(x).sum().backward()
    block.lif1 = LIF()
    assert promises(net.eval()) == before


def changed_by_a_hook(net: Any) -> None:
    net.lif1.register_forward_hook(lambda _, __, y: y / 2)


def changed_by_a_hook_of_a_stage(net: Any) -> None:
    net.layer1.register_forward_hook(lambda _, __, y: y / 2)


def changed_by_a_hook_of_a_shortcut(net: Any) -> None:
    net.layer1[1].shortcut.register_forward_hook(lambda _, __, y: y / 2)


def changed_in_a_shortcut(net: Any) -> None:
    class Half(Shortcut):
        def forward(self, input: Tensor) -> Tensor:
            return input / 2

    net.layer1[1].shortcut = Half()


def changed_in_a_wrapper(net: Any) -> None:
    net.conv2.conv = nn.Sequential(net.conv2.conv)
    net.lif1 = NEURONS.make("real", 2)


def changed_in_forward(net: Any) -> None:
    class Half(LIF):
        def forward(self, x: Tensor, **options: Any) -> Tensor:
            return super().forward(x, **options) / 2

    net.lif1 = Half()


def changed_on_the_way(net: Any) -> None:
    net.conv2.register_forward_pre_hook(lambda _, xs: (xs[0] / 2,))


def changed_before_the_convolution(net: Any) -> None:
    net.conv2.conv.register_forward_pre_hook(lambda _, xs: (xs[0] / 2,))


def changed_in_the_object(net: Any) -> None:
    net.lif1.emit = lambda spikes: spikes / 2


def changed_in_the_class(net: Any) -> None:
    class Half(LIF):
        def emit(self, spikes: Tensor) -> Tensor:
            return spikes / 2

    net.lif1 = Half()


@pytest.mark.parametrize(
    "change",
    [
        changed_by_a_hook, changed_by_a_hook_of_a_stage, changed_by_a_hook_of_a_shortcut,
        changed_in_a_shortcut, changed_in_a_wrapper, changed_in_forward,
        changed_on_the_way, changed_before_the_convolution,
        changed_in_the_object, changed_in_the_class,
    ],
)  # fmt: skip
def test_what_changes_spikes_takes_the_promise_back(change: Callable[[Any], None]) -> None:
    """A promise that is kept wrongly warns, and warnings are errors here."""
    net = narrow("resnet20")
    before = promised(net)
    change(net)
    assert promised(net.train()) < before
    net(images(net)).sum().backward()


def test_a_hook_of_all_modules_takes_all_promises_back() -> None:
    net = narrow("resnet20")
    hook = nn.modules.module.register_module_forward_hook(lambda _, __, ___: None)
    try:
        assert set(promises(net.train()).values()) == {None}
    finally:
        hook.remove()
    assert promised(net.train())


def test_a_subclass_that_changes_what_flows_must_say_who_reads() -> None:
    class Own(ResNet20):
        def stem(self, x: Tensor) -> Tensor:
            return super().stem(x) / 2

    class Named(ResNet20):
        def __init__(self) -> None:
            super().__init__(width=1 / 32, num_classes=3, T=2)

    assert not promised(Own(width=1 / 32, num_classes=3, T=2).train())
    assert promised(Named().train())


@pytest.mark.parametrize("name", list(MODELS))
def test_a_mode_can_be_set_whatever_was_exchanged(name: str) -> None:
    net = narrow(name)
    for child, _ in [*net.named_children()]:
        net.set_submodule(child, nn.Identity())
        net.eval()
        net.train()


def test_a_promise_of_the_user_outlives_a_mode() -> None:
    net: Any = narrow("resnet20")
    net.conv1.conv.binary = True  # frames of an event camera
    assert promises(net.eval())["conv1.conv"] is True
    assert promises(net.train())["conv1.conv"] is True


def test_a_source_among_several_that_does_not_tell() -> None:
    net: Any = narrow("resnet20")
    forget(net)
    promise(net, {"lif1": ("conv2",), "": ("conv2",)})
    assert promises(net)["conv2.conv"] is None
    promise(net, {"lif1": ("conv2",), "lif2": ("conv2",)})
    assert promises(net)["conv2.conv"] is True


def test_no_spikes_behind_a_projection() -> None:
    """A GPU is not made to look at what cannot be spikes."""
    block: Any = narrow("resnet20").get_submodule("layer2.0")
    assert is_binary(block.shortcut) is False
    assert is_binary(nn.Identity()) is None


def test_a_network_with_other_blocks_is_still_one() -> None:
    net: Any = narrow("resnet20")
    net.layer1[1] = nn.Sequential(nn.Identity(), Dropout(0.5))
    net.layer4 = nn.Sequential()
    net.head = nn.Identity()
    told = promises(net.train())
    assert told["layer2.0.conv1.conv"] is None  # nobody knows what comes out of the new block
    assert told["layer2.0.conv2.conv"] is True
    net(images(net))


def test_a_network_that_names_nobody_is_promised_nothing() -> None:
    class Own(SpikingNetwork):
        figure_layer = "lif"

        def __init__(self) -> None:
            super().__init__(in_channels=1, num_classes=2, T=1, readout="sum")
            self.lif, self.conv = LIF(), SpikeConv2d(1, 2, 3)

        def outputs(self, x: Tensor) -> Tensor:
            return self.conv(self.lif(x.unsqueeze(0))[0]).mean((2, 3)).unsqueeze(0)

    assert promises(Own().train()) == {"conv": None}
    own = Own()
    own.conv.binary = True  # a user's promise is the user's
    assert promises(own.eval()) == {"conv": True}


def test_promises_are_no_state_and_are_copied() -> None:
    net = narrow("resnet20")
    assert promises(copy.deepcopy(net)) == promises(net)
    other = create("resnet20", T=2, num_classes=3, width=1 / 32)
    assert not promised(other)
    assert other.state_dict().keys() == net.state_dict().keys()
    other.load_state_dict(net.state_dict())
    assert promises(other.train()) == promises(net)


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


def forget(net: nn.Module) -> nn.Module:
    """Nobody knows what is spikes."""
    for module in net.modules():
        if isinstance(module, ReadsSpikes):
            module.fed = None
    return net


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
        with ops.use_backend("triton"):
            with nobody_reads(monkeypatch) as readers:
                found = step(copy.deepcopy(net), *given)
            assert readers == []
            unknown = forget(copy.deepcopy(net))
            with nobody_reads(monkeypatch) as readers:
                looked = step(unknown, *given)
            assert len(readers) == len(promises(net))  # this is what looks, and would wait
        for one, other in zip(found, looked, strict=True):
            assert torch.equal(one, other)
        assert_alike(found, expected, 1e-4)

    def test_a_broken_promise_is_an_error(self) -> None:
        net = resnet()
        net.get_submodule("layer1.0").lif1 = ReLU()
        with ops.use_backend("triton"), pytest.raises(RuntimeError, match="promised to be spikes"):
            step(net, *batch())

    def test_what_is_kept_is_what_a_look_keeps(self) -> None:
        def kept(net: nn.Module) -> list[Any]:
            found: dict[int, Tensor] = {}
            hooks = (lambda x: found.setdefault(x.data_ptr(), x), lambda x: x)
            with torch.autograd.graph.saved_tensors_hooks(*hooks):
                net(batch()[0])
            return sorted((t.dtype == torch.int64, *t.shape) for t in found.values() if t.ndim > 1)

        with ops.use_backend("triton"):
            assert kept(resnet()) == kept(forget(resnet()))


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter() -> None:
    interpreter.assert_passed(f"{__file__}::TestInterpreted")


@pytest.mark.skipif(ops.cpu.MISSING is not None, reason=str(ops.cpu.MISSING))
def test_a_compiled_step_keeps_bits() -> None:
    x, target = batch(size=4, side=32)
    kept: list[tuple[int, int]] = []
    for net in (resnet(), forget(resnet())):
        expected = step(copy.deepcopy(net), x, target)
        compiled: Any = torch.compile(net, backend="aot_eager", fullgraph=True)
        assert_alike(step(compiled, x, target), expected, 1e-4)
        node = compiled(x).grad_fn
        found = {t.data_ptr(): t for t in node.saved_tensors}.values()
        bits = sum(t.dtype == torch.int64 and t.ndim == 2 for t in found)
        maps = [t for t in found if t.ndim > 3 and t.is_floating_point()]
        spikes = sum(bool(((t == 0) | (t == 1)).all()) for t in maps)
        kept.append((bits, spikes))
    assert kept[0] == (len(promised(resnet())), 0)
    assert kept[1][0] == 0
    assert kept[1][1] > 10


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
