"""The networks: their sizes, their layers, static images as sequences, what they refuse."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmploss import LIF, UserError, membrane_stats
from rmploss.lifecycle import fold
from rmploss.models import MODELS, SpikingNetwork, create
from rmploss.models.layers import ConvNorm, OverTime
from rmploss.neurons.plif import PLIF
from rmploss.norm import TDBatchNorm2d
from tests.given import normal

OTHERS = {"preact-resnet18", "liafnet", "liafnet-conv3d", "tssl-cifarnet"}
"""Other in what the tests here ask of all: norms behind sums, odd poolings, no norms at all."""
NETWORKS = [name for name in MODELS if MODELS[name].gives == "outputs" and name not in OTHERS]
"""Those that train by their outputs alone; the others have tests of their own."""
PARAMETERS = {
    ("resnet20", 10): 11_247_946,
    ("resnet20", 100): 11_294_116,
    ("resnet19", 10): 12_569_226,
    ("resnet19", 100): 12_615_396,
    ("vgg16", 10): 14_728_266,
    ("vgg16", 100): 14_774_436,
    ("resnet18", 1000): 11_689_512,
    ("resnet34", 1000): 21_797_672,
    ("resnet18-cifar", 10): 11_173_962,
    ("resnet18-cifar", 100): 11_220_132,
    ("cifarnet", 10): 45_049_188,
    ("plifnet", 10): 36_718_344,
    ("plifnet-dvs", 10): 17_427_718,
    ("vggsnn", 10): 9_271_498,
}
"""Counted from the authors' code for the small networks, the usual ones for ImageNet."""
LAYERS = {
    "resnet20": 19, "resnet19": 17, "vgg16": 13, "resnet18": 17, "resnet34": 33, "convnet": 3,
    "resnet18-cifar": 17, "diet-vgg16": 15, "diet-resnet20": 19,
    "cifarnet": 8, "plifnet": 8, "plifnet-dvs": 6, "vggsnn": 8,
    "sew-resnet18": 20, "sew-resnet34": 36, "spiking-resnet18": 17, "spiking-resnet34": 33,
}  # fmt: skip
SIZE = {"vgg16": 32, "resnet18": 32, "resnet34": 32, "plifnet-dvs": 32}
EAGER = partial(PLIF, v_threshold=0.5)
"""With the published threshold of 1, a network so narrow is silent."""
SAME = {"dropout": 0.0, "image_size": 16, "norm": TDBatchNorm2d}
OPTIONS: dict[str, dict[str, Any]] = {
    "cifarnet": SAME,
    "diet-vgg16": SAME,
    "diet-resnet20": SAME,
    "plifnet": {**SAME, "neuron": EAGER},
    "plifnet-dvs": {**SAME, "neuron": EAGER, "in_channels": 3, "image_size": 32},
    "vggsnn": {"in_channels": 3, "image_size": 16},
}
"""What makes a network comparable with the others here: no chance, small images, the same norm."""


def tiny(name: str, **options: Any) -> SpikingNetwork:
    """A narrow one in float64, with norms that make its deep layers fire."""
    torch.manual_seed(0)
    usual = {"num_classes": 3, "T": 3, "width": 1 / 32, **OPTIONS.get(name, {})}
    net = create(name, **{**usual, **options}).double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, TDBatchNorm2d):
                module.weight.copy_(1 + 0.3 * normal(module.channels, name="gain"))
                module.bias.copy_(0.3 + 0.1 * normal(module.channels, name="offset"))
            elif isinstance(module, nn.Linear):
                module.weight.copy_(normal(*module.weight.shape, name="head"))
    return net


def remembering(net: SpikingNetwork) -> SpikingNetwork:
    """Its running statistics are those of the last batch: it fires as much in evaluation."""
    for module in net.modules():
        if isinstance(module, TDBatchNorm2d):
            module.momentum = 1.0
    return net


def images(name: str, channels: int = 3, batch: int = 2) -> Tensor:
    """Images of the smallest size that the network's poolings allow."""
    size = SIZE.get(name, 16)
    return normal(batch, channels, size, size, name="images")


