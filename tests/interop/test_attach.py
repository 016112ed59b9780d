"""`attach` whatever the library: what it records, what it leaves alone, what it refuses."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rmploss
from rmploss import LIF, RMPLoss, UserError, membrane_stats
from rmploss.objectives.im import IMLoss
from rmploss.objectives.recdis import RecDisLoss
from tests.given import normal
from tests.interop import loop
from tests.interop.peers import peer

SHAPE = (4, 3, 5, 2)


def node(**options: Any) -> Any:
    """A node of SpikingJelly in multi-step mode."""
    return peer("spikingjelly.activation_based.neuron").LIFNode(step_mode="m", **options).double()


def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes and membranes of `node()`, tau = 2."""
    neuron = loop.Neuron(derivative=loop.sigmoid(), decay=0.5, gain=0.5)
    return loop.run(x, neuron)[:2]


def test_every_regularizer_of_the_family_takes_the_entry() -> None:
    made, x = node(), normal(*SHAPE, mean=0.8)
    o, u = oracle(x)
    mean, std = u.mean((0, 1, 3)), u.std((0, 1, 3), correction=0)
    distance = (mean - 0.5).abs()
    expected = {
        RMPLoss(k=1.0): (o - u).square().mean(),
        IMLoss(weight=1.0): distance.square().mean(),
        RecDisLoss(): (
            (distance.square() - std.square()).clamp(min=0)
            + (1 - distance - std).clamp(min=0).square()
            + (std - 2).clamp(min=0).square()
        ).mean(),
    }
    rmploss.attach(made)
    for regularizer, value in expected.items():
        made.reset()
        with membrane_stats(made, regularizer.spec) as stats:
            made(x)
        loop.close(regularizer.value(stats), value)
        assert regularizer.remarks(stats) == []  # the threshold is 1/2 in the unit of Eq. 8


def test_an_entry_has_the_name_in_the_network_of_the_block() -> None:
    inner = nn.Sequential(node(), node())
    outer = nn.ModuleDict({"body": inner})
    rmploss.attach(inner)
    for net, names in ((inner, ["0", "1"]), (outer, ["body.0", "body.1"])):
        with membrane_stats(net) as stats:
            inner(normal(*SHAPE))
        assert [entry.name for entry in stats] == names
    with membrane_stats(inner) as around, membrane_stats(inner) as inside:
        inner(normal(*SHAPE))
    assert (len(around), len(inside)) == (0, 2)


def test_layers_of_both_packages_record_side_by_side() -> None:
    net = nn.Sequential(node(), LIF(5))
    rmploss.attach(net)
    with membrane_stats(net) as stats:
        net(normal(*SHAPE))
    assert [entry.name for entry in stats] == ["0", "1"]


def test_without_a_layer_there_is_nothing_to_attach_to() -> None:
    with pytest.raises(
        UserError, match="Sequential has no spiking layer of spikingjelly, snntorch"
    ):
        rmploss.attach(nn.Sequential(LIF(3), nn.ReLU()))
    with pytest.raises(UserError, match="net = 3"):
        rmploss.attach(3)  # pyright: ignore[reportArgumentType]


def test_replicas_in_threads_are_refused() -> None:
    made = node()
    with pytest.raises(UserError, match="one process per GPU"):
        rmploss.attach(nn.DataParallel(made))
    rmploss.attach(made)
    with pytest.raises(UserError, match="one process per GPU"):
        made._replicate_for_data_parallel()


def test_no_library_is_imported_for_a_network_without_its_layers() -> None:
    code = (
        "import sys, torch, rmploss\n"
        "try: rmploss.attach(torch.nn.Linear(2, 2))\n"
        "except rmploss.UserError: pass\n"
        "print([n for n in ('spikingjelly', 'snntorch', 'norse', 'sinabs') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_forward_of_the_user_stays() -> None:
    made, x = node(), normal(*SHAPE)

    def doubled(current: Tensor) -> Tensor:
        return type(made).forward(made, 2 * current)

    made.forward = doubled
    attached = rmploss.attach(made, fast=False)
    with membrane_stats(made) as stats:
        made(x)
    assert len(stats) == 1
    attached.detach()
    assert made.forward is doubled

    attached = rmploss.attach(made, fast=False)
    made.forward = lambda current: current
    with pytest.raises(UserError, match=r"\.forward: was replaced after attach"):
        attached.detach()


def test_a_layer_that_hides_its_membrane_is_no_silent_gap() -> None:
    base = peer("spikingjelly.activation_based.neuron").SimpleLIFNode

    class Hidden(base):
        def single_step_forward(self, x: Tensor) -> Tensor:
            return (x > 0).to(x)

    made = Hidden(2.0, True)
    rmploss.attach(made)
    made(torch.ones(2, 3))
    with membrane_stats(made), pytest.raises(UserError, match="Hidden cannot be observed"):
        made(torch.ones(2, 3))


def test_an_error_inside_leaves_the_module_as_it_is() -> None:
    made = peer("snntorch").Leaky(beta=0.5)
    rmploss.attach(made)
    with membrane_stats(made), pytest.raises(AttributeError):
        made("no tensor")
    assert "fire" not in vars(made)


def test_checkpointed_steps_count_once() -> None:
    made, linear = node(), nn.Linear(2, 2, bias=False).double()
    made.reset()
    rmploss.attach(made)
    x = normal(*SHAPE, mean=0.8)

    def body(maps: Tensor) -> Tensor:
        made.reset()
        return made(linear(maps))

    with membrane_stats(made) as stats:
        body(x).sum().backward(retain_graph=True)
    plain = stats.layers[0].moments
    with membrane_stats(made) as stats:
        out = rmploss.checkpoint(body, x)
        (out.sum() + stats.layers[0].moments.sum()).backward()
    assert len(stats) == 1
    torch.testing.assert_close(stats.layers[0].moments, plain, rtol=0, atol=0)


@pytest.mark.parametrize("fast", [True, False])
def test_under_compile_the_entry_is_the_same(fast: bool) -> None:
    made, x = node(), normal(*SHAPE, mean=0.8)
    net = nn.Sequential(nn.Linear(2, 2), made).double()
    rmploss.attach(net, fast=fast)
    torch.compiler.reset()
    compiled = torch.compile(net, backend="eager")
    found = []
    for forward in (compiled, net):
        made.reset()
        with membrane_stats(net) as stats:
            out = forward(x)
        found.append((out, stats.layers[0].moments, len(stats)))
    assert found[0][2] == found[1][2] == 1
    torch.testing.assert_close(found[0][:2], found[1][:2], rtol=0, atol=0)
