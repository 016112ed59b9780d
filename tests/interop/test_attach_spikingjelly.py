"""`attach` on SpikingJelly: every setting equals a plain loop, value and gradient; models too."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rmploss
from rmploss import MomentSpec, RMPLoss, UserError, membrane_stats
from rmploss.surrogate import ClippedTanh
from tests.given import normal
from tests.interop import loop
from tests.interop.peers import peer

SHAPE = (5, 3, 4, 2)
"""T, B, C, L."""
BASE = "spikingjelly.activation_based"


def node(kind: str = "LIFNode", **options: Any) -> Any:
    """A node in multi-step mode."""
    made = getattr(peer(f"{BASE}.neuron"), kind)(**{"step_mode": "m", **options})
    return made.double()


def surrogate(name: str, *alpha: float) -> Any:
    """A surrogate of SpikingJelly."""
    return getattr(peer(f"{BASE}.surrogate"), name)(*alpha)


SURROGATES = {
    "ATan": loop.atan,
    "Sigmoid": loop.sigmoid,
    "PiecewiseQuadratic": loop.tent,
    "Rect": loop.box,
    "SoftSign": loop.soft_sign,
}


def oracle_of(made: Any, derivative: loop.Derivative) -> loop.Neuron:
    """The constants of a node, for the loop."""
    kind = type(made).__name__
    rate = {"LIFNode": lambda: 1 / made.tau, "IFNode": lambda: 0.0}.get(kind) or (
        lambda: 1 / (1 + torch.exp(-made.w))
    )
    k, rest = rate(), made.v_reset or 0.0
    return loop.Neuron(
        derivative=derivative,
        decay=1 - k,
        gain=k if getattr(made, "decay_input", False) else 1.0,
        bias=k * rest,
        threshold=made.v_threshold,
        v_reset=made.v_reset,
        amount=made.v_threshold,
        rest=rest,
        start=rest,
        detach=made.detach_reset,
    )


def run(made: Any, x: Tensor, fast: bool, spec: MomentSpec | None = None) -> tuple[Any, ...]:
    """Spikes and moments of the attached node, which says whether it runs fast."""
    with rmploss.attach(made, fast=fast) as attached, membrane_stats(made, spec) as stats:
        spikes = made(x)
        (layer,) = attached.layers.values()
        how = layer.reason()
    (entry,) = stats
    return spikes, entry.moments, how


def gradients(spikes: Tensor, moments: Tensor, last: Tensor, wanted: list[Tensor]) -> Any:
    """Of a random linear function of spikes, moments and last membrane."""
    loss = (spikes * normal(*spikes.shape, name="o")).sum()
    loss = loss + (moments * normal(*moments.shape, name="m")).sum()
    loss = loss + (last * normal(*last.shape, name="v")).sum()
    return loss, torch.autograd.grad(loss, wanted)


SETTINGS = [
    ("LIFNode", {}, ("ATan", 2.0)),
    ("LIFNode", {"decay_input": False, "tau": 4 / 3}, ("Sigmoid", 4.0)),
    ("LIFNode", {"v_reset": None, "v_threshold": 0.7}, ("PiecewiseQuadratic", 1.5)),
    ("LIFNode", {"detach_reset": True, "v_reset": -0.3, "tau": 1.7}, ("Rect", 0.8)),
    ("LIFNode", {"v_reset": 0.2, "decay_input": False, "v_threshold": 0.5}, ("ATan", 3.0)),
    ("LIFNode", {"v_reset": None, "detach_reset": True}, ("SoftSign", 2.0)),
    ("IFNode", {}, ("Sigmoid", 4.0)),
    ("IFNode", {"v_reset": None, "v_threshold": 1.3}, ("ATan", 2.0)),
    ("IFNode", {"v_reset": 0.25, "detach_reset": True}, ("Rect", 1.0)),
    ("ParametricLIFNode", {}, ("Sigmoid", 4.0)),
    ("ParametricLIFNode", {"v_reset": None, "decay_input": False}, ("ATan", 2.0)),
    ("ParametricLIFNode", {"v_reset": -0.1, "init_tau": 3.0}, ("PiecewiseQuadratic", 1.0)),
]


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "observed"])
@pytest.mark.parametrize(("kind", "options", "chosen"), SETTINGS)
def test_a_node_is_the_loop(
    kind: str, options: dict[str, Any], chosen: tuple[str, float], fast: bool
) -> None:
    made = node(kind, surrogate_function=surrogate(*chosen), **options)
    x = (normal(*SHAPE, mean=0.6) * 1.2).requires_grad_()
    wanted = [x, *made.parameters()]
    spikes, moments, how = run(made, x, fast)
    assert (how == "") == (fast and chosen[0] != "SoftSign")
    loss, found = gradients(spikes, moments, made.v, wanted)
    o, u, last = loop.run(x, oracle_of(made, SURROGATES[chosen[0]](chosen[1])))
    assert 0.05 < float(o.detach().mean()) < 0.95
    torch.testing.assert_close(spikes, o, rtol=0, atol=0)
    expected = loop.moments(o, u)
    loop.close(moments, expected)
    loop.close(made.v, last)
    value, grads = gradients(o, expected, last, wanted)
    loop.close(loss, value)
    for ours, theirs in zip(found, grads, strict=True):
        loop.close(ours, theirs)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "observed"])
def test_the_surrogate_of_the_paper_in_a_node_of_theirs(fast: bool) -> None:
    ours = ClippedTanh()
    made = node(tau=4 / 3, decay_input=False, v_threshold=0.5, surrogate_function=ours)
    x = normal(*SHAPE, mean=0.3).requires_grad_()
    spikes, moments, how = run(made, x, fast)
    assert (how == "") == fast
    o, u, last = loop.run(x, oracle_of(made, ours.derivative))
    _, (found,) = gradients(spikes, moments, made.v, [x])
    _, (expected,) = gradients(o, loop.moments(o, u), last, [x])
    loop.close(found, expected)
    made.v_threshold = 1.0  # its window is one of the unit of Eq. 8, and cannot be another
    made.reset()
    assert (
        run(made, x, True)[2] == "surrogate_function = ClippedTanh: rmploss has no such surrogate"
    )


def test_single_steps_make_one_entry_with_their_gradient() -> None:
    x = normal(*SHAPE, mean=0.5).requires_grad_()
    made = node(surrogate_function=surrogate("ATan"))
    spikes, moments, _ = run(made, x, False)
    _, (expected,) = gradients(spikes, moments, made.v, [x])
    made.reset()
    made.step_mode = "s"
    with rmploss.attach(made), membrane_stats(made) as stats:
        steps = torch.stack([made(x_t) for x_t in x])
    (entry,) = stats
    assert entry.count == SHAPE[0] * SHAPE[1] * SHAPE[3]
    loop.close(entry.moments, moments)
    _, (found,) = gradients(steps, entry.moments, made.v, [x])
    loop.close(found, expected)


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "observed"])
def test_moments_of_every_step(fast: bool, mode: str) -> None:
    x = normal(*SHAPE, mean=0.5)
    made = node(surrogate_function=surrogate("ATan"))
    o, u, _ = loop.run(x, oracle_of(made, loop.atan()))
    made.step_mode = mode
    with rmploss.attach(made, fast=fast), membrane_stats(made, MomentSpec(per_step=True)) as stats:
        made(x) if mode == "m" else [made(x_t) for x_t in x]
    (entry,) = stats
    assert entry.count == SHAPE[1] * SHAPE[3]
    for t in range(SHAPE[0]):
        loop.close(entry.moments[t], loop.moments(o[t : t + 1], u[t : t + 1]))


def test_the_membrane_goes_on_until_the_reset() -> None:
    x = normal(*SHAPE, mean=0.5)
    made = node(surrogate_function=surrogate("Sigmoid"), v_reset=None)
    whole = made(x)
    made.reset()
    with rmploss.attach(made), membrane_stats(made) as stats:
        halves = [made(x[:2]), made(x[2:])]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=0, atol=0)
    o, u, _ = loop.run(x, oracle_of(made, loop.sigmoid()))
    loop.close(stats.layers[0].moments, loop.moments(o, u))
    made.reset()
    assert made.v == 0.0


def test_a_node_that_its_user_wrote() -> None:
    base = peer(f"{BASE}.neuron").SimpleBaseNode

    class Quadratic(base):
        def neuronal_charge(self, x: Tensor) -> None:
            self.v = self.v + 0.3 * self.v**2 + x

    made = Quadratic(step_mode="m", surrogate_function=surrogate("ATan")).double()
    x = normal(*SHAPE, mean=0.3)
    spikes, moments, how = run(made, x, True)
    assert how == "Quadratic.neuronal_charge: a method of Python"
    v, membranes = torch.zeros_like(x[0]), []
    for t in range(SHAPE[0]):
        h = v + 0.3 * v**2 + x[t]
        o = (h >= 1).double()
        v = h * (1 - o)
        membranes.append(h / 2)
        torch.testing.assert_close(spikes[t], o, rtol=0, atol=0)
    loop.close(moments, loop.moments(spikes, torch.stack(membranes)))


def spiking_resnet18(neuron: Any) -> Any:
    """SpikingJelly's, in float64 and multi-step mode, with maps that fire."""
    model = peer(f"{BASE}.model.spiking_resnet")
    net = model.spiking_resnet18(
        spiking_neuron=neuron.LIFNode,
        surrogate_function=surrogate("ATan"),
        detach_reset=True,
        num_classes=4,
    )
    return with_weights(net)