@pytest.mark.parametrize(("name", "classes"), PARAMETERS)
def test_parameter_counts(name: str, classes: int) -> None:
    with torch.device("meta"):
        net = create(name, num_classes=classes)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name, classes]


def test_parameter_counts_of_resnet19_with_two_linear_layers() -> None:
    counts = {(128, 10): 12_697_994, (64, 10): 12_630_858, (64, 100): 12_653_988}
    for (stem, classes), expected in counts.items():
        with torch.device("meta"):
            net = create("resnet19", num_classes=classes, stem_width=stem, hidden_fc=256)
        assert sum(p.numel() for p in net.parameters()) == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_runs_and_fires(name: str) -> None:
    net = tiny(name)
    with membrane_stats(net) as stats:
        logits = net(images(name))
    assert logits.shape == (2, 3)
    names = [entry.name for entry in stats]
    assert len(names) == len(set(names)) == LAYERS[name]
    assert set(names) == {n for n, m in net.named_modules() if isinstance(m, LIF)}
    assert min(entry.firing_rate.item() for entry in stats) > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layer_of_the_figures_exists(name: str) -> None:
    net = tiny(name)
    assert isinstance(net.get_submodule(net.figure_layer), LIF)
    if name.startswith("resnet"):
        assert net.figure_layer == "layer1.1.lif1"  # "the first layer of the second block"


def test_resnet19_with_two_linear_layers() -> None:
    net = tiny("resnet19", stem_width=64, hidden_fc=5)
    with membrane_stats(net) as stats:
        assert net(images("resnet19")).shape == (2, 3)
    assert [entry.name for entry in stats][-1] == "head.1"
    assert len(stats) == 18
    assert stats.layers[-1].moments.shape == (4, 5)
    # A stem of half the channels needs a projection before the first block.
    assert isinstance(net.get_submodule("layer1.0.shortcut"), ConvNorm)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_has_a_gradient(name: str) -> None:
    net = tiny(name)
    net(images(name)).square().sum().backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None, parameter_name
        # A bias before a norm changes nothing; everything else does.
        if not parameter_name.endswith("conv.bias"):
            assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_static_image_is_the_sequence_of_its_copies(name: str) -> None:
    static, sequence = remembering(tiny(name)), remembering(tiny(name))
    sequence.load_state_dict(static.state_dict())
    x = images(name, batch=4).requires_grad_()
    copies = x.detach().expand(3, -1, -1, -1, -1).requires_grad_()
    one, other = static(x), sequence(copies)
    assert one.std(0).max() > 0
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    one.square().sum().backward()
    other.square().sum().backward()
    assert x.grad is not None
    assert copies.grad is not None
    assert x.grad.abs().max() > 0
    close(x.grad, copies.grad.sum(0))
    for p, q in zip(static.parameters(), sequence.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        close(p.grad, q.grad)
    for p, q in zip(static.buffers(), sequence.buffers(), strict=True):
        close(p, q)
    # In evaluation too, with the running statistics that the step left.
    one, other = static.eval()(x), sequence.eval()(copies)
    assert one.std(0).max() > 0
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def close(got: Tensor, want: Tensor) -> None:
    """Equal up to the order of float64 sums, relative to the largest of the tensor."""
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10 * (1 + want.abs().max().item()))


@pytest.mark.parametrize("name", NETWORKS)
def test_two_forwards_are_equal(name: str) -> None:
    net = tiny(name)
    first = net(images(name))
    assert first.std(0).max() > 0
    assert torch.equal(first, net(images(name)))
    net = settled(name)
    assert torch.equal(net(images(name)), net(images(name)))


