"""ONNX with 8-bit weights: spikes are rounded exactly, weights to a 254th of their range."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import rmploss
from rmploss.engine import train
from rmploss.export.graph import Graph, graph_of
from rmploss.export.int8 import ZERO, input_scales, round_weight
from rmploss.export.of_run import export_trained
from rmploss.export.parity import of_onnx, reference
from rmploss.export.plain import Unrolled
from rmploss.export.to_onnx import onnx_model
from tests.engine.runs import TINY
from tests.export.networks import network, rounding

pytest.importorskip("onnxruntime", reason="pip install 'rmploss[export]'")


def rounded(graph: Graph) -> Graph:
    """The graph with the weights that 8 bits can say, all but those that read the image."""
    graph = copy.deepcopy(graph)
    for node in graph.nodes[1:]:
        if isinstance(node.does, nn.Conv2d):
            q, scale = round_weight(node.does.weight)
            values = (q.astype(np.float32) - ZERO) * scale.reshape(-1, 1, 1, 1)
            node.does.weight.data = torch.from_numpy(values)
    return graph


@pytest.mark.parametrize("name", ["convnet", "resnet20"])
def test_only_weights_and_the_image_are_rounded(name: str) -> None:
    """Behind the first layer the file computes what the network does with rounded weights."""
    net, x = network(name)
    graph = graph_of(net, x)
    scales = input_scales(graph, x)
    image = graph.nodes[0].name
    assert scales[image].zero == ZERO
    inner = {key: scale for key, scale in scales.items() if key != image}
    assert inner
    assert all(scale.zero == 0 and np.log2(scale.scale) % 1 == 0 for scale in inner.values())
    with torch.no_grad():
        logits, *spikes = Unrolled(rounded(graph), with_spikes=True)(x)
    given = reference(net, x)
    names = [node.name for node in graph.neurons]
    given = type(given)(x, logits, dict(zip(names, spikes, strict=True)))
    content = onnx_model(graph, scales=inner).SerializeToString()
    found = of_onnx("a", content, graph, given)
    assert found.failure == ""
    assert sum(found.spikes_that_differ.values()) == 0
    assert found.max_logit_difference <= rounding(graph)


def test_weights_are_rounded_to_the_nearest() -> None:
    weight = torch.randn(3, 2, 3, 3)
    q, scale = round_weight(weight)
    assert q.dtype == np.uint8
    assert int(q.min()) >= 1
    back = (q.astype(np.float64) - ZERO) * scale.reshape(-1, 1, 1, 1)
    error = np.abs(back - weight.double().numpy()).reshape(3, -1).max(1)
    assert (error <= scale * 0.5001).all()


def test_accuracy_and_time_stand_beside_those_of_float32(tmp_path: Path) -> None:
    run = train.train(TINY, tmp_path / "runs")
    export_trained(rmploss.load(run), ["onnx-int8"], tmp_path / "out", samples=16)
    records = json.loads((tmp_path / "out" / "int8.json").read_text())
    assert [record["file"] for record in records] == ["model.onnx", "model-int8.onnx"]
    assert all(record["samples"] == 16 and record["ms"] > 0 for record in records)
    assert (tmp_path / "out" / "model-int8.onnx").is_file()
    assert not (tmp_path / "out" / "model.onnx").exists()
