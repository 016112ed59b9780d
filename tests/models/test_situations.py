"""Compilers, checkpoints, copies, replaced parts: a network computes the same in all of them.

Whatever flows between the layers of a network, public modules take and return plain tensors. One
step of training is compared with that of the plain network, all gradients and buffers included: bit
for bit where the same kernels run, otherwise within `ROUNDING`.
"""

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from rmploss import LIF, RMPLoss, TDBatchNorm2d, checkpoint, membrane_stats, ops
from rmploss.conv import SpikeConv2d
from rmploss.models import SpikingNetwork
from rmploss.models.dropout import Dropout
from rmploss.models.layers import AvgPool2d, OverTime, Shortcut, conv3x3
from rmploss.models.resnet import BasicBlock, pooled
from rmploss.models.sew import SEWBlock
from rmploss.neurons import IF
from rmploss.neurons.liaf import LIAF
from rmploss.neurons.plif import PLIF
from rmploss.neurons.real import RealSpike
from rmploss.ops import dense_of
from tests.given import normal
from tests.models import situations
from tests.models.situations import (
    NETWORKS,
    ROUNDING,
    SPIKES,
    Applied,
    assert_close,
    assert_same,
    fade,
    images,
    network,
    step,
    step_of,
)

backend = situations.every_backend
"""A fixture that all tests of this file use."""

# 1. Public modules called by themselves ----------------------------------------------------------


BLOCK: Any = {"stride": 1, "shortcut": None, "neuron": LIF, "norm": TDBatchNorm2d}