def settled(name: str, **options: Any) -> SpikingNetwork:
    """One in evaluation, with the statistics of a batch, so that all its layers fire."""
    net = remembering(tiny(name, **options))
    net(images(name, batch=8))
    return net.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_no_image_sees_another_in_evaluation(name: str) -> None:
    net = settled(name)
    x = images(name, batch=3)
    together = net(x)
    assert together.std(0).max() > 0
    for index in range(3):
        close(net(x[index : index + 1]), together[index : index + 1])


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_the_norms_is_exact(name: str) -> None:
    net, x = settled(name), images(name, batch=3)
    with membrane_stats(net) as stats:
        before = net(x)
    assert min(entry.firing_rate.item() for entry in stats) > 0
    assert before.std(0).max() > 0
    folded = fold(net)
    assert not any(isinstance(module, TDBatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(x), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_mean_readout_is_the_sum_over_the_steps(name: str) -> None:
    total, mean = tiny(name, readout="sum"), tiny(name, readout="mean")
    mean.load_state_dict(total.state_dict())
    sums = total(images(name))
    assert sums.std(0).max() > 0
    torch.testing.assert_close(mean(images(name)) * 3, sums, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", NETWORKS)
def test_event_frames_have_two_channels_and_their_own_length(name: str) -> None:
    net = tiny(name, in_channels=2, num_classes=11)
    frames = images(name, channels=2).expand(5, -1, -1, -1, -1)
    with membrane_stats(net) as stats:
        assert net(frames).shape == (2, 11)
    first = stats.layers[0]
    assert first.count % (5 * 2) == 0


def test_the_weights_start_as_the_family_starts_them() -> None:
    net = create("resnet19", width=0.5)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            k, channels = module.kernel_size[0], module.out_channels
            expected = math.sqrt(2 / (k * k * channels))
            # The deviation of n normal numbers has itself a deviation of 1/sqrt(2n): five of them.
            n = module.weight.numel()
            assert module.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * n))
            assert abs(module.weight.mean().item()) < 5 * expected / math.sqrt(n)
        elif isinstance(module, nn.Linear):
            n = module.weight.numel()
            expected = 1 / module.in_features
            assert module.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * n))
            assert module.bias.abs().max() == 0
        elif isinstance(module, TDBatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()
            assert module.scale == 0.5


def test_resnet20_pools_before_it_projects() -> None:
    net = tiny("resnet20")
    shortcut = net.get_submodule("layer2.0.shortcut")
    assert isinstance(shortcut, nn.Sequential)
    x = normal(3, 2, 2, 5, 5)  # an odd size: the window at the edge holds what there is
    (pool, project) = shortcut
    assert isinstance(project, ConvNorm)
    expected = torch.stack([x[..., 0:2, :], x[..., 2:4, :]]).mean(-2)
    assert pool(x).shape[-2:] == (3, 3)
    windows = expected[..., 0:4].unflatten(-1, (2, 2)).mean(-1)
    torch.testing.assert_close(pool(x)[..., :2, :2], windows.permute(1, 2, 3, 0, 4))
    torch.testing.assert_close(pool(x)[..., 2, 2], x[..., 4, 4])
    assert project.conv.kernel_size == project.conv.stride == (1, 1)


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_the_stem_for_imagenet_pools_by_the_mean(name: str) -> None:
    net: Any = tiny(name)
    assert isinstance(net.stem_pool, OverTime)
    x = (normal(3, 2, 2, 8, 8, name="spikes") > 0).double()
    windows = nn.functional.unfold(x.flatten(0, 1), 3, padding=1, stride=2).unflatten(1, (2, 9))
    mean = (windows.sum(2) / 9).view(3, 2, 2, 4, 4)  # the border counts as silent
    torch.testing.assert_close(net.stem_pool(x), mean, rtol=1e-14, atol=0)
    given = net.lif1(net.conv1(images(name).unsqueeze(0)).expand(3, -1, -1, -1, -1))
    torch.testing.assert_close(net.stem(images(name)), net.stem_pool(given), rtol=1e-14, atol=0)
    assert given.mean() > 0


def test_the_other_projections_are_strided() -> None:
    for name in ("resnet19", "resnet18", "resnet34"):
        shortcut = tiny(name).get_submodule("layer2.0.shortcut")
        assert isinstance(shortcut, ConvNorm)
        assert shortcut.conv.kernel_size == (1, 1)
        assert shortcut.conv.stride == (2, 2)


def test_width_scales_the_channels() -> None:
    net = create("vgg16", width=0.25)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    stages = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert [c.out_channels * 4 for c in convs] == stages
    assert all(c.bias is not None for c in convs)


def test_other_neurons_and_norms() -> None:
    net = create(
        "convnet",
        neuron=lambda channels: LIF(v_reset=None),
        norm=lambda channels: TDBatchNorm2d(channels, factor="none"),
    )
    neurons = [m for m in net.modules() if isinstance(m, LIF)]
    assert len(set(map(id, neurons))) == 3
    assert all(m.v_reset is None for m in neurons)
    assert all(m.factor == "none" for m in net.modules() if isinstance(m, TDBatchNorm2d))


def test_a_created_network_knows_the_names_of_its_layers() -> None:
    # So that the first statistics change no attribute, for which a compiled one would run again.
    net = create("resnet20", width=1 / 32)
    for name, module in net.named_modules():
        if isinstance(module, LIF):
            assert module.layer_name == name


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 8), (2, 2, 1, 8, 8), (3,)])
def test_wrong_images_are_told(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"\[B, 3, H, W\] or sequences \[T, B, 3, H, W\]"):
        create("convnet", width=0.125)(torch.zeros(shape))


