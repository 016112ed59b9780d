"""TSSL-BP's networks: their sizes, the filtered input, pooling, dropout, the range of weights."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss import LIF, TDBatchNorm2d, UserError, membrane_stats
from rmploss.lifecycle import constrain, fold
from rmploss.models import SpikingNetwork, create
from rmploss.models.layers import OverTime
from rmploss.models.tssl_cifarnet import RowDropout, SumPool2d, TSSLCifarNet
from rmploss.neurons.tssl import TSSL
from rmploss.objectives.van_rossum import VanRossum
from tests.given import labels, normal

K = 8
"""Classes."""


def tiny(**options: Any) -> TSSLCifarNet:
    """A narrow one for images of 8 x 8, in float64, with weights that make its classes fire."""
    torch.manual_seed(0)
    small = {"width": 1 / 8, "image_size": 8, "num_classes": K, "T": 5}
    net = create("tssl-cifarnet", **{**small, **options}).double()
    assert isinstance(net, TSSLCifarNet)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(4)
    return net


def images(batch: int = 4) -> Tensor:
    return normal(batch, 3, 8, 8, name="images")


def close(got: Tensor, want: Tensor) -> None:
    """Equal up to the order of float64 sums."""
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12 * (1 + want.abs().max().item()))


def apart(logits: Tensor) -> bool:
    """Whether the network is alive: its outputs differ between images and between classes."""
    return bool((logits.std(0) > 0).any() and (logits.std(-1) > 0).any())


@pytest.mark.parametrize(("variant", "count"), [("cnn2", 44_999_040), ("cnn1", 21_156_384)])
def test_parameter_counts(variant: str, count: int) -> None:
    with torch.device("meta"):
        net = create("tssl-cifarnet", variant=variant)
    assert sum(p.numel() for p in net.parameters()) == count
    assert all(p.ndim > 1 for p in net.parameters())  # no bias, no norm


def test_every_layer_runs_fires_and_learns() -> None:
    net = tiny()
    x, y = images(), labels(4, K)
    with membrane_stats(net) as stats:
        outputs = net(x, over_time=True)
    assert outputs.shape == (5, 4, K)
    assert [entry.name for entry in stats] == [f"lif{n}" for n in range(1, 9)]
    assert min(entry.firing_rate.item() for entry in stats) > 0
    assert isinstance(net.get_submodule(net.figure_layer), TSSL)
    VanRossum()(outputs, net.readout(outputs), y).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def neurons(currents: list[Tensor]) -> list[Tensor]:
    """The post-synaptic currents of all steps, as the paper writes them: tau_m = 5, tau_s = 2."""
    v, a, every = torch.zeros_like(currents[0]), torch.zeros_like(currents[0]), []
    for x in currents:
        u = v + (-v / 5 + x)
        s = torch.where(u > 1, 1.0, 0.0).double()
        v = u * (1 - s)
        a = a + (s - a) / 2
        every.append(a)
    return every


def literal(p: dict[str, Tensor], x: Tensor) -> Tensor:
    """The currents `[T, B, K]` of the classes for a sequence x, layer by layer and step by step."""

    def conv(index: int, steps: list[Tensor]) -> list[Tensor]:
        weight = p[f"conv{index}.conv.weight"]
        return neurons([F.conv2d(step, weight, padding=1) for step in steps])

    def linear(index: int, steps: list[Tensor]) -> list[Tensor]:
        return neurons([step.flatten(1) @ p[f"fc{index}.layer.weight"].T for step in steps])

    def pool(steps: list[Tensor]) -> list[Tensor]:
        corners = ((0, 0), (0, 1), (1, 0), (1, 1))
        return [1.1 * sum((a[..., i::2, j::2] for i, j in corners), torch.zeros(())) for a in steps]

    syn, a = torch.zeros_like(x[0]), []
    for x_t in x:
        syn = (1 - 1 / 2) * syn + x_t
        a.append(syn / 2)
    a = pool(conv(2, conv(1, a)))
    a = pool(conv(3, a))
    a = conv(5, conv(4, a))
    return torch.stack(linear(3, linear(2, linear(1, a))))


@pytest.mark.parametrize("variant", ["cnn1", "cnn2"])
@pytest.mark.parametrize("static", [True, False])
def test_it_is_the_published_network(variant: str, static: bool) -> None:
    net = tiny(variant=variant, dropout=0.0)
    x = images() if static else normal(5, 4, 3, 8, 8, name="sequence")
    expected = literal(dict(net.named_parameters()), x.expand(5, -1, -1, -1, -1))
    assert apart(expected.sum(0))
    # A spike that rounding moved would show as 1/32 at least.
    close(net(x, over_time=True), expected)
    close(net(x), expected.sum(0))


def test_the_read_out_is_the_sum_of_the_currents() -> None:
    net = tiny().eval()
    logits, currents = net(images()), net(images(), over_time=True)
    close(logits, currents.sum(0))
    assert apart(logits)
    assert (currents.std(0) > 0).any()


@pytest.mark.parametrize("tau_s", [2.0, 3.0])
def test_the_input_is_filtered_once(tau_s: float) -> None:
    net = tiny(neuron=lambda channels: TSSL(channels, tau_s=tau_s)).eval()
    x = normal(5, 2, 3, 8, 8)
    seen: list[Tensor] = []
    net.conv1.conv.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    net(x)
    syn, a0 = torch.zeros_like(x[0]), []
    for x_t in x:
        syn = (1 - 1 / tau_s) * syn + x_t
        a0.append(syn / tau_s)
    close(seen[0].unflatten(0, (5, 2)), torch.stack(a0))


@pytest.mark.parametrize("norm", [False, True])
def test_a_static_image_is_the_sequence_of_its_copies(norm: bool) -> None:
    options: dict[str, Any] = {"norm": TDBatchNorm2d} if norm else {}
    static, sequence = tiny(dropout=0.0, **options), tiny(dropout=0.0, **options)
    x = images().requires_grad_()
    copies = x.detach().expand(5, -1, -1, -1, -1).clone().requires_grad_()
    one, other = static(x), sequence(copies)
    assert apart(one)
    close(one, other)
    one.square().sum().backward()
    other.square().sum().backward()
    assert x.grad is not None
    assert copies.grad is not None
    assert x.grad.abs().max() > 0
    close(x.grad, copies.grad.sum(0))
    for p, q in zip(static.parameters(), sequence.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert p.grad.abs().max() > 0
        close(p.grad, q.grad)


def test_with_norms_it_folds() -> None:
    net = tiny(norm=TDBatchNorm2d)
    net(images())
    before = net.eval()(images())
    assert apart(before)
    close(fold(net)(images()), before)
    assert not any(isinstance(module, TDBatchNorm2d) for module in net.modules())
    close(net(images().expand(5, -1, -1, -1, -1)), before)


def test_other_neurons_see_the_image_itself() -> None:
    net = tiny(neuron=LIF).eval()
    seen: list[Tensor] = []
    net.conv1.conv.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    net(images())
    assert torch.equal(seen[0], images())


def test_pooling_is_the_sum_times_a_gain() -> None:
    x = normal(2, 3, 4, 6)
    windows = x.unflatten(3, (3, 2)).unflatten(2, (2, 2))  # [N, C, H', 2, W', 2]
    close(SumPool2d()(x), 1.1 * windows.sum((3, 5)))
    assert OverTime(SumPool2d())(normal(5, 2, 3, 4, 6)).shape == (5, 2, 3, 2, 3)


def test_dropout_takes_whole_rows_for_all_steps() -> None:
    torch.manual_seed(0)
    drop, x = RowDropout(0.2), torch.ones(5, 20, 10, 8, 6)
    y = drop(x)
    rows = y[0, ..., 0]
    assert torch.equal(y, rows[None, ..., None].expand_as(y))
    assert rows.unique().tolist() == [0, 1.25]
    # Binomial: five deviations of the mean over 1600 rows.
    assert (rows == 0).float().mean().item() == pytest.approx(0.2, abs=5 * math.sqrt(0.16 / 1600))
    assert rows[:, :, 0].ne(rows[:, :, 1]).any()  # not whole channels
    units = drop(torch.ones(5, 20, 80))
    assert torch.equal(units, units[:1].expand_as(units))
    assert units.unique().tolist() == [0, 1.25]
    assert units[0].ne(units[0, 0]).any()
    assert drop.eval()(x) is x


def test_dropout_stands_in_seven_places() -> None:
    net, shapes = tiny(), []
    net.drop.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[2:]))
    net(images())
    c1, c2, c3, c4, c5, h1, h2 = 16, 32, 64, 128, 64, 128, 64
    assert shapes == [(c1, 8, 8), (c2, 4, 4), (c3, 2, 2), (c4, 2, 2), (c5, 2, 2), (h1,), (h2,)]
    assert net.drop.p == 0.2


def test_weights_come_back_into_their_range() -> None:
    net = tiny()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(100)
    constrain(net)
    for name, p in net.named_parameters():
        assert torch.equal(p, (100 * before[name]).clamp(-4, 4))
        assert p.abs().max() == 4


@pytest.mark.parametrize("init", ["kaiming", "default"])
def test_the_weights_start_as_published(init: str) -> None:
    net = create("tssl-cifarnet", width=0.25, init=init, image_size=8)
    for module in net.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        w = module.weight
        fan_in = w[0].numel()
        expected = math.sqrt(2 / fan_in)
        if isinstance(module, nn.Conv2d):
            expected = 5 * (expected if init == "kaiming" else math.sqrt(1 / fan_in / 3))
        # The deviation of n normal numbers has itself a deviation of 1/sqrt(2n): five of them.
        assert w.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * w.numel()))
        if isinstance(module, nn.Conv2d) and init == "default":
            assert w.abs().max() <= 5 / math.sqrt(fan_in)


def test_what_cannot_be() -> None:
    with pytest.raises(UserError, match="not divisible by 4"):
        tiny(image_size=10)
    with pytest.raises(UserError, match="image_size=8"):
        tiny()(normal(2, 3, 16, 16))
    with pytest.raises(UserError, match=r"must lie in \[0, 1\)"):
        tiny(dropout=1.0)
    with pytest.raises(UserError, match="variant"):
        tiny(variant="cnn3")


def test_it_is_a_network_like_the_others() -> None:
    net: SpikingNetwork = tiny(neuron=LIF, norm=TDBatchNorm2d)
    assert net(images()).shape == (4, K)
    assert net.heights_fold_into() == {}
