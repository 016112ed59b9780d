"""A graph of layers computes what its network computes, bit for bit."""

import copy
from typing import Any

import pytest
import torch

from rmploss import ops
from rmploss.errors import UserError
from rmploss.export.graph import INPUT, graph_of
from rmploss.export.plain import Step, Unrolled
from rmploss.lifecycle import fold
from tests.export.networks import NEURONS, network

CASES: list[tuple[str, dict[str, Any]]] = [
    ("convnet", {}),
    ("convnet", {"readout": "mean"}),
    ("resnet20", {}),
    ("resnet20", {"connect": "add"}),
    ("resnet20", {"connect": "iand"}),
    ("resnet19", {"hidden_fc": 16}),
    ("resnet18-cifar", {}),
    ("vgg16", {}),
    ("cifarnet", {}),
    ("sew-resnet18", {}),
    ("vggsnn", {}),
    ("joint", {}),
]


@pytest.mark.parametrize("static", [True, False], ids=["image", "sequence"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_the_graph_computes_what_the_folded_network_does(
    name: str, options: dict[str, Any], static: bool
) -> None:
    net, x = network(name, static, **options)
    graph = graph_of(net, x)
    folded = fold(copy.deepcopy(net))
    with torch.no_grad(), ops.use_backend("reference"):
        expected = folded(x)
        found, *spikes = Unrolled(graph, with_spikes=True)(x)
    assert torch.equal(found, expected)
    assert {node.name for node in graph.neurons} <= {name for name, _ in net.named_modules()}
    assert all(0.005 < float(each.mean()) < 0.995 for each in spikes[:2])


@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
def test_every_setting_of_lif_is_the_same_in_single_steps(neuron: Any) -> None:
    net, x = network("convnet", static=False, neuron=neuron)
    graph = graph_of(net, x)
    step = Step(graph)
    state, total = step.at_rest(2), torch.zeros(2, 10)
    with torch.no_grad(), ops.use_backend("reference"):
        for frame in x:
            outputs, *state = step(frame, *state)
            total = total + outputs
        expected = fold(copy.deepcopy(net))(x)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)
    assert len(state) == 3
    assert float(expected.abs().max()) > 0


def test_the_network_stays_as_it_is() -> None:
    net, x = network("convnet")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph_of(net, x)
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_layer_that_runs_twice_is_two_nodes() -> None:
    net, x = network("convnet")
    graph = graph_of(net, x)
    assert [node.name for node in graph.nodes if "halve" in node.name] == [
        "halve.layer",
        "halve.layer_2",
    ]
    assert graph.nodes[0].inputs == (INPUT,)
    assert graph.nodes[0].shape == (4, 16, 16)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("tssl-cifarnet", {}, "lif8: are TSSL neurons"),
        ("preact-resnet18", {}, r"norm1: \w+\(\) of PyTorch"),
    ],
)
def test_what_a_graph_cannot_hold_is_named(name: str, options: Any, named: str) -> None:
    net, x = network(name, **options)
    with pytest.raises(UserError, match=named):
        graph_of(net, x)
