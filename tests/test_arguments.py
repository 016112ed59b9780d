"""Wrong arguments: all of them at once, with what to type instead, and no `TypeError`."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rmploss import (
    LIF,
    Accumulator,
    MomentSpec,
    RMPLoss,
    SpikeConv2d,
    TDBatchNorm2d,
    attach,
    checkpoint,
    export,
    functional,
    load,
    membrane_stats,
    ops,
    register,
)
from rmploss.errors import UserError
from rmploss.models import create
from rmploss.neurons import NEURONS, SpikingLayer
from rmploss.norm import NORMS
from rmploss.objectives import LOSSES, OBJECTIVES
from rmploss.objectives.losses import TET, CrossEntropy, MeanSquaredError
from rmploss.surrogate import SURROGATES, Triangle
from tests.given import normal

X = torch.ones(2, 3, 4)
MAPS = torch.ones(2, 3, 8, 8)
IMAGES = torch.ones(1, 3, 32, 32)
LABELS = torch.tensor([1, 2])
OUTPUTS, LOGITS = torch.zeros(4, 2, 10), torch.zeros(2, 10)
f: Any = functional
lif: Any = LIF
rmp: Any = RMPLoss
conv: Any = SpikeConv2d
make: Any = create
recompute: Any = checkpoint
tdbn: Any = TDBatchNorm2d
write: Any = export
joined: Any = register
fetch: Any = load
watch: Any = attach
ce, tet = CrossEntropy(), TET()
small = functools.cache(lambda: create("convnet", width=0.125).eval())

WRONG: list[tuple[Callable[[], Any], list[str]]] = [
    (lambda: lif(tau=2.0), ["tau", "from_tau"]),
    (lambda: lif(beta=0.9), ["beta", "decay=0.9"]),
    (lambda: lif(64, 0.9), ["argument 2 = 0.9", "decay=..."]),
    (lambda: lif(2.0, decay=3, v_threshold=-1), ["channels = 2.0", "decay = 3", "v_threshold"]),
    (lambda: lif(detach_reset="no", decay=True), ["detach_reset = 'no'", "decay = True"]),
    (lambda: lif(v_threshold=torch.ones(3)), ["v_threshold = tensor [3]", "a number"]),
    (lambda: LIF.from_tau(2.0, decay=0.5), ["decay", "follows from tau"]),
    (lambda: lif(4)(None), ["NoneType"]),
    (lambda: lif(4)(X.tolist()), ["list"]),
    (lambda: lif(4)(X.to_sparse()), ["to_dense"]),
    (lambda: lif(4)(X.to(torch.complex64)), ["complex64"]),
    (lambda: lif(4)(X, residual=3.0), ["residual is a float"]),
    (lambda: lif(4).membrane(X.long()), ["int64"]),
    (lambda: lif(4).membrane(normal(2, 3, 5)), ["[T, B, 4, ...]"]),
    (lambda: f.lif(torch.ones(2, 3, 4, 4)), ["time first", "channels=4"]),
    (lambda: f.lif(X, moments=2.0), ["moments = 2.0", "MomentSpec"]),
    (lambda: f.lif_step(X[0], torch.zeros(1, 4)), ["[3, 4]", "[1, 4]", "zeros_like"]),
    (lambda: f.membrane(X, decay=torch.ones(5)), ["decay has shape [5]"]),
    (lambda: f.accumulate(X, torch.zeros(1, 4)), ["reset_state()"]),
    (lambda: Accumulator()(X.long()), ["int64"]),
    (lambda: tdbn(2.0, alpha="a"), ["channels = 2.0", "alpha = 'a'"]),
    (lambda: tdbn(0), ["channels = 0"]),
    (lambda: tdbn(64, affine=True), ["affine"]),
    (lambda: tdbn(4)(torch.ones(2, 3, 4, 3, 3).double()), ["float64", "net.double()"]),
    (lambda: tdbn(4)(torch.ones(2, 0, 4, 3, 3)), ["nothing to normalize"]),
    (lambda: tdbn(4)(torch.ones(2, 3, 4, 3, 3).long()), ["int64"]),
    (lambda: rmp(k=-1, p=0, reduction="x"), ["k = -1", "p = 0", "reduction = 'x'"]),
    (lambda: rmp(0.1), ["RMPLoss(k=0.1)"]),
    (lambda: rmp()(X, 0.5), ["membrane_stats"]),
    (lambda: rmp().weight("a"), ["progress = 'a'"]),
    (lambda: Triangle(width=0, damping=-1), ["width = 0", "damping = -1"]),
    (lambda: conv(), ["in_channels: is missing", "kernel_size: is missing"]),
    (lambda: conv(3.0, "4", 3), ["in_channels = 3.0", "out_channels = '4'"]),
    (lambda: conv(-3, 0, -1, 0, -1), ["in_channels = -3", "out_channels = 0", "kernel_size = -1"]),
    (lambda: conv(-3, 4, 3, 0, -1), ["stride = 0", "padding = -1"]),
    (lambda: conv(3, 4, (3, 0), dilation=0), ["kernel_size = (3, 0)", "dilation = 0"]),
    (lambda: conv(3, 4, (3, 3, 3)), ["kernel_size = (3, 3, 3)", "a whole number or a list"]),
    (lambda: conv(3, 4, 3, groups=2), ["in_channels = 3", "divisible by groups = 2"]),
    (lambda: conv(4, 3, 3, groups=2), ["out_channels = 3", "divisible by groups = 2"]),
    (lambda: conv(4, 4, 3, groups=0), ["groups = 0", "at least 1"]),
    (lambda: conv(3, 4, 3, padding="sme"), ["padding = 'sme'", "'same'"]),
    (lambda: conv(3, 4, 3, 2, "same"), ["padding = 'same'", "stride"]),
    (lambda: conv(3, 4, 3, padding_mode="x"), ["padding_mode = 'x'", "reflect"]),
    (lambda: conv(3, 4, 3, bias="no", foo=1), ["bias = 'no'", 'unknown "foo"']),
    (lambda: conv(3, 4, 3, dtype=torch.int64), ["dtype = torch.int64", "floating-point"]),
    (lambda: conv(3, 4, 3, device="nope"), ["device = 'nope'", 'device="cpu"']),
    (lambda: conv(10**9, 10**9, 3), ["in_channels = 1000000000", "this machine has"]),
    (lambda: lif(10**13), ["channels = 10000000000000", "this machine has"]),
    (lambda: tdbn(10**13), ["channels = 10000000000000", "this machine has"]),
    (lambda: conv(3, 4, 3)(MAPS[:, :2]), ["x has shape [2, 2, 8, 8]", "[N, 3, H, W]"]),
    (lambda: conv(3, 4, 3)(MAPS[0, 0]), ["x has shape [8, 8]"]),
    (lambda: conv(3, 4, 3)(MAPS[None]), ["flatten(0, 1)"]),
    (lambda: conv(3, 4, 3)(MAPS.long()), ["x is torch.int64", "x.float()"]),
    (lambda: conv(3, 4, 3)(MAPS.bool()), ["x is torch.bool", "x.float()"]),
    (lambda: conv(3, 4, 3)(MAPS.to(torch.complex64)), ["x is torch.complex64"]),
    (lambda: conv(3, 4, 3)(MAPS.double()), ["x is torch.float64", "x.to(torch.float32)"]),
    (lambda: conv(3, 4, 3).double()(MAPS), ["x is torch.float32", "x.to(torch.float64)"]),
    (lambda: conv(3, 4, 3)(MAPS.to_sparse()), ["x.to_dense()"]),
    (lambda: conv(3, 4, 3)(MAPS.numpy()), ["x is a ndarray", "as_tensor"]),
    (lambda: conv(3, 4, 3)(None), ["x is a NoneType"]),
    (lambda: conv(3, 4, 3)(MAPS.to("meta")), ["x is on meta", "the weight on cpu"]),
    (lambda: conv(3, 4, 3)(MAPS[..., :2, :2]), ["a map of 2 x 2", "kernel of 3 x 3"]),
    (lambda: conv(3, 6, 3, groups=3)(MAPS.long()), ["x is torch.int64"]),
    (lambda: conv(3, 6, 3, groups=3)(MAPS[:, :2]), ["[N, 3, H, W]"]),
    (lambda: conv(3, 6, 3, dilation=4)(MAPS), ["kernel of 9 x 9"]),
    (lambda: conv(3, 6, 3, padding=8, padding_mode="reflect")(MAPS), ["kernel of 9 x 9"]),
    (lambda: conv(3, 6, 3, padding=9, padding_mode="circular")(MAPS), ["kernel of 9 x 9"]),
    (lambda: ops.spike_conv2d(X[0, 0], X), ["x has shape [4]"]),
    (lambda: ops.spike_conv2d(MAPS, None), ["weight is a NoneType"]),  # pyright: ignore[reportArgumentType]
    (lambda: ops.spike_conv2d(MAPS, MAPS, stride=0), ["stride = (0, 0)"]),
    (lambda: ops.spike_conv2d(MAPS, MAPS, X), ["bias = [2, 3, 4]"]),
    (lambda: create(), ["name: is missing", 'create("resnet20")']),  # pyright: ignore[reportCallIssue]
    (lambda: make("convnet", 10), ["argument 2 = 10", "num_classes=10"]),
    (lambda: make(3), ["name = 3"]),
    (lambda: make("convnet", T=10**9), ["T = 1000000000", "more than 4096"]),
    (lambda: make("convnet", width=1e9), ["width = 1000000000.0", "width=1"]),
    (lambda: make("convnet", width=1e4), ["width = 10000.0", "this machine has", "width=1"]),
    (lambda: make("convnet", num_classes=10**12), ["num_classes = 1000000000000", "GiB"]),
    (lambda: make("convnet", in_channels=10**12), ["in_channels = 1000000000000", "GiB"]),
    (lambda: make("convnet", neuron=LIF(4)), ["neuron = a LIF", "each needs a new one"]),
    (lambda: make("convnet", norm=lambda: 3), ["norm = ", "a function of the channels"]),
    (lambda: make("convnet", neuron=lambda _: None), ["neuron(32)", "no torch.nn.Module"]),
    (lambda: make("convnet", width=0.25)(MAPS[..., :3, :3]), ["images of 3 x 3", "too small"]),
    (lambda: make("convnet", width=0.25)(MAPS[..., :0]), ["no image in it"]),
    (lambda: make("convnet", width=0.25)(MAPS[:0]), ["no image in it"]),
    (lambda: make("vgg16", width=1 / 64)(MAPS), ["images of 8 x 8", "larger images"]),
    (lambda: recompute(), ["function: is missing", "checkpoint(net, x)"]),
    (lambda: recompute(3, X), ["function = 3", "a function"]),
    (lambda: recompute(lif(4), x=X), ['unknown "x"']),
    (lambda: MomentSpec(q=2), ["q"]),  # pyright: ignore[reportCallIssue]
    (lambda: CrossEntropy()(OUTPUTS, LOGITS, LABELS.float()), ["labels.long()"]),
    (lambda: MeanSquaredError()(OUTPUTS, LOGITS, LABELS[:1]), ["[B] = [2]"]),
    (lambda: TET()(LOGITS, LOGITS, LABELS), ["[T, B, K]"]),
    (lambda: ce(OUTPUTS, X[0, 0, 0], X[0, 0, 0]), ["logits = torch.float32 []", "[B, K]"]),
    (lambda: ce(OUTPUTS, LOGITS.to_sparse(), LABELS), ["is not dense", "logits.to_dense()"]),
    (lambda: ce(OUTPUTS, LOGITS, LOGITS.to_sparse()), ["is not dense", "labels.to_dense()"]),
    (lambda: ce(OUTPUTS, LOGITS, LABELS.to("meta")), ["labels are on meta", "outputs on cpu"]),
    (lambda: ce(OUTPUTS, LOGITS, LOGITS.to("meta")), ["labels are on meta", "outputs on cpu"]),
    (lambda: ce(OUTPUTS, LOGITS, LABELS - 2), ["labels from -1 to 0", "10 classes, 0 to 9"]),
    (lambda: tet(OUTPUTS, LOGITS, LABELS + 9), ["labels from 10 to 11", "10 classes"]),
    (lambda: tet(OUTPUTS[..., :2], LOGITS, LABELS), ["labels from 1 to 2", "labels - 1"]),
    (lambda: tet(OUTPUTS.to_sparse(), LOGITS, LABELS), ["outputs.to_dense()"]),
    (lambda: lif(4)(X[:1], repeats=10**12), ["repeats = 1000000000000", "this machine has"]),
    (lambda: NEURONS["real"](4)(X.to("meta")), ["x is on meta", "the amplitude on cpu"]),
    (lambda: fetch(3, checkpoint="x"), ["source = 3", "checkpoint = 'x'", "'last', 'best'"]),
    (lambda: fetch("x" * 300), ["not a run", "name too long"]),
    (lambda: watch(3), ["net = 3", "a Module"]),
    (lambda: write.graph_of(nn.Linear(2, 2), X), ["net = Linear", "a SpikingNetwork"]),
    (lambda: write.graph_of(create("convnet", width=0.125).to("meta"), MAPS), ["is on meta"]),
    (lambda: write.to_onnx(small(), MAPS.numpy(), 3), ["sample = ", "path = 3"]),
    (lambda: write.to_onnx(small(), MAPS, "x", form="y"), ["form = 'y'", "'sequence', 'loop', '"]),
    (lambda: write.to_onnx(small(), IMAGES, ""), ["path = '.'", "names no file"]),
    (lambda: write.to_onnx(small(), IMAGES, "a\0b"), ["names no file"]),
    (lambda: write.to_nir(small(), IMAGES, "x", dt=0), ["dt = 0", "positive and finite"]),
    (lambda: write.to_nir(small(), IMAGES, "x", dt=float("nan")), ["dt = nan"]),
    (lambda: write.to_nir(small(), IMAGES, "x", oldest="1"), ["oldest = '1'", "'1.0.4'"]),
    (lambda: write.to_torch_export(3, IMAGES), ["net = 3", "path: is missing"]),
    (lambda: write.to_torchscript(3, IMAGES), ["net = 3", "path: is missing"]),
    (lambda: joined.neuron(3), ["name = 3", "text"]),
    (lambda: joined.neuron("x", LIF, nam=1), ['unknown "nam"', 'did you mean "name"']),
    (lambda: joined.recipe(), ["entry: is missing"]),
]  # fmt: skip


def test_numbers_of_numpy_are_numbers() -> None:
    neuron = lif(np.int64(4), decay=np.float32(0.5))
    assert (neuron.channels, neuron.decay) == (4, 0.5)
    assert type(neuron.channels) is int
    assert tdbn(np.int64(3)).weight.shape == (3,)
    assert rmp(k=np.float32(0.5)).weight(np.float32(0.5)) == 0.5


@pytest.mark.parametrize(("call", "parts"), WRONG, ids=range(len(WRONG)))
def test_all_that_is_wrong_is_told(call: Callable[[], Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("table", [NEURONS, LOSSES, OBJECTIVES, SURROGATES, NORMS], ids=range(5))
def test_every_constructor_tells_an_unknown_argument(table: Any) -> None:
    for name in table:
        kind = table[name]
        if "__init__" in vars(kind):
            with pytest.raises(UserError, match="no_such_argument"):
                kind(no_such_argument=1)


def test_a_loss_without_a_gradient_is_refused_while_the_network_trains() -> None:
    """Reentrant checkpointing runs the layers under no_grad first: the moments have no graph."""
    net, objective = nn.Sequential(nn.Linear(4, 4), LIF(4)), RMPLoss()
    x = normal(2, 3, 4).float().requires_grad_()
    with torch.no_grad(), membrane_stats(net, objective.spec) as stats:
        net(x)
    with pytest.raises(UserError, match=r"rmploss\.checkpoint"):
        objective(stats, 0.5)
    with torch.no_grad():
        seen = objective(stats, 0.5)
    assert torch.equal(objective(stats.detach(), 0.5), seen)
    with membrane_stats(net.eval(), objective.spec) as stats, torch.no_grad():
        net(x)
    objective(stats, 0.5)


def test_a_threshold_beside_the_targets_is_told_once() -> None:
    objective = RMPLoss()
    with membrane_stats(spec=objective.spec) as stats:
        LIF(4, v_threshold=1.0)(normal(2, 3, 4))
    with pytest.warns(UserWarning, match=r"lif0 fire at v_threshold = 1\.0"):
        objective(stats, 0.5)
    objective(stats, 0.5)  # a second warning would be an error of this test


def test_names_that_no_layer_has_are_told() -> None:
    for options in ({"exclude": ("lif7",)}, {"include": ("lif0", "lif7")}):
        objective = RMPLoss(**options)  # pyright: ignore[reportArgumentType]
        with membrane_stats(spec=objective.spec) as stats:
            LIF(4)(normal(2, 3, 4))
        with pytest.raises(UserError, match='did you mean "lif0"'):
            objective(stats, 0.5)


def test_data_parallel_is_refused() -> None:
    net = nn.Sequential(LIF(4))
    with pytest.raises(UserError, match="torchrun"), membrane_stats(nn.DataParallel(net)):
        pass
    with pytest.raises(UserError, match="DistributedDataParallel"):
        net[0]._replicate_for_data_parallel()


CALLS: list[tuple[Callable[[], Any], list[str]]] = [
    (lambda: lif(4)(X, foo=1), ["bad call of LIF", 'unknown "foo"']),
    (lambda: lif(4)(X, residaul=X), ['did you mean "residual"']),
    (lambda: lif(4)(), ["x: is missing"]),
    (lambda: lif(4)(X, X), ["argument 2 =", "has no name"]),
    (lambda: lif(4).membrane(X, v=1), ['unknown "v"']),
    (lambda: lif(4, carry_state=True).step(X[0], 1), ["argument 2 = 1", "leave it out"]),
    (lambda: tdbn(4)(X, repeat=2), ['did you mean "repeats"']),
    (lambda: SpikeConv2d(1, 2, 3)(X, stride=2), ["SpikeConv2d", 'unknown "stride"']),
    (lambda: Accumulator()(X, dim=0), ["Accumulator", 'unknown "dim"']),
    (lambda: create("convnet", width=0.25)(X, overtime=True), ['did you mean "over_time"']),
    (lambda: rmp()(), ["stats: is missing", "progress: is missing"]),
    (lambda: NEURONS["dsr-if"](4)(X, foo=1), ["DSRIF", 'unknown "foo"']),
    (lambda: NEURONS["tssl"](4)(X, foo=1), ["TSSL", 'unknown "foo"']),
    (lambda: NORMS["none"]()(X, foo=1), ["NoNorm", 'unknown "foo"']),
]


@pytest.mark.parametrize(("call", "parts"), CALLS, ids=range(len(CALLS)))
def test_a_wrong_call_of_a_module_is_told(call: Callable[[], Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


def test_a_fault_inside_of_a_call_stays_what_it_is() -> None:
    class Faulty(SpikingLayer):
        def integrate(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + None, x  # pyright: ignore[reportOperatorIssue]

    with pytest.raises(TypeError, match="unsupported operand"):
        Faulty(4)(X)


@pytest.mark.filterwarnings("ignore::UserWarning")  # those of Dynamo itself
def test_a_step_that_checks_its_arguments_can_be_compiled() -> None:
    """The block of moments is opened inside, where torch.compile breaks the graph."""
    net, rmp, x = LIF(), RMPLoss(k=0.1), torch.rand(2, 3, 4, requires_grad=True)

    def step() -> Tensor:
        with membrane_stats(net, rmp.spec) as stats:
            spikes = net(x)
        return spikes.mean() + rmp(stats, progress=0.5)

    assert torch.equal(torch.compile(step, backend="eager")(), step())
