"""`attach` on snnTorch: neurons in loops over time equal a plain loop, value and gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rmploss
from rmploss import UserError, membrane_stats
from tests.given import normal
from tests.interop import loop
from tests.interop.peers import peer

T, B = 6, 3


class Documented(nn.Module):
    """A network and its loop over time as snnTorch's tutorials write them (number 5)."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        snn = peer("snntorch")
        options = {"spike_grad": peer("snntorch.surrogate").fast_sigmoid(slope=25), **options}
        self.fc1 = nn.Linear(5, 8)
        self.lif1 = snn.Leaky(**options)
        self.fc2 = nn.Linear(8, 4)
        self.lif2 = snn.Leaky(**options)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of the outputs `[T, B, 4]` for x `[T, B, 5]`."""
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        recorded = []
        for step in range(len(x)):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1.to(x.dtype)), mem2)
            recorded.append(spk2)
        return torch.stack(recorded)


def built(**options: Any) -> Documented:
    """The network in float64 with our numbers for its weights."""
    net = Documented(**options).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith("fc"):
                parameter.copy_(normal(*parameter.shape, name=name) * 0.8 + 0.2)
    return net


def layers_of(net: Documented, x: Tensor, neuron: loop.Neuron) -> tuple[Tensor, list[Tensor]]:
    """Output spikes and moments of both layers by the plain loop."""
    spikes, moments = x, []
    for linear in (net.fc1, net.fc2):
        spikes, u, _ = loop.run(linear(spikes.to(x.dtype)), neuron)
        moments.append(loop.moments(spikes, u))
    return spikes, moments


def loss(out: Tensor, moments: list[Tensor]) -> Tensor:
    """A random linear function of the spikes and of all moments: any regularizer's gradient."""
    terms = [(out * normal(*out.shape, name="o")).sum()]
    terms += [(m * normal(*m.shape, name=str(i))).sum() for i, m in enumerate(moments)]
    return torch.stack(terms).sum()


SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # After the leak the soft reset subtracts the threshold: V_th / beta before it.
    ({"beta": 0.8}, {"decay": 0.8, "v_reset": None, "amount": 1 / 0.8}),
    ({"beta": 0.5, "reset_mechanism": "zero", "threshold": 0.5}, {"decay": 0.5, "threshold": 0.5}),
    ({"beta": 0.9, "reset_mechanism": "none"}, {"decay": 0.9, "v_reset": None, "amount": 0.0}),
]


@pytest.mark.parametrize(("options", "constants"), SETTINGS)
def test_a_documented_network_is_the_loop(
    options: dict[str, Any], constants: dict[str, Any]
) -> None:
    net = built(**{**options, "beta": torch.tensor(options["beta"], dtype=torch.float64)})
    x = normal(T, B, 5, mean=0.4).requires_grad_()
    neuron = loop.Neuron(
        derivative=loop.fast_sigmoid(), detach=True, strict=True, single=True, **constants
    )
    keys = list(net.state_dict())
    rmploss.attach(net)
    assert list(net.state_dict()) == keys
    with membrane_stats(net) as stats:
        out = net(x)
    expected_out, expected = layers_of(net, x, neuron)
    assert [entry.name for entry in stats] == ["lif1", "lif2"]
    assert [entry.count for entry in stats] == [T * B, T * B]
    torch.testing.assert_close(out, expected_out, rtol=0, atol=0)
    assert 0.02 < float(out.detach().mean()) < 0.98
    moments = [entry.moments for entry in stats]
    for ours, theirs in zip(moments, expected, strict=True):
        loop.close(ours, theirs)
    wanted = [x, *net.fc1.parameters(), *net.fc2.parameters()]
    found = torch.autograd.grad(loss(out, moments), wanted)
    for ours, theirs in zip(
        found, torch.autograd.grad(loss(expected_out, expected), wanted), strict=True
    ):
        loop.close(ours, theirs)


