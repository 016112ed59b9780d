"""The latency beside ONNX Runtime: who takes part, and which gates are red."""

import sys

import pytest
import torch
from torch import Tensor

from rmploss.errors import UserError
from rmploss.export.parity import Parity
from rmploss.models.layers import ConvNorm
from rmploss.ops import Spikes
from rmploss.stats import open_stats
from rmploss_bench import gate, latency, onnx
from rmploss_bench.contestants import CONTESTANTS, contestant
from tests.benchmarks.kits import tiny, tiny_workload
from tests.benchmarks.test_timing import silent


def test_one_image_and_a_batch_of_every_contestant() -> None:
    names = ["rmploss-loaded", "rmploss", "onnxruntime", "onnxruntime-int8"]
    results = latency.latency(tiny_workload(), names, 5, silent)
    assert [(result.contestant, result.what) for result in results] == [
        (name, what) for what in (latency.ONE, latency.MANY) for name in names
    ]
    assert [len(result.figures) for result in results] == [5] * 4 + [2] * 4
    assert all(result.median > 0 for result in results)
    assert [result.status for result in results[:4]] == ["green", "green", "green", "no gate"]


def test_every_number_of_threads() -> None:
    counts = [conditions.threads for conditions in latency.variations(tiny())]
    assert counts[0] == 1
    assert counts == sorted({*counts})


def test_its_contestants_exist_and_compute_the_same_logits() -> None:
    assert {*latency.USUAL} <= {*CONTESTANTS}
    workload = tiny_workload()
    found = [contestant(name)(workload, False) for name in ("rmploss-loaded", "onnxruntime")]
    with torch.no_grad():
        ours, theirs = (runner.logits() for runner in found)  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="trains no network"):
        found[1].step()


def test_a_file_with_other_spikes_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = gate.gate(tiny_workload(), train=False)
    assert judge("onnxruntime") == ""
    wrong = Parity("model.onnx", "", 2, spikes_that_differ={"lif1": 3}, spikes={"lif1": 1000})
    monkeypatch.setattr("rmploss.export.parity.of_onnx", lambda *_: wrong)
    assert judge("onnxruntime") == "3 of 1000 spikes differ"


def test_layers_that_give_other_spikes_in_one_pass_are_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workload = tiny_workload()
    assert gate._passes(workload) == []
    monkeypatch.setattr("rmploss.models.layers.inferred", lambda _, __, x, *___: None)
    assert gate._passes(workload) == ["no layer ran in one pass"]
    monkeypatch.setattr("rmploss.models.layers.inferred", _silent)
    assert "layers in one pass give other logits" in gate._passes(workload)


def _silent(layer: ConvNorm, _: object, x: Spikes, *__: object) -> Tensor | None:
    """No spikes, where nobody looks at the membrane."""
    return None if open_stats() is not None else torch.zeros_like(layer(x.dense))


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(onnx.MissingPeerError, match=r"rmploss\[export\]"):
        contestant("onnxruntime")(tiny_workload(), False)
