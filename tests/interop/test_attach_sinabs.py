"""`attach` on sinabs: layers equal a plain loop, value and gradient."""

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


def layer(kind: str, **options: Any) -> Any:
    """A layer with single spikes."""
    single = peer("sinabs.activation").SingleSpike
    return getattr(peer("sinabs.layers"), kind)(**{"spike_fn": single, **options}).double()


def convolutional(**options: Any) -> Any:
    """A network as sinabs's tutorials write them: convolutions on B T maps, IAFSqueeze layers."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        layer("IAFSqueeze", batch_size=B, **options),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 3, 2, bias=False),
        layer("IAFSqueeze", batch_size=B, **options),
    ).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 4:
                parameter.copy_(0.4 * normal(*parameter.shape, name=name) + 0.08)
    return net


class Double(nn.Module):
    """sinabs fires in float32; the next convolution is float64."""

    def forward(self, x: Tensor) -> Tensor:
        """x in float64."""
        return x.double()


def single_spike() -> Any:
    """sinabs's `SingleSpike`, in float64 instead of float32."""
    base = peer("sinabs.activation").SingleSpike

    class SingleSpike(base):
        @staticmethod
        def forward(ctx: Any, v_mem: Tensor, threshold: Tensor, surrogate: Any) -> Tensor:
            return base.forward(ctx, v_mem, threshold, surrogate).double()

    return SingleSpike


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("soft", [True, False])
def test_a_documented_network_is_the_loop(soft: bool, wide: bool) -> None:
    """With float32 spikes the three gradients of each are rounded and summed in float32."""
    tolerance = 1e-12 if wide else 3 * T * torch.finfo(torch.float32).eps
    activation = peer("sinabs.activation")
    reset = activation.MembraneSubtract() if soft else activation.MembraneReset()
    net = convolutional(reset_fn=reset, **({"spike_fn": single_spike()} if wide else {}))
    net.insert(2, Double())
    keys = list(net.state_dict())
    rmploss.attach(net)
    assert list(net.state_dict()) == keys
    x = normal(B, T, 2, 6, 6, mean=0.3).requires_grad_()
    with membrane_stats(net) as stats:
        out = net(x.flatten(0, 1))
    neuron = loop.Neuron(
        derivative=loop.exponential(0.5),
        decay=1.0,
        v_reset=None if soft else 0.0,
        # `MembraneReset` looks at whether spikes are 0, which has no gradient.
        detach=not soft,
        single=not wide,
    )

    def fire(maps: Tensor) -> tuple[Tensor, Tensor]:
        spikes, u, _ = loop.run(maps.unflatten(0, (B, T)).transpose(0, 1), neuron)
        return spikes.transpose(0, 1).flatten(0, 1), loop.moments(spikes, u)

    first = fire(net[0](x.flatten(0, 1)))
    second = fire(net[4](net[3](first[0].double())))
    torch.testing.assert_close(out, second[0], rtol=0, atol=0)
    assert 0.02 < float(out.detach().mean()) < 0.98
    expected = [first[1], second[1]]
    assert [entry.name for entry in stats] == ["1", "5"]
    for entry, moments in zip(stats, expected, strict=True):
        loop.close(entry.moments, moments)
    ours_loss, theirs_loss = (
        (o * normal(*o.shape, name="o")).sum()
        + sum((m * normal(*m.shape, name=str(i))).sum() for i, m in enumerate(moments))
        for o, moments in ((out, [entry.moments for entry in stats]), (second[0], expected))
    )
    wanted = [x, net[0].weight, net[4].weight]
    found = torch.autograd.grad(ours_loss, wanted)
    for ours, theirs in zip(found, torch.autograd.grad(theirs_loss, wanted), strict=True):
        loop.close(ours, theirs, tolerance)


@pytest.mark.parametrize("norm_input", [True, False])
def test_a_leak_that_is_learnt_gets_its_gradient(norm_input: bool) -> None:
    made = layer("LIF", tau_mem=2.0, norm_input=norm_input, spike_threshold=torch.tensor(0.6))
    rmploss.attach(made)
    x = normal(B, T, 4, mean=0.6)
    with membrane_stats(made) as stats:
        spikes = made(x)
    alpha = torch.exp(-1 / made.tau_mem)
    threshold = made.spike_threshold
    neuron = loop.Neuron(
        derivative=loop.exponential(0.5, float(threshold)),
        decay=alpha,
        gain=1 - alpha if norm_input else 1.0,
        threshold=threshold,
        v_reset=None,
        amount=threshold,
        single=True,
    )
    o, u, _ = loop.run(x.transpose(0, 1), neuron)
    torch.testing.assert_close(spikes.transpose(0, 1), o, rtol=0, atol=0)
    (entry,), expected, weights = stats, loop.moments(o, u), normal(4, 4)
    loop.close(entry.moments, expected)
    (ours,) = torch.autograd.grad((entry.moments * weights).sum(), made.tau_mem)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), made.tau_mem)
    loop.close(ours, theirs)


def test_a_recurrent_layer_is_observed() -> None:
    made = layer("LIFRecurrent", tau_mem=3.0, rec_connect=nn.Linear(4, 4, bias=False)).float()
    with rmploss.attach(made), membrane_stats(made) as stats:
        spikes = made(normal(B, T, 4, mean=1.0, std=2).float())
    assert stats.layers[0].count == B * T
    torch.testing.assert_close(stats.layers[0].moments[3], spikes.sum((0, 1)))


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        ("IAF", {"spike_fn": "MultiSpike"}, "spike_fn = MultiSpike"),
        ("IAF", {"spike_threshold": torch.tensor(0.0)}, "spike_threshold = 0"),
        ("ALIF", {"tau_mem": 2.0, "tau_adapt": 5.0}, "ALIF"),
    ],
)
def test_what_cannot_be_observed_is_named(kind: str, options: dict[str, Any], field: str) -> None:
    if "spike_fn" in options:
        options = {"spike_fn": getattr(peer("sinabs.activation"), options["spike_fn"])}
    with pytest.raises(UserError, match=rf"0\.{field}"):
        rmploss.attach(nn.Sequential(layer(kind, **options)))


def test_at_most_one_spike_is_one_spike_and_a_read_out_has_none() -> None:
    once = peer("sinabs.activation").MaxSpike(max_num_spikes_per_bin=1)
    net = nn.Sequential(layer("IAF", spike_fn=once), peer("sinabs.layers").ExpLeak(tau_mem=2.0))
    attached = rmploss.attach(net)
    assert attached.report() == (
        "0  observed  surrogate_grad_fn = SingleExponential: rmploss has no such surrogate"
    )


def test_detach_leaves_nothing_behind() -> None:
    net = convolutional()
    net.insert(2, Double())
    x = normal(B * T, 2, 6, 6, mean=0.3)
    out = net(x)
    for module in net.modules():
        if hasattr(module, "reset_states"):
            module.reset_states()
    before = {name: vars(m).keys() for name, m in net.named_modules()}
    with rmploss.attach(net), membrane_stats(net) as stats:
        torch.testing.assert_close(net(x), out, rtol=0, atol=0)
    assert len(stats) == 2
    assert {name: vars(m).keys() for name, m in net.named_modules()} == before
