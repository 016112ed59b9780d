"""SEW blocks and their networks: the three functions, the identity, whole numbers, the counts."""

import math
from functools import partial
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from rmploss import IF, LIF, TDBatchNorm2d, UserError, membrane_stats, ops
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork, create
from rmploss.models.layers import ConvNorm, OverTime
from rmploss.models.resnet import BasicBlock, pooled, strided
from rmploss.models.sew import CONNECT, Connect, SEWBlock
from rmploss.models.sew_resnet import NEURON, NORM
from rmploss.neurons.real import RealSpike
from rmploss.ops.lif.moments import MEMBRANE, SPIKES
from tests.given import normal

COUNTS = {18: 11_689_512, 34: 21_797_672}
LAYERS = {"sew-resnet18": 20, "sew-resnet34": 36, "spiking-resnet18": 17, "spiking-resnet34": 33}
"""Neurons: the stem, two in a block, and one on each projection of SEW."""


def spikes(*shape: int, name: str = "spikes") -> Tensor:
    return (normal(*shape, name=name) > 0.3).double()


def lively(net: nn.Module) -> nn.Module:
    """In float64, with norms that make the deep layers fire."""
    net.double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, TDBatchNorm2d):
                module.weight.copy_(1 + 0.3 * normal(module.channels, name="gain"))
                module.bias.copy_(0.5 + 0.1 * normal(module.channels, name="offset"))
    return net


def block(connect: Connect, *, channels: int = 4, stride: int = 1, pool: bool = False) -> SEWBlock:
    torch.manual_seed(0)
    shortcut = (pooled if pool else strided)(4, channels, stride, NORM)
    assert shortcut is None or isinstance(shortcut, ConvNorm | nn.Sequential)
    made = SEWBlock(
        4, channels, stride=stride, connect=connect, shortcut=shortcut, neuron=NEURON, norm=NORM
    )
    lively(made)
    return made


def tiny(name: str, **options: Any) -> SpikingNetwork:
    torch.manual_seed(0)
    net = create(name, **{"num_classes": 3, "T": 3, "width": 1 / 16, **options})
    lively(net)
    return net


IMAGES = normal(2, 3, 32, 32, name="images")


@pytest.mark.parametrize("depth", COUNTS)
@pytest.mark.parametrize("family", ["sew", "spiking"])
def test_parameter_counts(family: str, depth: int) -> None:
    with torch.device("meta"):
        net = create(f"{family}-resnet{depth}")
    assert sum(p.numel() for p in net.parameters()) == COUNTS[depth]


@pytest.mark.parametrize(
    ("connect", "table"),
    [("add", [[0, 1], [1, 2]]), ("and", [[0, 0], [0, 1]]), ("iand", [[0, 1], [0, 0]])],
)
def test_the_three_functions(connect: str, table: list[list[int]]) -> None:
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        joined = CONNECT[connect](torch.tensor(float(a)), torch.tensor(float(b)))
        assert joined.item() == table[a][b]
    assert set(CONNECT) == set(get_args(Connect))


@pytest.mark.parametrize("connect", CONNECT)
@pytest.mark.parametrize(
    ("channels", "stride", "pool"), [(4, 1, False), (6, 2, False), (6, 2, True)]
)
def test_a_block_is_its_equations(connect: Connect, channels: int, stride: int, pool: bool) -> None:
    x = spikes(3, 2, 4, 6, 6)
    got = block(connect, channels=channels, stride=stride, pool=pool)
    want = block(connect, channels=channels, stride=stride, pool=pool)
    y = got(x)

    a = want.lif2(want.conv2(want.lif1(want.conv1(x))))
    b = x
    if want.shortcut is not None:
        assert want.lif3 is not None
        b = want.lif3(want.shortcut(x))
    assert set(b.unique().tolist()) == {0, 1}
    expected = {"add": a + b, "and": torch.logical_and(a, b), "iand": torch.logical_and(1 - a, b)}
    assert torch.equal(y, expected[connect].double())
    assert y.unique().numel() == (3 if connect == "add" else 2)


@pytest.mark.parametrize("connect", CONNECT)
@pytest.mark.parametrize("training", [True, False])
def test_a_block_can_start_as_the_identity(connect: Connect, training: bool) -> None:
    made = block(connect).train(training)
    made.start_as_identity()
    x = spikes(4, 2, 4, 6, 6)
    assert torch.equal(made(x), x)


