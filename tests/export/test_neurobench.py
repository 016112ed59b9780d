"""NeuroBench counts in our networks what it counts in any, beside what we count ourselves."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from rmploss.analysis.cost import inference_cost
from rmploss.engine import train
from rmploss.errors import UserError
from rmploss.export import to_neurobench
from rmploss.export.parity import reference
from tests.engine.runs import TINY
from tests.export.networks import network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    neurobench: Any = pytest.importorskip(
        "neurobench.benchmarks", reason="pip install 'rmploss[neurobench]'"
    )
    workload: Any = pytest.importorskip("neurobench.metrics.workload")
    static: Any = pytest.importorskip("neurobench.metrics.static")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [False, True], ids=["image", "sequence"])
@pytest.mark.parametrize("name", ["convnet", "resnet20"])
def test_its_metrics_beside_ours(name: str, steps: bool) -> None:
    net, x = network(name, static=not steps)
    with torch.no_grad():
        labels = net(x).argmax(1)
    labels[0] = (labels[0] + 1) % 10  # one of two is wrong
    loader = DataLoader(TensorDataset(x.movedim(0, 1) if steps else x, labels), batch_size=2)
    metrics = [
        [static.ParameterCount],
        [
            workload.ClassificationAccuracy,
            workload.SynapticOperations,
            workload.ActivationSparsity,
        ],
    ]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    benchmark = neurobench.Benchmark(to_neurobench(net), loader, [], [], metrics)
    with torch.no_grad():
        found = benchmark.run(quiet=True)
    assert found["ClassificationAccuracy"] == 0.5
    assert found["ParameterCount"] == sum(parameter.numel() for parameter in net.parameters())
    ours = inference_cost(net, [(x, labels)])
    theirs = found["SynapticOperations"]
    both = theirs["Effective_ACs"] + theirs["Effective_MACs"]
    assert both == ours.accumulations + ours.multiplications
    assert theirs["Effective_ACs"] <= ours.accumulations
    assert (theirs["Effective_ACs"] > 0) is (name == "resnet20")  # the other pools all its spikes
    assert theirs["Dense"] > both
    spikes = reference(net, x).spikes.values()
    fired = sum(float((each != 0).sum()) for each in spikes) / sum(each.numel() for each in spikes)
    assert found["ActivationSparsity"] == pytest.approx(1 - fired, abs=1e-12)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_the_example_of_the_document_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```py\n(.*?)```", document, re.DOTALL)
    (example,) = [block for block in blocks if "neurobench" in block]
    run = train.train(TINY.but(epochs=1), tmp_path / "runs")
    run.rename(tmp_path / "runs" / "NAME")
    Image.new("L", (8, 8), 120).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert "Effective_ACs" in capsys.readouterr().out


def test_what_is_no_network_is_told() -> None:
    with pytest.raises(UserError, match="net = "):
        to_neurobench(torch.nn.Linear(1, 1))  # pyright: ignore[reportArgumentType]
