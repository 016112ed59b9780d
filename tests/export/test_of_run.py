"""`rmploss export`: the files of a run, each compared with its network in its runtime."""

import json
from pathlib import Path

import pytest
import torch

import rmploss
from rmploss.cli import main
from rmploss.engine import train
from rmploss.errors import UserError
from rmploss.export import to_torch_export, to_torchscript
from rmploss.export.graph import graph_of
from rmploss.export.of_run import export_trained
from rmploss.export.to_torch import run_exported, run_scripted
from tests.engine.runs import TINY
from tests.export.networks import network, rounding

pytest.importorskip("onnxruntime", reason="pip install 'rmploss[export]'")
pytest.importorskip("nir", reason="pip install 'rmploss[export]'")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train.train(TINY, tmp_path_factory.mktemp("runs"))


def test_the_files_of_a_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(run), "--to", "onnx", "nir", "--out", str(tmp_path), "--samples", "8"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "0 of" in out
    assert "same class for 8 of 8" in out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model.onnx", "model-step.onnx", "model.nir", "parity.json"}
    records = json.loads((tmp_path / "parity.json").read_text())
    ran = [record for record in records if not record["failure"]]
    assert {record["file"] for record in ran} == names - {"parity.json"}
    assert all(record["samples"] == 8 for record in records)
    assert all(sum(record["spikes_that_differ"].values()) == 0 for record in ran)
    assert {*records[0]["spikes"]} == {"lif1", "lif2", "lif3"}


def test_wrong_words(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--out", str(tmp_path)]) == 2
    assert "no format was named" in capsys.readouterr().err
    with pytest.raises(UserError, match='did you mean "onnx"'):
        export_trained(rmploss.load(run), ["onx"], tmp_path)
    assert not [*tmp_path.iterdir()]


def test_the_formats_of_pytorch(tmp_path: Path) -> None:
    net, x = network("convnet")
    program = to_torch_export(net, x, tmp_path / "net.pt2")
    script = to_torchscript(net, x, tmp_path / "net.pt")
    for batch in (1, 3):
        many = torch.randn(batch, *x.shape[1:])
        with torch.no_grad():
            expected = net(many)
        for found in (
            run_exported(program.read_bytes(), many),
            run_scripted(script.read_bytes(), many),
        ):
            torch.testing.assert_close(found, expected, rtol=0, atol=rounding(graph_of(net, x)))