def test_learnt_beta_and_threshold_get_their_gradient() -> None:
    net = built(beta=0.8, reset_mechanism="zero", learn_beta=True, learn_threshold=True)
    x = normal(T, B, 5, mean=0.4)
    rmploss.attach(net)
    with membrane_stats(net) as stats:
        out = net(x)
    beta, threshold = net.lif1.beta, net.lif1.threshold
    assert isinstance(beta, Tensor)
    neuron = loop.Neuron(
        derivative=loop.fast_sigmoid(),
        decay=beta,
        threshold=threshold,
        detach=True,
        strict=True,
        single=True,
    )
    _, u, _ = loop.run(net.fc1(x), neuron)
    spikes = loop.run(net.fc1(x), neuron)[0]
    expected = loop.moments(spikes, u)
    weights = normal(4, 8)
    wanted = [beta, threshold]
    ours = torch.autograd.grad((stats.layers[0].moments * weights).sum(), wanted)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted)
    for a, b in zip(ours, theirs, strict=True):
        loop.close(a, b)
    assert out.shape == (T, B, 4)


@pytest.mark.parametrize("kind", ["Lapicque", "Synaptic", "RLeaky", "Alpha"])
def test_other_neurons_show_the_membrane_that_fires(kind: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "Lapicque": {"beta": 0.8},
        "Synaptic": {"alpha": 0.6, "beta": 0.8},
        "RLeaky": {"beta": 0.8, "linear_features": 4},
        "Alpha": {"alpha": 0.9, "beta": 0.8},
    }
    made = getattr(peer("snntorch"), kind)(**options[kind], threshold=0.5, init_hidden=True)
    rmploss.attach(made)
    x = normal(T, B, 4, mean=0.4).float()  # with float64 `RLeaky` itself fails
    with membrane_stats(made) as stats:
        spikes, membranes = [], []
        for x_t in x:
            spikes.append(made(x_t))
            membranes.append(made.mem)  # reset_delay: that before the reset
    (entry,) = stats
    u = torch.stack(membranes) / (2 * made.threshold)
    assert bool(((u > 0.5) == (torch.stack(spikes) == 1)).all())
    expected = loop.moments(torch.stack(spikes), u)
    loop.close(entry.moments, expected, T * B * torch.finfo(torch.float32).eps)


def test_reset_at_once_is_observed_before_it() -> None:
    x = normal(T, B, 4, mean=0.4)
    snn = peer("snntorch")
    made = snn.Leaky(beta=0.5, reset_mechanism="zero", reset_delay=False, init_hidden=True)
    rmploss.attach(made)
    with membrane_stats(made) as stats:
        for x_t in x:
            made(x_t)
    neuron = loop.Neuron(derivative=loop.atan(), decay=0.5, strict=True)
    spikes, u, _ = loop.run(x, neuron)
    loop.close(stats.layers[0].moments, loop.moments(spikes, u))


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        ("Leaky", {"graded_spikes_factor": 2.0}, r"graded_spikes_factor = 2"),
        ("Leaky", {"threshold": 0.0}, r"threshold = 0"),
        ("Leaky", {"learn_graded_spikes_factor": True}, r"graded_spikes_factor = 1"),
        ("Leaky", {"state_quant": lambda mem: mem.round()}, "state_quant"),
        ("LeakyParallel", {"input_size": 3, "hidden_size": 4}, "LeakyParallel"),
    ],
)
def test_what_cannot_be_observed_is_named(kind: str, options: dict[str, Any], field: str) -> None:
    made = getattr(peer("snntorch"), kind)(**{"beta": 0.9, **options})
    with pytest.raises(UserError, match=rf"0\.{field}"):
        rmploss.attach(nn.Sequential(made))


def test_detach_leaves_nothing_behind() -> None:
    net, x = built(beta=0.9), normal(T, B, 5, mean=0.4)
    out = net(x)
    before = {name: {**vars(m)} for name, m in net.named_modules()}
    with rmploss.attach(net), membrane_stats(net) as stats:
        torch.testing.assert_close(net(x), out, rtol=0, atol=0)
    assert len(stats) == 2
    assert {name: vars(m).keys() for name, m in net.named_modules()} == {
        name: own.keys() for name, own in before.items()
    }
    with membrane_stats(net) as stats:
        torch.testing.assert_close(net(x), out, rtol=0, atol=0)
    assert len(stats) == 0
