"""Tools that look at a network: FLOP counters, torch.func, torch.fx, torch.jit, ONNX, compile."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rmploss import (
    LIF,
    Accumulator,
    RMPLoss,
    SpikeConv2d,
    TDBatchNorm2d,
    functional,
    ops,
)
from rmploss.errors import UserError
from rmploss.models import SpikingNetwork, create
from rmploss.models.dropout import Dropout
from rmploss.ops import native
from tests.given import normal

BACKENDS = ("auto", "reference")


def convnet() -> tuple[SpikingNetwork, Tensor]:
    torch.manual_seed(0)
    return create("convnet", in_channels=1, num_classes=10, T=4).eval(), torch.rand(3, 1, 8, 8)


@pytest.mark.parametrize("name", ["convnet", "resnet20"])
def test_flops_are_those_of_the_convolutions(name: str) -> None:
    """Forward and backward, with a counter that was made before the first dispatch or after it."""
    net = create(name, num_classes=10, T=2, width=0.25)
    counts = []
    for backend in BACKENDS:
        with ops.use_backend(backend), FlopCounterMode(display=False) as counter:
            net(torch.rand(1, 3, 32, 32)).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 1e6


def test_gradients_of_single_samples_are_those_of_single_forwards() -> None:
    net, x = convnet()
    parameters: dict[str, Tensor] = dict(net.named_parameters())

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(net, parameters, (image[None],)).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for index in range(len(x)):
        net.zero_grad()
        with ops.use_backend("reference"):
            net(x[index : index + 1]).sum().backward()
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            size = float(parameter.grad.abs().max()) + 1e-6
            torch.testing.assert_close(each[name][index], parameter.grad, rtol=0, atol=1e-5 * size)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_is_traced_into_plain_operations(backend: str) -> None:
    net, x = convnet()
    with ops.use_backend(backend):
        traced: Any = torch.jit.trace(net, x)
        expected = net(x)
    assert "rmploss::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), expected, rtol=1e-5, atol=1e-6)
    other = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(traced(other), net(other), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_a_network_is_written_as_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX is not installed: pip install '.[test]'")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    net, x = convnet()
    path = tmp_path / "net.onnx"
    torch.onnx.export(net, (x,), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), net(x), rtol=1e-4, atol=1e-5)


class Own(nn.Module):
    """A model of a user, `[T, B, 1, H, W]` to `[B, 10]`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = SpikeConv2d(1, 4, 3, padding=1), TDBatchNorm2d(4)
        self.lif, self.head, self.readout = LIF(4), nn.Linear(4 * 64, 10), Accumulator()

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        current = self.conv(x.flatten(0, 1)).unflatten(0, (2, 3))
        spikes = self.lif(self.norm(current))
        spikes = self.lif(spikes, norm=self.norm, residual=current)
        return self.readout(self.head(spikes.flatten(2)))


def own() -> tuple[Own, Tensor]:
    torch.manual_seed(0)
    return Own().eval(), torch.rand(2, 3, 1, 8, 8)


def test_a_layer_is_one_node_of_torch_fx() -> None:
    net, x = own()
    traced = torch.fx.symbolic_trace(net)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == [
        "conv", "norm", "lif", "lif", "head", "readout",
    ]  # fmt: skip
    assert torch.equal(traced(x), net(x))
    network, images = convnet()
    assert torch.equal(torch.fx.symbolic_trace(nn.Sequential(network))(images), network(images))


ROOTS = [LIF(4), SpikeConv2d(1, 2, 3), TDBatchNorm2d(4), Accumulator(), create("convnet")]


@pytest.mark.parametrize("module", ROOTS, ids=lambda module: type(module).__name__)
def test_the_root_of_a_trace_is_refused(module: nn.Module) -> None:
    with pytest.raises(UserError, match=r"is one node of torch.fx.*nn.Sequential"):
        torch.fx.symbolic_trace(module)


def test_a_function_is_refused_by_torch_fx() -> None:
    with pytest.raises(UserError, match=r"x is a Proxy: .* LIF\(...\)"):
        torch.fx.symbolic_trace(lambda x: functional.lif_step(x, x))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("part", [*ROOTS, nn.Sequential(LIF(4)), RMPLoss(), functional.lif])
def test_what_cannot_be_scripted_says_what_can(part: Any) -> None:
    with pytest.raises(UserError, match=r"cannot compile(?s:.*)torch.jit.trace"):
        torch.jit.script(part)


@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_the_exporter_that_traces_writes_models_of_these_layers(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="ONNX is not installed: pip install '.[test]'")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    net, x = own()
    path = tmp_path / "net.onnx"
    torch.onnx.export(net, (x,), path, dynamo=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net(x), rtol=1e-4, atol=1e-5)
    for whole, given in (convnet(), (LIF(4), x.flatten(3))):
        with pytest.raises(UserError, match=r"dynamo=True"):
            torch.onnx.export(whole, (given,), path, dynamo=False)


@pytest.mark.parametrize("one_mask", [False, True])
def test_dropout_is_compiled_into_one_graph(one_mask: bool) -> None:
    """The compiled network draws the masks of eager mode."""
    net = nn.Sequential(Dropout(0.5, one_mask=one_mask), LIF(4))
    x = normal(3, 2, 4, 5, 5).float()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    found = []
    for run in (net, compiled):
        torch.manual_seed(1)
        found.append(run(x))
    assert torch.equal(*found)
    assert not torch.equal(found[0], net.eval()(x))


class PerChannel(LIF):
    """Thresholds of one for each channel."""

    def __init__(self, thresholds: Tensor) -> None:
        super().__init__(len(thresholds))
        self.thresholds = nn.Parameter(thresholds)

    def constants(self) -> tuple[float, Tensor]:
        """The leak, and a threshold per channel."""
        return self.decay, self.thresholds


@pytest.mark.parametrize("width", [4, 5])
def test_the_membrane_knows_constants_per_channel(width: int) -> None:
    neuron, x = PerChannel(torch.linspace(0.2, 1.5, 5)), normal(6, 2, 5, 4, width).float()
    threshold = neuron.thresholds.detach().view(-1, 1, 1)
    u, membrane = torch.zeros_like(x[0]), []
    for x_t in x:
        u_pre = 0.25 * u + x_t
        u = u_pre * (u_pre < threshold)
        membrane.append(u_pre)
    assert torch.equal(neuron.membrane(x), torch.stack(membrane))
    assert torch.equal(neuron(x), (torch.stack(membrane) >= threshold).float())


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("channels", [2, 8, 15, 16])
def test_strided_projections_of_few_channels(channels: int, backend: str) -> None:
    """Below 16 channels oneDNN would write past its memory (channels last, strided, 1x1)."""
    if backend == "cpu" and native.MISSING:
        pytest.skip(native.MISSING)
    torch.manual_seed(0)
    conv = SpikeConv2d(channels, 16, 1, stride=2)
    x = (torch.rand(4, channels, 9, 8) < 0.3).float().to(memory_format=torch.channels_last)
    x.requires_grad_()
    plain = nn.functional.conv2d(x[:, :, ::2, ::2].contiguous(), conv.weight, conv.bias)
    expected = torch.autograd.grad(plain.square().sum(), [x, conv.weight])
    for _ in range(6):
        with ops.use_backend(backend):
            y = conv(x)
        found = torch.autograd.grad(y.square().sum(), [x, conv.weight])
        torch.testing.assert_close(y, plain, rtol=1e-5, atol=1e-6)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