def sew_block(neuron: Any) -> Any:
    """A block of SpikingJelly's SEW ResNet, with shortcut."""
    model = peer(f"{BASE}.model.sew_resnet")
    layer = peer(f"{BASE}.layer")
    down = nn.Sequential(model.conv1x1(4, 6, 2), layer.BatchNorm2d(6))
    block = model.BasicBlock(
        4, 6, 2, down, cnf="ADD", spiking_neuron=neuron.IFNode, surrogate_function=surrogate("ATan")
    )
    return with_weights(block)


def with_weights(net: Any) -> Any:
    """The network in float64 and multi-step mode, with our numbers for its weights."""
    peer(f"{BASE}.functional").set_step_mode(net, "m")
    net.double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(normal(*parameter.shape, name=name) / fan_in**0.5)
            if parameter.ndim == 1:
                parameter.copy_(0.7 + 0.2 * parameter)
    return net


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "observed"])
@pytest.mark.parametrize(
    ("make", "shape"), [(spiking_resnet18, (2, 2, 3, 32, 32)), (sew_block, (4, 2, 4, 6, 6))]
)
def test_a_whole_model_with_the_loss_is_the_loop(
    make: Any, shape: tuple[int, ...], fast: bool
) -> None:
    neuron = peer(f"{BASE}.neuron")
    net, x, rmp = make(neuron), normal(*shape, mean=0.4), RMPLoss(k=0.3)
    copied = copy.deepcopy(net)
    attached = rmploss.attach(net, fast=fast)
    names = list(attached.layers)
    for name in names:
        made = copied.get_submodule(name)
        parent, _, leaf = name.rpartition(".")
        replacement = loop.Oracle(oracle_of(made, loop.atan()))
        setattr(copied.get_submodule(parent), leaf, replacement)
    with membrane_stats(net, rmp.spec) as stats:
        out = net(x)
    assert {layer.name for layer in stats} == set(names)
    weights = normal(*out.shape, name="out")
    loss = (out * weights).sum() + rmp(stats, 0.4)
    loss.backward()
    expected_out = copied(x)
    torch.testing.assert_close(out, expected_out, rtol=1e-11, atol=1e-12)
    oracles = [copied.get_submodule(name) for name in names]
    counts = {entry.name: entry.elements for entry in stats}
    oracles = {name: copied.get_submodule(name).moments for name in names}
    errors = [moments[2].sum() / counts[name] for name, moments in oracles.items()]
    expected = (expected_out * weights).sum() + 0.3 * 0.8 * torch.stack(errors).mean()
    expected.backward()
    loop.close(loss, expected)
    for (name, ours), theirs in zip(net.named_parameters(), copied.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        loop.close(ours.grad, theirs.grad, 1e-11)


def test_detach_leaves_nothing_behind() -> None:
    net = sew_block(peer(f"{BASE}.neuron"))
    x = normal(4, 2, 4, 6, 6, mean=0.4)
    before = {name: dict(vars(module)) for name, module in net.named_modules()}
    keys = list(net.state_dict())
    out = net(x)
    peer(f"{BASE}.functional").reset_net(net)
    attached = rmploss.attach(net)
    assert list(net.state_dict()) == keys
    again = rmploss.attach(net, fast=False)
    attached.detach()  # of layers that are attached anew: nothing
    assert len(again.layers) == 3
    with membrane_stats(net) as stats:
        net(x)
    assert len(stats) == 3
    peer(f"{BASE}.functional").reset_net(net)
    again.detach()
    again.detach()
    for name, module in net.named_modules():
        assert vars(module).keys() == before[name].keys()
    with membrane_stats(net) as stats:
        torch.testing.assert_close(net(x), out, rtol=0, atol=0)
    assert len(stats) == 0


def test_an_attached_network_is_copied_and_pickled() -> None:
    net = sew_block(peer(f"{BASE}.neuron"))
    rmploss.attach(net)
    stored = io.BytesIO()
    torch.save(net, stored)
    stored.seek(0)
    x = normal(4, 2, 4, 6, 6, mean=0.4)
    for other in (copy.deepcopy(net), torch.load(stored, weights_only=False)):
        with membrane_stats(other) as stats:
            other(x)
        assert [entry.name for entry in stats] == ["downsample_sn", "sn1", "sn2"] or len(stats) == 3
        assert isinstance(other.sn1.v, Tensor)
        assert net.sn1.v == 0.0  # the original did not run


def test_float32_within_a_bound_and_flips_counted() -> None:
    """Bound: each step rounds a sum of four products (8 eps of their sizes) and decays the rest."""
    made = node(surrogate_function=surrogate("ATan"), tau=1.5).float()
    x = normal(6, 8, 5, 30, mean=0.7).float()
    o, u, _ = loop.run(x.double(), oracle_of(made, loop.atan()))
    eps = torch.finfo(torch.float32).eps
    size = (u.abs() * 2).cummax(0).values + x.double().abs()
    margin = 8 * eps * size / (1 - (1 - 1 / 1.5))
    near = ((2 * u - 1).abs() <= margin).any(0)
    for fast in (True, False):
        made.reset()
        spikes, moments, _ = run(made, x, fast)
        flipped = (spikes.double() != o).any(0)
        assert bool((flipped <= near).all())
        assert int(flipped.sum()) <= 2
        sound = ~flipped.any(0).any(-1)
        expected = loop.moments(o, u)
        count = o[:, :, 0].numel()
        largest = torch.stack([u.abs(), 3 * u.square() + 1, 3 * (o - u).abs() + 1, o]).amax(
            (1, 2, 4)
        )
        bound = count * (margin.max() * (1 + largest) + count * eps * largest)
        assert bool(((moments - expected).abs() <= bound)[:, sound].all())
        assert float(bound.max()) < 0.05 * float(expected.abs().max())


REFUSED = [
    ("KLIFNode", {}, "KLIFNode"),
    ("QIFNode", {}, "QIFNode"),
    ("LIFNode", {"v_reset": 1.5}, "v_threshold = 1.0"),
]


@pytest.mark.parametrize(("kind", "options", "field"), REFUSED)
def test_what_cannot_be_observed_is_named(kind: str, options: dict[str, Any], field: str) -> None:
    net = nn.Sequential(node(), nn.Sequential(node(kind, **options)))
    with pytest.raises(UserError, match=rf"nothing was changed\n  1\.0\.{field}"):
        rmploss.attach(net)
    assert "forward" not in vars(net[0])


def test_analog_outputs_and_overridden_steps_are_refused() -> None:
    made = node(surrogate_function=surrogate("Sigmoid"))
    made.surrogate_function.set_spiking_mode(False)
    with pytest.raises(UserError, match=r"surrogate_function\.spiking = False"):
        rmploss.attach(made)

    class Other(peer(f"{BASE}.neuron").LIFNode):
        def single_step_functional_forward(self, *_: Any, **__: Any) -> Any:
            return None

    with pytest.raises(UserError, match="single_step_functional_forward: is not that of LIFNode"):
        rmploss.attach(Other())


def test_the_report_names_the_field_that_decides() -> None:
    net = nn.Sequential(node(), node(store_v_seq=True), node(step_mode="s"))
    net.add_module("3", node(surrogate_function=surrogate("Erf")))
    assert rmploss.attach(net).report().split("\n") == [
        "0  fast",
        "1  observed  store_v_seq = True: the fast neuron keeps no membrane",
        '2  observed  step_mode = "s": the fast neuron takes sequences',
        "3  observed  surrogate_function = Erf: rmploss has no such surrogate",
    ]
    assert "0  observed  attach(net, fast=False)" in rmploss.attach(net, fast=False).report()


def test_half_precision_is_observed_and_measured_in_single() -> None:
    made = node(surrogate_function=surrogate("Sigmoid")).half()
    x = normal(*SHAPE, mean=0.5).half()
    spikes, moments, _ = run(made, x, True)
    assert (spikes.dtype, moments.dtype) == (torch.float16, torch.float32)


def test_the_input_current_is_not_observed() -> None:
    made = node()
    spec = MomentSpec(potential="input")
    rmploss.attach(made, fast=False)
    with membrane_stats(made, spec), pytest.raises(UserError, match='potential = "input"'):
        made(normal(*SHAPE))
