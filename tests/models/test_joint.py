"""Joint A-SNN: factorized kernels, what two branches share, and the SNN that is left of it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss import UserError
from rmploss.lifecycle import fold
from rmploss.models import create
from rmploss.models.factorized import FactorizedConv2d
from rmploss.models.joint import JointNetwork, ann_norm
from rmploss.models.layers import ConvNorm
from rmploss.norm import TDBatchNorm2d
from rmploss.objectives.joint import Branches, JointLoss
from tests.given import labels, normal

BACKBONES = ["resnet18", "resnet20"]
PLAIN = {"resnet18": "resnet18-cifar", "resnet20": "resnet20"}
T, B, K = 3, 2, 4


def joint(backbone: str, **options: Any) -> JointNetwork:
    """A narrow one in float64, its branches apart, with norms that make its layers fire."""
    usual = {"num_classes": K, "T": T, "width": 1 / 16, "backbone": backbone}
    net = create("joint", **{**usual, **options}).double()
    assert isinstance(net, JointNetwork)
    with torch.no_grad():
        for name, module in net.named_modules():
            if isinstance(module, TDBatchNorm2d):
                module.weight.copy_(1 + 0.3 * normal(module.channels, name=name))
                module.bias.copy_(0.3 + 0.1 * normal(module.channels, name=name))
            elif isinstance(module, nn.Linear):
                module.weight.copy_(normal(*module.weight.shape, name=name))
            elif isinstance(module, FactorizedConv2d):
                module.sigma.mul_(1 + 0.1 * normal(*module.sigma.shape, name=name))
    return net


def images(size: int = 16) -> Tensor:
    return normal(B, 3, size, size, name="images")


@pytest.mark.parametrize(("C", "D", "k"), [(3, 5, 3), (5, 3, 1), (4, 4, 2)])
def test_a_factorized_kernel_is_u_sigma_v_position_by_position(C: int, D: int, k: int) -> None:
    conv = nn.Conv2d(C, D, k, stride=2, padding=k // 2, bias=False).double()
    ours = FactorizedConv2d(conv)
    torch.testing.assert_close(ours.weight, conv.weight.detach(), rtol=1e-13, atol=1e-13)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(normal(*parameter.shape, name=name))
    U, V = ours.factors.U, ours.factors.V
    rank = min(C, D)
    shapes = (U.shape, ours.sigma.shape, V.shape)
    assert shapes == ((k * k, D, rank), (k * k, rank), (k * k, rank, C))
    kernel = torch.zeros(D, C, k, k, dtype=torch.float64)
    for i in range(k):
        for j in range(k):
            at = i * k + j
            kernel[:, :, i, j] = U[at] @ torch.diag(ours.sigma[at]) @ V[at]
    x = normal(2, C, 6, 6)
    wanted = F.conv2d(x, kernel, stride=2, padding=k // 2)
    torch.testing.assert_close(ours(x), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.multiplied_out()(x), wanted.detach(), rtol=1e-12, atol=1e-12)


def test_the_branches_start_equal() -> None:
    net = create("joint", width=1 / 16)
    assert isinstance(net, JointNetwork)
    ours, theirs = dict(net.snn.named_parameters()), dict(net.ann.named_parameters())
    for name, parameter in theirs.items():
        assert torch.equal(parameter, ours[name]), name
    known = {name: conv for name, conv in net.named_modules() if isinstance(conv, FactorizedConv2d)}
    for name, conv in known.items():
        if name.startswith("ann"):
            assert conv.factors is known[name.replace("ann", "snn", 1)].factors


@pytest.mark.parametrize("backbone", BACKBONES)
def test_what_is_shared_and_what_is_not(backbone: str) -> None:
    net = joint(backbone)
    tied = {id(p) for p in (*net.snn.parameters(), *net.snn_heads.parameters())}
    apart = [*net.ann.named_parameters(), *net.ann_heads.named_parameters()]
    shared = {name for name, parameter in apart if id(parameter) in tied}
    assert shared == {name for name, _ in apart if name.endswith("layer.bias")}
    # U and V have one name each: that of the SNN.
    assert not any(name.startswith("ann") and ".U" in name for name in net.state_dict())
    count = sum(p.numel() for p in net.parameters())
    expected = 0
    for body in (net.snn, net.snn_heads):
        for module in body.modules():
            if isinstance(module, ConvNorm):
                D, C, k, _ = module.conv.weight.shape
                expected += k * k * min(C, D) * (C + D + 2) + 4 * D
            elif isinstance(module, nn.Linear):
                expected += 2 * module.weight.numel() + module.bias.numel()
    assert count == expected


def test_the_size_of_the_published_network() -> None:
    # By hand: convolutions k, C, D, of ResNet18 and of the heads; 4 norms' worth; linear layers.
    body = [(3, 3, 64), *[(3, 64, 64)] * 4]
    for C, D in ((64, 128), (128, 256), (256, 512)):
        body += [(3, C, D), (3, D, D), (1, C, D), (3, D, D), (3, D, D)]
    heads = [conv for C, k in ((64, 8), (128, 4), (256, 2))
             for conv in ((1, C, 128), (k, 128, 128), (1, 128, 512))]  # fmt: skip
    convs = sum(k * k * min(C, D) * (C + D + 2) + 4 * D for k, C, D in body + heads)
    with torch.device("meta"):
        net = create("joint")
    assert sum(p.numel() for p in net.parameters()) == convs + 4 * (2 * 5120 + 10)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_branch_is_the_ordinary_network_of_its_kernels(backbone: str) -> None:
    net, x = joint(backbone), images()
    usual = {"num_classes": K, "width": 1 / 16}
    spiking = create(PLAIN[backbone], T=T, **usual).double()
    analog = create(
        PLAIN[backbone], T=1, neuron=lambda _: nn.ReLU(), norm=ann_norm, **usual
    ).double()
    for body, plain in ((net.snn, spiking), (net.ann, analog)):
        state = {
            k: v for k, v in body.state_dict().items() if ".own." not in k and "sigma" not in k
        }
        for name, module in body.named_modules():
            if isinstance(module, FactorizedConv2d):
                state[f"{name}.weight"] = module.weight.detach()
        plain.load_state_dict(state)
    given = net(x, over_time=True)
    assert isinstance(given, Branches)
    spikes = spiking.spikes(x)  # pyright: ignore
    wanted = spiking.head(spikes.mean((3, 4)))  # pyright: ignore
    close(given.snn.logits[-1], wanted.sum(0))
    close(given.snn.features[-1], spikes.mean((3, 4)).sum(0))
    close(given.ann.logits[-1], analog(x))
    assert all(logits.shape == (B, K) for branch in given for logits in branch.logits)
    assert [len(branch.logits) for branch in given] == [4, 4]
    assert [len(branch.features) for branch in given] == [4, 4]
    assert torch.equal(net.readout(given), given.snn.logits[-1])  # pyright: ignore
    assert spikes.mean() > 0


def close(got: Tensor, want: Tensor) -> None:
    """Equal up to the order of float64 sums, relative to the largest."""
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11 * (1 + want.abs().max().item()))


def test_a_head_is_its_layers() -> None:
    net, x = joint("resnet18"), images()
    given = net(x, over_time=True)
    body, head = net.ann, net.ann_heads[0]
    y = body.layer1(body.stem(x))[0]
    for name in ("conv1", "conv2", "conv3"):
        layer = head.get_submodule(name)
        assert isinstance(layer, ConvNorm)
        y = F.conv2d(y, layer.conv.weight, stride=layer.conv.kernel_size)
        y = F.batch_norm(y, None, None, layer.norm.weight, layer.norm.bias, True).relu()  # pyright: ignore
    assert y.shape == (B, 32, 2, 2)
    features = y.mean((2, 3))
    close(given.ann.features[0], features)
    linear = head.get_submodule("head.layer")
    close(given.ann.logits[0], linear(features))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_learns(backbone: str) -> None:
    net = joint(backbone)
    given = net(images(), over_time=True)
    loss = JointLoss()
    loss(given, net.readout(given), labels(B, K)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_sequence_shows_the_ann_its_mean() -> None:
    net, x = joint("resnet20"), images()
    sequence = torch.stack([0.5 * x, x, 1.5 * x])
    close(net(sequence, over_time=True).ann.logits[-1], net(x, over_time=True).ann.logits[-1])


@pytest.mark.parametrize("readout", ["sum", "mean"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_folding_leaves_a_plain_spiking_network(backbone: str, readout: str) -> None:
    net, x = joint(backbone, readout=readout), images()
    net(x, over_time=True)
    before = net.eval()(x)
    over_time = net(x, over_time=True)
    assert over_time.shape == (T, B, K)
    close(over_time.sum(0) if readout == "sum" else over_time.mean(0), before)
    folded = fold(net)
    close(folded(x), before)
    assert before.std() > 0
    plain = fold(create(PLAIN[backbone], num_classes=K, width=1 / 16))
    shapes = {f"snn.{name}": p.shape for name, p in plain.named_parameters()}
    assert {name: p.shape for name, p in folded.named_parameters()} == shapes


def test_a_folded_network_stays_folded_and_does_not_train() -> None:
    net = create("joint", num_classes=3, T=2, width=1 / 16).double().eval()
    x = normal(2, 3, 32, 32, name="images")
    before = fold(net)(x)
    assert torch.equal(fold(net)(x), before)
    with pytest.raises(UserError, match="no ANN to train with"):
        net.train()(x)