MODULES: dict[str, Callable[[], nn.Module]] = {
    "LIF": LIF,
    "IF": IF,
    "PLIF": PLIF,
    "RealSpike": partial(RealSpike, 4),
    "ConvNorm": lambda: conv3x3(4, 4, TDBatchNorm2d),
    "BasicBlock": lambda: BasicBlock(4, 4, **BLOCK),
    "SEWBlock add": partial(SEWBlock, 4, 4, connect="add", **BLOCK),
    "SEWBlock and": partial(SEWBlock, 4, 4, connect="and", **BLOCK),
    "SEWBlock iand": partial(SEWBlock, 4, 4, connect="iand", **BLOCK),
    "Shortcut": Shortcut,
    "OverTime": lambda: OverTime(nn.MaxPool2d(2)),
    "Dropout": Dropout,
    "Dropout of nothing": lambda: Dropout(0.0),
    "AvgPool2d": lambda: OverTime(AvgPool2d(2)),
    "SpikeConv2d": lambda: OverTime(SpikeConv2d(4, 5, 3)),
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_a_module_called_by_itself_takes_and_returns_plain_tensors(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    module = make()
    for x in (SPIKES, SPIKES * 0.7, LIF()(SPIKES), SPIKES.clone().requires_grad_()):
        y = module(x)
        assert type(y) is Tensor
        assert type(y + x.mean()) is type(y * 2) is type(y[0]) is type(y.detach()) is Tensor
        assert y.isfinite().all()


def test_convolution_norm_and_neurons_in_one_call_return_spikes() -> None:
    torch.manual_seed(0)
    conv, neuron = conv3x3(4, 4, TDBatchNorm2d), LIF()
    y = conv.fire(SPIKES, neuron, residual=SPIKES)
    assert type(dense_of(y)) is Tensor
    assert torch.equal(dense_of(y), neuron(conv(SPIKES) + SPIKES))


class UsersModel(nn.Module):
    """A user's own network; plain: of PyTorch's convolutions and poolings."""

    def __init__(self, *, plain: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv, pool = (nn.Conv2d, nn.AvgPool2d) if plain else (SpikeConv2d, AvgPool2d)
        self.first = nn.Sequential(
            OverTime(conv(3, 4, 3, padding=1)), TDBatchNorm2d(4), LIF(), OverTime(pool(2)),
            OverTime(conv(4, 5, 3, padding=1)), TDBatchNorm2d(5), LIF(),
        )  # fmt: skip
        self.second, self.lif = OverTime(conv(5, 5, 3, padding=1)), LIF()
        self.third = OverTime(conv(5, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Sums with a tensor and with the output of other neurons are no spikes."""
        first = self.first(x)
        second = self.lif(self.second(first)) + first
        return self.third(second + 0.25)


def test_a_users_own_network_computes_as_with_convolutions_of_pytorch() -> None:
    given = normal(2, 3, 3, 8, 8).float()
    found, expected = (
        step(UsersModel(plain=plain), given.clone().requires_grad_()) for plain in (False, True)
    )
    assert_close(found, expected)


# 6. Compilers ------------------------------------------------------------------------------------


def blocks() -> nn.Sequential:
    """An identity and a pooled shortcut; `[T, B, 4, 8, 8]` to `[T, B, 8, 4, 4]`."""
    torch.manual_seed(0)
    parts: Any = {"neuron": LIF, "norm": TDBatchNorm2d}
    return nn.Sequential(
        BasicBlock(4, 4, stride=1, shortcut=None, **parts),
        BasicBlock(4, 8, stride=2, shortcut=pooled(4, 8, 2, TDBatchNorm2d), **parts),
    )


SMALL: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "convnet": (lambda: network("convnet"), images("convnet")),
    "blocks": (blocks, SPIKES),
}


def step_with_statistics(net: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor]) -> Any:
    """`step` with the membrane statistics of the forward, and a loss of them."""
    with membrane_stats(net, RMPLoss(k=1.0).spec) as stats:
        y = call(x.detach().clone().requires_grad_())
    moments = {entry.name: entry.moments for entry in stats}
    loss = (y * normal(*y.shape, name="g").float()).sum()
    (loss + sum(entry.quantization_error for entry in stats)).backward()
    found = {"outputs": y.detach(), **{n: m.detach() for n, m in moments.items()}}
    found |= {f"gradient of {n}": p.grad for n, p in net.named_parameters()}
    return {n.replace("inner.", ""): value for n, value in found.items()}


@pytest.mark.parametrize(
    ("case", "compiler"), [("convnet", "aot_eager"), ("blocks", "aot_eager"), ("blocks", "eager")]
)
def test_a_step_with_statistics_may_be_compiled_without_a_graph_break(
    case: str, compiler: str
) -> None:
    torch.compiler.reset()
    make, x = SMALL[case]
    net = make()
    found = step_with_statistics(net, x, torch.compile(net, backend=compiler, fullgraph=True))
    plain = make()
    expected = step_with_statistics(plain, x, plain)
    assert len([name for name in expected if "lif" in name and "gradient" not in name]) > 2
    assert_close(found, expected)


@pytest.mark.parametrize("name", ["resnet20", "plifnet"])
def test_a_network_may_be_exported(name: str) -> None:
    net, x = network(name), images(name).detach()
    net(x)  # its running statistics
    net.eval()
    with torch.no_grad():
        exported = torch.export.export(net, (x,)).module()
        torch.testing.assert_close(exported(x), net(x), rtol=ROUNDING, atol=ROUNDING)


# 7. Activation checkpoints -----------------------------------------------------------------------


class Checkpointed(nn.Module):
    """A user's module in the place of another one, whose activations are computed again."""

    def __init__(self, inner: nn.Module, how: Callable[..., Any]) -> None:
        super().__init__()
        self.inner, self.how = inner, how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.inner, x)


CHECKPOINTS: dict[str, Callable[..., Any]] = {
    "ours": checkpoint,
    "reentrant": partial(torch_checkpoint, use_reentrant=True),
    "not reentrant": partial(torch_checkpoint, use_reentrant=False),
}


@pytest.mark.parametrize("how", CHECKPOINTS.values(), ids=CHECKPOINTS)
@pytest.mark.parametrize("name", ["resnet20", "resnet19", "sew-resnet18"])
def test_activations_may_be_computed_again(name: str, how: Callable[..., Any]) -> None:
    def put(net: SpikingNetwork) -> None:
        for place in ("layer1", "layer2.0", "layer2.1"):
            net.set_submodule(place, Checkpointed(net.get_submodule(place), how))

    found, expected = step_of(name, put), dict(step_of(name))
    if how is not checkpoint:  # PyTorch's runs the norms twice, and their statistics move twice
        for name in [name for name in found if "running" in name]:
            del found[name], expected[name]
    # Reentrant: the gradients of a block's branches are summed in another order.
    (assert_close if how is CHECKPOINTS["reentrant"] else assert_same)(found, expected)


def test_statistics_count_a_checkpointed_stage_once() -> None:
    net, x = network("resnet20"), images("resnet20")
    net.set_submodule("layer2", Checkpointed(net.get_submodule("layer2"), checkpoint))
    plain = network("resnet20")
    assert_same(
        step_with_statistics(net, x, net) | {"x": x},
        step_with_statistics(plain, x, plain) | {"x": x},
    )


# 8. Copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"]
)
def test_a_copy_made_after_a_forward_computes_the_same(
    name: str, copied: Callable[[nn.Module], nn.Module]
) -> None:
    net = network(name)
    step(net, images(name))
    net.zero_grad()
    other = copied(net)
    assert_same(step(other, images(name)), step(net, images(name)))


def test_the_parameters_may_be_pickled_after_a_forward() -> None:
    net, other = network("resnet20"), network("resnet20")
    step(net, images("resnet20"))
    other.load_state_dict(pickle.loads(pickle.dumps(net.state_dict())))
    net.zero_grad()
    assert_same(step(other, images("resnet20")), step(net, images("resnet20")))


@pytest.mark.filterwarnings("ignore:carry_state=True carries")
def test_a_carried_membrane_is_copied() -> None:
    neuron, x = LIF(carry_state=True), normal(2, 3, 4, 8, 8).float()
    neuron(x.clone().requires_grad_())
    other = copy.deepcopy(neuron)
    found, expected = (step(n, x.clone().requires_grad_()) for n in (other, neuron))
    assert_same(found, expected)
    assert not torch.equal(expected["outputs"], LIF()(x))


def test_a_network_may_be_one_rank_of_several() -> None:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        net = network("resnet20")
        found = step(DistributedDataParallel(net), images("resnet20"), owner=net)
    finally:
        dist.destroy_process_group()
    assert_same(found, step_of("resnet20"))


# 9. Replaced parts -------------------------------------------------------------------------------

NEURONS: dict[str, Callable[[], nn.Module]] = {
    "RealSpike": lambda: heights(RealSpike(8)),
    "LIAF": LIAF,
    "ReLU": nn.ReLU,
    "LIF": LIF,
}
PARTS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "identity shortcut": ("layer1.1.shortcut", nn.Identity),
    "shortcut": ("layer1.1.shortcut", lambda: Applied(fade)),
    "stage": ("layer1", nn.Identity),
    "pooling": ("stem_pool", lambda: OverTime(nn.MaxPool2d(2))),
    "pooling of two kinds": ("stem_pool", lambda: Applied(lambda x: x[..., ::2, ::2])),
}


def heights(neuron: RealSpike) -> RealSpike:
    """Neurons whose spikes are not 1."""
    assert neuron.amplitude is not None
    nn.init.uniform_(neuron.amplitude, 0.3, 2)
    return neuron


def replaced(place: str, make: Callable[[], nn.Module]) -> Callable[[nn.Module], None]:
    def put(net: nn.Module) -> None:
        torch.manual_seed(2)
        net.set_submodule(place, make())

    return put


@pytest.mark.parametrize("place", ["lif1", "layer1.0.lif1", "layer1.0.lif2"])
def test_neurons_may_be_replaced_between_two_steps(place: str) -> None:
    net = network("resnet20")
    step(net, images("resnet20"))
    start = network("resnet20").state_dict()
    for make in NEURONS.values():
        put = replaced(place, make)
        put(net)
        net.zero_grad()
        net.load_state_dict(start, strict=False)  # the running statistics
        found = step(net, images("resnet20"))
        assert_same(found, step_of("resnet20", put))
        with ops.use_backend("reference"):
            assert_close(found, step_of("resnet20", put))


@pytest.mark.parametrize(("place", "make"), PARTS.values(), ids=PARTS)
def test_parts_may_be_replaced_between_two_steps(place: str, make: Callable[[], nn.Module]) -> None:
    net, put = network("resnet20"), replaced(place, make)
    start = copy.deepcopy(net.state_dict())
    step(net, images("resnet20"))
    net.zero_grad()
    net.load_state_dict(start)
    put(net)
    found = step(net, images("resnet20"))
    assert_same(found, step_of("resnet20", put))
    with ops.use_backend("reference"):
        assert_close(found, step_of("resnet20", put))


# 10. Modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_modes_may_be_switched_between_steps(name: str) -> None:
    net, x = network(name), images(name)
    start = copy.deepcopy(net.state_dict())
    step(net, images(name))
    net.eval()
    given = images(name)
    tracked = net(given)
    tracked.sum().backward()
    for mode in (torch.no_grad(), torch.inference_mode(), nullcontext()):
        with mode:
            y = net(x)
        assert type(y) is Tensor
        assert torch.equal(y, tracked)
        assert y.is_inference() == isinstance(mode, torch.inference_mode)
    with ops.use_backend("reference"):
        expected = net(x)
    assert_close({"outputs": tracked.detach()}, {"outputs": expected.detach()})
    net.train()
    net.load_state_dict(start)
    net.zero_grad()
    assert_same(step(net, images(name)), step_of(name))


# 11. Values --------------------------------------------------------------------------------------

VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "spikes": torch.clone,
    "half": lambda x: x.index_fill(0, torch.tensor(1), 0.5),
    "not a number": lambda x: x.index_fill(3, torch.tensor(2), torch.nan),
    "one half": lambda x: x.index_put((torch.tensor(0),) * 4, torch.tensor(0.5)),
}


@pytest.mark.parametrize("change", VALUES.values(), ids=VALUES)
def test_a_convolution_of_any_values_is_pytorchs(change: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    mine = SpikeConv2d(4, 5, 3, padding=1)
    plain = nn.Conv2d(4, 5, 3, padding=1)
    plain.load_state_dict(mine.state_dict())
    found, expected = (
        step(net, change(SPIKES.flatten(0, 1)).requires_grad_()) for net in (mine, plain)
    )
    for name, value in expected.items():
        size = float(value.nan_to_num().abs().max())
        torch.testing.assert_close(found[name], value, rtol=0, atol=ROUNDING * size, equal_nan=True)


def kept(call: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """What a forward keeps for backward, the same memory once."""
    found: dict[int, Tensor] = {}
    hooks = (lambda t: found.setdefault(t.data_ptr(), t), lambda t: t)
    with torch.autograd.graph.saved_tensors_hooks(*hooks):
        assert call(x).requires_grad
    return [tensor.detach() for tensor in found.values()]


def spike_maps(tensors: list[Tensor]) -> list[Tensor]:
    """Maps of floating-point 0 and 1."""
    maps = [t for t in tensors if t.ndim > 3 and t.is_floating_point()]
    return [t for t in maps if t.any() and ((t == 0) | (t == 1)).all()]


def test_a_convolution_keeps_spikes_as_bits_and_other_values_as_they_are(backend: str) -> None:
    conv, spikes = SpikeConv2d(4, 5, 3), SPIKES.flatten(0, 1)
    for x in (spikes, LIF()(2 * SPIKES).flatten(0, 1)):
        assert len(spike_maps(kept(conv, x))) == (backend == "reference")
    assert fade(spikes).shape in [t.shape for t in kept(conv, fade(spikes))]


@pytest.mark.parametrize("name", ["resnet20", "resnet19", "vggsnn"])
def test_a_network_keeps_no_map_of_spikes_as_floats(name: str, backend: str) -> None:
    found = kept(network(name), images(name))
    assert bool(spike_maps(found)) == (backend == "reference")