def test_wrong_options_are_told() -> None:
    with pytest.raises(UserError, match='unknown "resnet21"') as caught:
        create("resnet21")
    assert caught.value.problems[0].fix.startswith('did you mean "resnet')
    with pytest.raises(UserError) as caught:
        create("resnet20", num_clases=10, width="wide", readout="max")
    assert [p.where for p in caught.value.problems] == [
        "network.num_clases", "network.width = 'wide'", "network.readout = 'max'"
    ]  # fmt: skip
    assert caught.value.problems[0].fix == 'did you mean "num_classes"?'
    for options in [{"T": 0}, {"num_classes": 0}, {"in_channels": 0}]:
        with pytest.raises(UserError, match="all >= 1"):
            create("convnet", **options)


def test_resnet19_starts_as_pytorch_does_where_asked() -> None:
    net = create("resnet19", width=0.25, hidden_fc=256, init="pytorch")
    first = net.get_submodule("head.0.layer")
    assert isinstance(first, nn.Linear)
    # Uniform within 1 / sqrt(C_in), and so is the bias; the family's deviation is 1 / C_in.
    bound = 1 / math.sqrt(first.in_features)
    assert 0.99 * bound < first.weight.abs().max().item() <= bound
    assert first.bias.abs().max() > 0


def test_a_hidden_linear_layer_starts_as_pytorch_does() -> None:
    net = create("resnet19", width=0.25, hidden_fc=256)
    for name in ("head.0.layer", "head.2.layer"):
        layer = net.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        bound = 1 / math.sqrt(layer.in_features)
        assert 0.99 * bound < layer.weight.abs().max().item() <= bound
    conv = net.get_submodule("layer3.0.conv1.conv")
    assert isinstance(conv, nn.Conv2d)
    # The family's, N(0, 2 / (k k C_out)): n values know their deviation to 1 / sqrt(2 n), 0.3 %.
    expected = math.sqrt(2 / (9 * conv.out_channels))
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.015)


def test_a_single_linear_layer_starts_as_the_family_does() -> None:
    head = create("resnet19", width=0.25).get_submodule("head.layer")
    assert isinstance(head, nn.Linear)
    # 1280 values: their deviation is known to 2 %.
    assert head.weight.std().item() == pytest.approx(1 / head.in_features, rel=0.1)
    assert not head.bias.any()


@pytest.mark.parametrize("name", ["resnet20", "resnet19", "resnet18-cifar"])
def test_what_stands_in_the_place_of_a_stage_runs(name: str) -> None:
    class Wrapper(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    net: Any = create(name, T=2, num_classes=3, width=1 / 16)
    net.layer1 = Wrapper(net.layer1)
    net.train()(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in net.layer1.parameters())
