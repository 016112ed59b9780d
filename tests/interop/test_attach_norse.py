"""`attach` on Norse: cells and modules equal a plain loop, value and gradient."""

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


def documented(norse: Any, neuron: Any) -> Any:
    """A network of Norse's introduction: stateful layers in a `SequentialState`."""
    net = norse.SequentialState(nn.Linear(5, 8), neuron(), nn.Linear(8, 4), neuron()).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(3 * normal(*parameter.shape, name=name) + 0.8)
    return net


def over_time(net: Any, x: Tensor) -> Tensor:
    """The loop over time that Norse's users write."""
    state, spikes = None, []
    for x_t in x:
        o, state = net(x_t, state)
        spikes.append(o)
    return torch.stack(spikes)


def filtered(x: Tensor, keep: float) -> Tensor:
    """The synaptic current i(t) = keep i(t-1) + x(t)."""
    currents = [x[0]]
    for x_t in x[1:]:
        currents.append(keep * currents[-1] + x_t)
    return torch.stack(currents)


def of(value: float) -> Tensor:
    """A parameter of Norse, in float64."""
    return torch.tensor(value, dtype=torch.float64)


BOX = {"tau_mem_inv": of(400.0), "alpha": of(10.0)}
LIF = {"tau_mem_inv": of(300.0), "tau_syn_inv": of(600.0), "alpha": of(10.0)}
SETTINGS: list[tuple[str, dict[str, Any], dict[str, Any], float]] = [
    ("LIFBoxCell", BOX, {"decay": 0.6, "gain": 0.4}, 0.0),
    ("LIFBoxCell", {**BOX, "v_reset": of(0.2)}, {"decay": 0.6, "gain": 0.4, "v_reset": 0.2}, 0.0),
    (
        "LIFBoxCell",
        {**BOX, "v_leak": of(-1.0), "v_th": of(0.5)},
        {"decay": 0.6, "gain": 0.4, "bias": -0.4, "rest": -1.0, "threshold": 0.5, "start": -1.0},
        0.0,
    ),
    ("LIFCell", LIF, {"decay": 0.7, "gain": 0.3}, 0.4),
    ("LIF", LIF, {"decay": 0.7, "gain": 0.3}, 0.4),
    ("IAFCell", {"alpha": of(10.0), "v_th": of(2.0)}, {"decay": 1.0, "threshold": 2.0}, 0.0),
]


@pytest.mark.parametrize(("kind", "parameters", "constants", "keep"), SETTINGS)
def test_a_documented_network_is_the_loop(
    kind: str, parameters: dict[str, Any], constants: dict[str, Any], keep: float
) -> None:
    norse, family = peer("norse.torch"), kind.removesuffix("Cell")
    place = {"LIF": "lif", "LIFBox": "lif_box", "IAF": "iaf"}[family]
    made = getattr(peer(f"norse.torch.functional.{place}"), f"{family}Parameters")(**parameters)
    cell = getattr(norse, kind)
    net = documented(norse, lambda: cell(made))
    keys = list(net.state_dict())
    attached = rmploss.attach(net)
    assert list(net.state_dict()) == keys
    assert list(attached.layers) == ["1", "3"]
    x = normal(T, B, 5, mean=0.3).requires_grad_()
    with membrane_stats(net) as stats:
        out = net(x)[0] if kind == "LIF" else over_time(net, x)
    # Norse's SuperSpike does not use its alpha.
    neuron = loop.Neuron(derivative=loop.fast_sigmoid(1.0), strict=True, **constants)
    spikes, expected = x, []
    for linear in (net[0], net[2]):
        spikes, u, _ = loop.run(filtered(linear(spikes), keep), neuron)
        expected.append(loop.moments(spikes, u))
    torch.testing.assert_close(out, spikes, rtol=0, atol=0)
    assert 0.02 < float(out.detach().mean()) < 0.98
    assert [entry.count for entry in stats] == [T * B, T * B]
    ours_loss, theirs_loss = (
        (o * normal(*o.shape, name="o")).sum()
        + sum((m * normal(*m.shape, name=str(i))).sum() for i, m in enumerate(moments))
        for o, moments in ((out, [entry.moments for entry in stats]), (spikes, expected))
    )
    for entry, moments in zip(stats, expected, strict=True):
        loop.close(entry.moments, moments)
    wanted = [x, *net.parameters()]
    found = torch.autograd.grad(ours_loss, wanted)
    for ours, theirs in zip(found, torch.autograd.grad(theirs_loss, wanted), strict=True):
        loop.close(ours, theirs)


def test_a_recurrent_cell_is_observed_before_its_reset() -> None:
    norse, x = peer("norse.torch"), normal(T, B, 5, mean=1.0)
    p = peer("norse.torch.functional.lif").LIFParameters(of(200.0), of(100.0))
    cell = norse.LIFRecurrentCell(5, 4, p).double()
    rmploss.attach(cell)
    state, spikes = None, []
    with membrane_stats(cell) as stats:
        for x_t in x:
            o, state = cell(20 * x_t.abs(), state)
            spikes.append(o)
    spikes, x = torch.stack(spikes).detach(), 20 * x.abs()
    assert 0 < float(spikes.mean()) < 1
    v, i, z = (x.new_zeros(B, 4) for _ in range(3))
    membranes = []
    for x_t, o in zip(x, spikes, strict=True):
        current = i + x_t @ cell.input_weights.T + z @ cell.recurrent_weights.T
        h = v + 0.1 * (current - v)  # dt / tau_mem
        v, i, z = h * (1 - o), 0.8 * current, o
        membranes.append(h / 2)
    expected = loop.moments(spikes, torch.stack(membranes))
    loop.close(stats.layers[0].moments, expected)


@pytest.mark.parametrize(
    ("kind", "field"),
    [("LIFRefracCell", "activation = lif_refrac"), ("LSNNCell", "activation = lsnn")],
)
def test_what_cannot_be_observed_is_named(kind: str, field: str) -> None:
    made = getattr(peer("norse.torch"), kind)()
    with pytest.raises(UserError, match=rf"0\.{field}"):
        rmploss.attach(nn.Sequential(made))


def test_adjoint_gradients_and_thresholds_below_rest_are_refused() -> None:
    parameters = peer("norse.torch.functional.lif").LIFParameters
    norse = peer("norse.torch")
    with pytest.raises(UserError, match=r"activation = lif_feed_forward_adjoint_step"):
        rmploss.attach(norse.LIFCell(parameters(method="adjoint")))
    with pytest.raises(UserError, match=r"v_th = -2: must lie above v_leak = 0"):
        rmploss.attach(norse.LIFCell(parameters(v_th=of(-2.0))))


def test_a_read_out_does_not_spike() -> None:
    norse = peer("norse.torch")
    attached = rmploss.attach(norse.SequentialState(norse.LIFCell(), norse.LICell()))
    assert attached.report() == "0  observed  fires at v > v_th, not at equality (Eq. 2)"


def test_sparse_inputs_are_refused_where_they_are_observed() -> None:
    cell = peer("norse.torch").LIFCell()
    rmploss.attach(cell)
    x = torch.zeros(2, 3).to_sparse()
    with membrane_stats(cell), pytest.raises(UserError, match="dense inputs"):
        cell(x)
    cell(torch.zeros(2, 3))
    assert cell.activation_sparse.__name__ == "lif_feed_forward_step_sparse"
