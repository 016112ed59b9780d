"""ONNX with 8-bit convolutions: each computes what its rounded weights give, to half a unit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rmploss
from rmploss.engine import train
from rmploss.export.graph import graph_of
from rmploss.export.int8 import ZERO, calibrate, round_weight
from rmploss.export.of_run import export_trained
from rmploss.export.to_onnx import onnx_model
from tests.engine.runs import TINY
from tests.export.networks import network

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'rmploss[export]'")


@pytest.mark.parametrize("name", ["convnet", "resnet20", "vgg16"])
def test_every_convolution_is_that_of_its_rounded_weights(name: str) -> None:
    """What a convolution of the file reads, and gives, beside the one of PyTorch in float64.

    The result is rounded to a unit of its scale, so it may differ by half of one; the bias by half
    a unit of the sum.
    """
    net, x = network(name)
    graph = graph_of(net, x)
    rounded = calibrate(graph, x)
    convolutions = [node for node in graph.nodes if isinstance(node.does, nn.Conv2d)]
    assert rounded.keys() == {node.name for node in convolutions}
    model = onnx_model(graph, rounded=rounded)
    written = {node.output[0]: node for node in model.graph.node}
    last = {node.name: f"t{graph.T - 1}/{node.name}" for node in convolutions}
    last[convolutions[0].name] = convolutions[0].name  # before the first neurons, once
    reads = {
        name: written[written[written[last[name]].input[0]].input[0]].input[0] for name in last
    }
    for place in {*last.values(), *reads.values()} - {"x"}:
        info = onnx.helper.make_tensor_value_info(place, onnx.TensorProto.FLOAT, None)
        model.graph.output.append(info)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    places = [output.name for output in session.get_outputs()]
    values = dict(zip(places, session.run(None, {"x": x.numpy()}), strict=True))
    values["x"] = x.numpy()
    for node in convolutions:
        layer, of = node.does, rounded[node.name]
        assert isinstance(layer, nn.Conv2d)
        q, scale = round_weight(layer.weight)
        weight = torch.from_numpy(q.astype(np.float64) * scale.reshape(-1, 1, 1, 1))
        given = torch.from_numpy(values[reads[node.name]]).double()
        if of.x.zero:
            image = (given / of.x.scale).round().clamp(-ZERO, 255 - ZERO)
            given = image * of.x.scale
        else:
            assert np.log2(of.x.scale) % 1 == 0
            assert torch.equal((given / of.x.scale).round() * of.x.scale, given)  # rounded exactly
        bias = None if layer.bias is None else layer.bias.detach().double()
        options: Any = layer.stride, layer.padding, layer.dilation, layer.groups
        expected = F.conv2d(given, weight, bias, *options)
        ends = -ZERO * of.y.scale, (255 - ZERO) * of.y.scale
        error = (torch.from_numpy(values[last[node.name]]) - expected.clamp(*ends)).abs().max()
        assert float(error) <= 0.501 * of.y.scale + 0.501 * float(scale.max()) * of.x.scale
        assert float(expected.abs().max()) > 10 * of.y.scale


def test_weights_are_rounded_to_the_nearest() -> None:
    weight = torch.randn(3, 2, 3, 3)
    q, scale = round_weight(weight)
    assert q.dtype == np.int8
    assert int(q.min()) >= -127
    back = q.astype(np.float64) * scale.reshape(-1, 1, 1, 1)
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