def test_the_neurons_and_norms_are_the_published_ones() -> None:
    neuron, norm = NEURON(), NORM(3)
    assert isinstance(neuron, IF)
    assert (neuron.v_threshold, neuron.v_reset, neuron.detach_reset) == (1.0, 0.0, True)
    slope = neuron.surrogate.derivative(torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert slope.tolist() == pytest.approx([1, 1 / (1 + math.pi**2 / 4)], rel=1e-14)
    x = normal(3, 2, 3, 4, 4, std=5)
    plain = nn.BatchNorm2d(3).double()(x.flatten(0, 1)).unflatten(0, (3, 2))
    torch.testing.assert_close(norm.double()(x), plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_runs_fires_and_learns(name: str) -> None:
    net = tiny(name)
    with membrane_stats(net) as stats:
        logits = net(IMAGES)
    assert logits.shape == (2, 3)
    assert len({entry.name for entry in stats}) == len(stats) == LAYERS[name]
    assert min(entry.firing_rate.item() for entry in stats) > 0
    logits.square().sum().backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name
    assert isinstance(net.get_submodule(net.figure_layer), LIF)


def test_the_stem_pools_the_largest_spike_and_the_head_reads_the_mean() -> None:
    net = tiny("sew-resnet18", T=4)
    stem: Any = net
    pool = stem.stem_pool
    assert isinstance(pool, OverTime)
    x = spikes(4, 2, 4, 8, 8)
    windows = nn.functional.unfold(x.flatten(0, 1), 3, padding=1, stride=2)
    largest = windows.unflatten(1, (4, 9)).amax(2).view(4, 2, 4, 4, 4)
    assert torch.equal(pool(x), largest)
    assert set(stem.stem(IMAGES).unique().tolist()) == {0, 1}
    net.eval()
    rate = stem.spikes(IMAGES).mean((0, 3, 4))
    torch.testing.assert_close(net(IMAGES), stem.head.layer(rate), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["sew-resnet34", "spiking-resnet34"])
def test_whole_numbers_within_their_bounds(name: str) -> None:
    net: Any = tiny(name)
    x = net.stem(IMAGES)
    for stage, most in zip(net.layers(), (4, 5, 7, 4), strict=True):
        x = stage(x)
        values = x.unique()
        assert torch.equal(values, values.round())
        assert 1 <= values.max() <= (most if name.startswith("sew") else 1)
        assert values.min() >= 0


@pytest.mark.parametrize("connect", CONNECT)
def test_the_function_is_chosen_for_a_whole_network(connect: str) -> None:
    # An AND of many random blocks is silent: here every block starts as the identity.
    net = create("sew-resnet18", connect=connect, width=1 / 16, zero_init_residual=True).double()
    blocks = [m for m in net.modules() if isinstance(m, SEWBlock)]
    assert [b.connect for b in blocks] == [connect] * 8
    x = spikes(4, 2, 4, 6, 6)
    assert torch.equal(blocks[0](x), x)


def test_zero_init_is_on_for_the_spiking_networks_alone() -> None:
    for name, zero in (("sew-resnet18", False), ("spiking-resnet18", True)):
        for module in create(name, width=1 / 16).modules():
            if isinstance(module, SEWBlock | BasicBlock):
                assert isinstance(module.conv2.norm, TDBatchNorm2d)
                assert module.conv2.norm.weight.eq(0 if zero else 1).all()
                assert module.conv2.norm.bias.eq(0).all()
    plain = create("spiking-resnet18", width=1 / 16, zero_init_residual=False)
    assert all(m.weight.eq(1).all() for m in plain.modules() if isinstance(m, TDBatchNorm2d))
    net: Any = create("spiking-resnet18", width=1 / 16).double()
    x = spikes(4, 2, 4, 6, 6)
    assert torch.equal(net.layer1(x), x)  # one unit of current makes the neurons fire at once


@pytest.mark.parametrize("name", ["sew-resnet18", "spiking-resnet18"])
def test_the_convolutions_start_by_their_fan_out(name: str) -> None:
    torch.manual_seed(0)
    for place, module in create(name, width=0.25).named_modules():
        if isinstance(module, nn.Conv2d):
            n, k = module.weight.numel(), module.kernel_size[0]
            expected = math.sqrt(2 / (k * k * module.out_channels))
            # The deviation of n normal numbers has itself a deviation of 1/sqrt(2n): five of them.
            spread = module.weight.std().item()
            assert spread == pytest.approx(expected, rel=5 / math.sqrt(2 * n)), place


def test_the_linear_layer_starts_as_pytorch_starts_it() -> None:
    net: Any = create("sew-resnet18", width=0.25)
    linear = net.head.layer
    bound = 1 / math.sqrt(linear.in_features)
    assert linear.weight.abs().max() <= bound
    assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert linear.bias.abs().max() > 0


@pytest.mark.parametrize("name", [*LAYERS, "resnet20"])
def test_folding_the_norms_is_exact(name: str) -> None:
    net = tiny(name, **({"connect": "add"} if name == "resnet20" else {}))
    net(IMAGES)
    before = net.eval()(IMAGES)
    folded = fold(net)
    assert not any(isinstance(module, TDBatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(IMAGES), before, rtol=1e-11, atol=1e-11)


def test_spikes_with_heights_keep_their_outputs_when_folded() -> None:
    for name, options in (("resnet20", {"connect": "add"}), ("sew-resnet18", {})):
        net = tiny(name, neuron=partial(RealSpike, v_threshold=0.5), **options)
        with torch.no_grad():
            for index, module in enumerate(m for m in net.modules() if isinstance(m, RealSpike)):
                height = module.amplitude
                assert height is not None
                height.copy_(normal(*height.shape, name=f"height{index}", mean=0.8, std=0.5))
        net(IMAGES)
        before = net.eval()(IMAGES)
        torch.testing.assert_close(fold(net)(IMAGES), before, rtol=1e-10, atol=1e-10)
        released = [m for m in net.modules() if isinstance(m, RealSpike) and m.amplitude is None]
        assert len(released) >= 8  # inside of every block


@pytest.mark.parametrize("connect", ["current", *CONNECT])
def test_resnet20_takes_the_blocks(connect: str) -> None:
    with torch.device("meta"):
        net = create("resnet20", connect=connect)
    assert sum(p.numel() for p in net.parameters()) == 11_247_946
    net = tiny("resnet20", connect=connect)
    kind = BasicBlock if connect == "current" else SEWBlock
    assert sum(isinstance(m, kind) for m in net.modules()) == 8
    with membrane_stats(net) as stats:
        assert net(IMAGES).isfinite().all()
    assert len(stats) == 19 + (0 if connect == "current" else 3)


def test_branches_belong_to_currents() -> None:
    with pytest.raises(UserError, match='connect="current"'):
        create("resnet20", branches=True, connect="add")
    with pytest.raises(UserError, match="connect"):
        create("sew-resnet18", connect="current")


@pytest.mark.parametrize("largest", [1, 2, 4])
@pytest.mark.parametrize("few", [False, True])
def test_whole_numbers_are_convolved_as_they_are(largest: int, few: bool) -> None:
    """The convolution for spikes on sums of spikes, also where a single one is not 0 or 1."""
    x = spikes(8, 16, 9, 9).float()
    if few:
        x[5, 3, 4, 4] = largest
    else:
        x = (x * (1 + normal(*x.shape, name="more").abs().round())).clamp(max=largest).float()
    assert x.max() == largest
    x.requires_grad_()
    weight = normal(32, 16, 3, 3, name="weight").float().requires_grad_()
    g = normal(8, 32, 9, 9, name="upstream").float()
    y = ops.spike_conv2d(x, weight, padding=1)
    got = torch.autograd.grad(y, [x, weight], g)
    exact = x.double(), weight.double()
    want = torch.nn.functional.conv2d(*exact, padding=1)
    gradients = torch.autograd.grad(want, exact, g.double())
    # A sum of n products in float32: n roundings relative to the sum of their sizes, at most.
    sizes = [value.detach().double().abs().requires_grad_() for value in (x, weight)]
    bound = torch.nn.functional.conv2d(sizes[0], sizes[1], padding=1)
    bounds = torch.autograd.grad(bound, sizes, g.double().abs())
    assert ((y - want).abs() <= 16 * 9 * 2.0**-24 * bound).all()
    for one, other, bound, terms in zip(got, gradients, bounds, (32 * 9, 8 * 81), strict=True):
        assert ((one - other).abs() <= terms * 2.0**-24 * bound).all()


def test_moments_behind_whole_numbers() -> None:
    """A layer that reads sums of spikes records the moments of its own membrane and spikes."""
    x = spikes(3, 2, 16, 6, 6).float() + spikes(3, 2, 16, 6, 6, name="more").float()
    assert x.max() == 2
    torch.manual_seed(0)
    made = SEWBlock(
        16, 16, stride=1, connect="add", shortcut=None, neuron=NEURON, norm=NORM
    )  # fmt: skip
    with membrane_stats(made) as stats:
        y = made(x)
    assert y.max() == 3
    other = SEWBlock(16, 16, stride=1, connect="add", shortcut=None, neuron=NEURON, norm=NORM)
    other.load_state_dict(made.state_dict())
    other.double()
    with ops.use_backend("reference"), membrane_stats(other) as reference:
        expected = other(x.double())
    assert torch.equal(y.double(), expected)
    for one, two in zip(stats, reference, strict=True):
        assert one.name == two.name
        assert torch.equal(one.moments[SPIKES].double(), two.moments[SPIKES])
        # Of 216 membranes around 1, each with some 150 roundings.
        torch.testing.assert_close(
            one.moments[MEMBRANE].double(), two.moments[MEMBRANE], rtol=0, atol=216 * 150 * 2.0**-24
        )
