"""LIAF-Net and its baseline without cells: sizes, the order of layers, evaluation of both."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss import UserError, membrane_stats
from rmploss.analysis import membrane_histograms
from rmploss.engine.evaluate import evaluate
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork, create
from rmploss.models.liafnet import PooledBlock
from rmploss.neurons.liaf import LIAF
from rmploss.norm import TDBatchNorm2d
from tests.given import labels, normal

NAMES = ["liafnet", "liafnet-conv3d"]


def tiny(name: str, **options: Any) -> SpikingNetwork:
    """A narrow one in float64, for images of 21 pixels: each pooling but one drops a row."""
    torch.manual_seed(0)
    given = {"num_classes": 3, "T": 3, "width": 1 / 16, "image_size": 21, "neuron": LIAF}
    return create(name, **{**given, **options}).double()


def frames(T: int = 3, batch: int = 2) -> Tensor:
    """Frames of an event camera."""
    return (normal(T, batch, 2, 21, 21, name="frames") > 0.5).double()


@pytest.mark.parametrize(("size", "count"), [(42, 919_018), (48, 1_574_378)])
def test_parameter_counts(size: int, count: int) -> None:
    with torch.device("meta"):
        net = create("liafnet", image_size=size, neuron=LIAF)
    assert sum(p.numel() for p in net.parameters()) == count
    with torch.device("meta"):
        flat = create("liafnet-conv3d", image_size=size)
    # Three times as many weights in the convolutions, and all else the same.
    more = sum(2 * 9 * a * b for a, b in ((2, 32), (32, 64), (64, 128), (128, 256)))
    assert sum(p.numel() for p in flat.parameters()) == count + more


def test_one_learnt_decay_per_layer() -> None:
    net = tiny("liafnet", neuron=lambda _: LIAF(learn_decay=True))
    assert sum(name.endswith(".p") for name, _ in net.named_parameters()) == 6


def test_a_block_pools_the_current_before_its_cells() -> None:
    block = PooledBlock(2, 3, neuron=LIAF, norm=TDBatchNorm2d).double()
    x = frames()
    conv: Any = block.conv1.conv
    current = F.conv2d(x.flatten(0, 1), conv.weight, conv.bias, padding=1)
    current = 0.5 * F.batch_norm(current, None, None, training=True)
    pooled = F.avg_pool2d(current, 2).unflatten(0, (3, 2))
    assert pooled.shape[-2:] == (10, 10)
    torch.testing.assert_close(block(x), LIAF()(pooled), rtol=1e-10, atol=1e-10)


def normalized(y: Tensor, net: SpikingNetwork, place: str) -> Tensor:
    """tdBN of `[T, B, C, H, W]` in training, with V_th = 1/2."""
    gain, bias = net.get_parameter(f"{place}.weight"), net.get_parameter(f"{place}.bias")
    y = F.batch_norm(y.flatten(0, 1), None, None, 0.5 * gain, bias, training=True)
    return y.unflatten(0, (3, 2))


def linear(net: SpikingNetwork, name: str, x: Tensor) -> Tensor:
    """A linear layer of the network, at every step."""
    weight, bias = (net.get_parameter(f"{name}.layer.{part}") for part in ("weight", "bias"))
    return x @ weight.T + bias


def halved(x: Tensor) -> Tensor:
    """The means over 2x2; a last odd row and column are left out."""
    H, W = (size // 2 * 2 for size in x.shape[-2:])
    corners = [x[..., i:H:2, j:W:2] for i in (0, 1) for j in (0, 1)]
    return torch.stack(corners).mean(0)


F_OF: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda v: torch.where(v > 0, v, 0.0),
    "leaky_relu": lambda v: torch.where(v > 0, v, 0.2 * v),
}


@pytest.mark.parametrize("activation", F_OF)
def test_the_baseline_is_its_layers(activation: str) -> None:
    net, x, f = tiny("liafnet-conv3d", activation=activation), frames(), F_OF[activation]
    outputs = net(x, over_time=True)
    for index in range(1, 5):
        conv: Any = net.get_submodule(f"conv{index}.conv")
        y = F.conv3d(x.movedim(0, 2), conv.weight, conv.bias, padding=1).movedim(2, 0)
        y = normalized(y, net, f"conv{index}.norm")
        assert (y < 0).any()
        x = halved(f(y))  # of what is active, not the other way round
    hidden = linear(net, "fc1", x.flatten(2))
    assert (hidden < 0).any()
    expected = linear(net, "fc2", f(hidden))
    assert outputs.std(1).max() > 0
    # Sums of up to 27 x 16 products of order one, through six layers.
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)


def test_the_network_with_cells_is_its_layers() -> None:
    net, x, cells = tiny("liafnet"), frames(), LIAF()
    outputs = net(x, over_time=True)
    for index in range(1, 5):
        conv: Any = net.get_submodule(f"block{index}.conv1.conv")
        y = F.conv2d(x.flatten(0, 1), conv.weight, conv.bias, padding=1).unflatten(0, (3, 2))
        x = cells(halved(normalized(y, net, f"block{index}.conv1.norm")))
    expected = cells(linear(net, "fc2", cells(linear(net, "fc1", x.flatten(2)))))
    assert outputs.std(1).max() > 0
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_mean_over_time(name: str) -> None:
    net = tiny(name).eval()
    outputs, logits = net(frames(), over_time=True), net(frames())
    assert outputs.shape == (3, 2, 3)
    torch.testing.assert_close(logits, outputs.mean(0))


@pytest.mark.parametrize("name", NAMES)
def test_a_static_image_is_the_sequence_of_its_copies(name: str) -> None:
    static, sequence = tiny(name), tiny(name)
    x = frames()[0]
    copies = x.expand(3, -1, -1, -1, -1)
    torch.testing.assert_close(static(x), sequence(copies), rtol=1e-10, atol=1e-10)
    for p, q in zip(static.buffers(), sequence.buffers(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_gradient(name: str) -> None:
    net = tiny(name)
    net(frames()).square().sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        if not key.endswith("conv.bias"):  # before a norm it changes nothing
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_folding_is_exact(name: str) -> None:
    net = tiny(name)
    for _ in range(3):
        net(frames())
    before = net.eval()(frames())
    folded = fold(net)
    assert not any(isinstance(m, TDBatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(frames()), before, rtol=1e-12, atol=1e-12)


def test_the_biases_start_at_a_half_and_the_weights_by_their_inputs() -> None:
    for name in NAMES:
        net = create(name)
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                assert module.bias is not None
                assert module.bias.eq(0.5).all()
                n, inputs = module.weight.numel(), module.weight[0].numel()
                # The deviation of n normal numbers has a deviation of 1/sqrt(2n): five of them.
                expected = pytest.approx((2 / inputs) ** 0.5, rel=5 / (2 * n) ** 0.5)
                assert module.weight.std().item() == expected


def test_the_baseline_convolves_over_time() -> None:
    net = tiny("liafnet-conv3d").eval()
    x = frames(T=5)
    x[2] = 0
    changed = x.clone()
    changed[2] = 1
    different = (net(x, over_time=True) - net(changed, over_time=True)).abs().amax((1, 2))
    assert different.min() > 0  # four layers reach four steps away
    stage: Any = net.get_submodule("conv1")
    y = stage.conv(x.movedim(0, 2)).detach().numpy()
    # The literal sum for one output, at the border of time.
    w, b = stage.conv.weight.detach().numpy()[0], stage.conv.bias.detach().numpy()[0]
    seen = x.numpy()[0:2, 1, :, 3:6, 6:9]  # [T, C, H, W]
    expected = b + np.einsum("tchw,cthw->", seen, w[:, 1:])
    assert y[1, 0, 0, 4, 7] == pytest.approx(expected, rel=1e-12)


def test_nothing_spikes_in_the_baseline() -> None:
    net = tiny("liafnet-conv3d")
    with membrane_stats(net) as stats:
        net(frames())
    assert len(stats) == 0
    batches = [(frames(), labels(2, 3))]
    result = evaluate(net, batches)
    assert (result.samples, result.layers) == (2, ())
    assert (result.quantization_error, result.firing_rate) == (0, 0)
    assert membrane_histograms(net, batches) == []


def test_cells_are_evaluated() -> None:
    net = tiny("liafnet")
    result = evaluate(net, [(frames(), labels(2, 3))])
    names = [f"block{i}.lif1" for i in range(1, 5)]
    assert [layer.name for layer in result.layers] == [*names, "lif1", "lif2"]


@pytest.mark.parametrize("name", NAMES)
def test_wrong_sizes_are_told(name: str) -> None:
    with pytest.raises(UserError, match="bad network") as caught:
        tiny(name, image_size=15)
    assert caught.value.problems[0].what == "must be at least 16"
    with pytest.raises(UserError, match="image_size=21"):
        tiny(name)(torch.zeros(3, 2, 2, 48, 48, dtype=torch.float64))
