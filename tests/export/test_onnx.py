"""ONNX Runtime computes the spikes of the network, all of them, and its logits up to rounding."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rmploss.errors import UserError
from rmploss.export import to_onnx
from rmploss.export.graph import graph_of
from rmploss.export.parity import of_onnx, of_onnx_loop, of_onnx_step, reference
from rmploss.export.to_onnx import onnx_model
from tests.export.networks import NEURONS, T, network, rounding

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'rmploss[export]'")


@pytest.mark.parametrize("static", [True, False], ids=["image", "sequence"])
@pytest.mark.parametrize("name", ["convnet", "resnet20", "sew-resnet18", "cifarnet", "vggsnn"])
def test_all_steps_and_single_steps(name: str, static: bool) -> None:
    net, x = network(name, static)
    check(net, x)


@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
def test_every_setting_of_lif(neuron: Any) -> None:
    check(*network("convnet", neuron=neuron))


def check(net: Any, x: torch.Tensor) -> None:
    """Both forms of a network have its spikes and logits."""
    graph, given = graph_of(net, x), reference(net, x)
    whole = of_onnx("a", onnx_model(graph).SerializeToString(), graph, given)
    step = of_onnx_step("b", onnx_model(graph, form="step").SerializeToString(), graph, given)
    repeated = onnx_model(graph, form="loop").SerializeToString()
    loop = of_onnx_loop("c", repeated, graph, given)
    assert whole.failure == step.failure == loop.failure == ""
    assert sum(whole.spikes_that_differ.values()) == 0
    assert whole.spikes.keys() == given.spikes.keys() & {node.name for node in graph.neurons}
    differences = (found.max_logit_difference for found in (whole, step, loop))
    assert max(differences) <= rounding(graph)
    assert whole.top1_agreement == step.top1_agreement == loop.top1_agreement == 1
    assert whole.largest_logit > 0


def test_the_batch_size_is_free(tmp_path: Path) -> None:
    net, x = network("convnet")
    path = to_onnx(net, x[:1], tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        many = torch.randn(batch, *x.shape[1:])
        (found,) = session.run(None, {"x": many.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, net(many), atol=rounding(graph_of(net, x)), rtol=0)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts == {"rmploss.form": "sequence", "rmploss.T": str(T), "rmploss.readout": "sum"}


@pytest.mark.parametrize("readout", ["sum", "mean"])
@pytest.mark.parametrize("static", [True, False], ids=["image", "sequence"])
def test_a_loop_takes_any_number_of_steps(static: bool, readout: str, tmp_path: Path) -> None:
    net, x = network("convnet", static, readout=readout)
    path = to_onnx(net, x, tmp_path / "net.onnx", form="loop")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for steps in (1, T + 2):
        many = torch.randn(2, *x.shape[1:]) if static else torch.randn(steps, 5, *x.shape[2:])
        inputs = {"x": many.numpy()} | ({"T": np.array(steps)} if static else {})
        (found,) = session.run(None, inputs)
        net.T = steps
        with torch.no_grad():
            expected = net(many)
        allowed = rounding(graph_of(net, many))
        np.testing.assert_allclose(found, expected, atol=allowed, rtol=0)


@pytest.mark.parametrize("readout", ["sum", "mean"])
@pytest.mark.parametrize("static", [True, False], ids=["image", "sequence"])
def test_a_loop_of_no_steps_fails_by_name(static: bool, readout: str, tmp_path: Path) -> None:
    net, x = network("convnet", static, readout=readout)
    path = to_onnx(net, x, tmp_path / "net.onnx", form="loop")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for steps in (0, -1) if static else (0,):
        inputs = {"x": x.numpy(), "T": np.array(steps)} if static else {"x": x[:0].numpy()}
        with pytest.raises(Exception, match=r"T, at least 1.*out of data bounds"):
            session.run(None, inputs)


def test_a_changed_weight_is_noticed() -> None:
    net, x = network("convnet")
    graph, given = graph_of(net, x), reference(net, x)
    with torch.no_grad():
        graph.nodes[0].does.weight.mul_(1.1)  # pyright: ignore
    found = of_onnx("a", onnx_model(graph).SerializeToString(), graph, given)
    assert found.spikes_that_differ["lif1"] > 0
    assert found.max_logit_difference > rounding(graph)


def test_a_padding_that_onnx_cannot_say_is_named() -> None:
    net, x = network("convnet")
    net.conv1.conv.padding_mode = "circular"  # pyright: ignore
    net.conv1.conv._reversed_padding_repeated_twice = [1, 1, 1, 1]  # pyright: ignore
    with pytest.raises(UserError, match=r"conv1\.conv\.padding .*circular"):
        onnx_model(graph_of(net, x))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network("convnet")
    graph, real = graph_of(net, x), builtins.__import__

    def no_onnx(name: str, *arguments: Any) -> Any:
        if name == "onnx":
            raise ImportError("No module named 'onnx'")
        return real(name, *arguments)

    monkeypatch.setattr("importlib.import_module", lambda name: no_onnx(name))
    with pytest.raises(UserError, match=r"pip install 'rmploss\[export\]'"):
        onnx_model(graph)
