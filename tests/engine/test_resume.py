"""A run that was interrupted and resumed equals an unbroken one bit for bit."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rmploss.engine.distributed import World
from rmploss.engine.execution import Execution, inexact_reasons, placement
from rmploss.engine.load import evaluate_run
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.errors import InterruptedRunError
from tests.engine.runs import TINY, Interrupting, digest_of, untimed_metrics


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    return train(TINY, tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize(
    ("phase", "epoch", "done", "number"),
    [
        ("train", 1, 1, signal.SIGTERM),
        ("train", 1, 3, signal.SIGINT),
        ("train", 1, 4, signal.SIGTERM),
        ("test", 1, 1, signal.SIGTERM),
        ("train", 2, 2, signal.SIGHUP),
    ],
)
def test_a_signal_at_any_point_leaves_a_checkpoint_to_go_on_from(
    phase: str, epoch: int, done: int, number: signal.Signals, unbroken: Path, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError, match=r"rmploss train --resume") as stopped:
        train(TINY, tmp_path, listener=Interrupting(phase, epoch, done, number))
    assert stopped.value.exit_code == 75
    (path,) = tmp_path.iterdir()
    assert not (path / "result.json").exists()
    assert resume(path) == path
    assert digest_of(path) == digest_of(unbroken)
    assert untimed_metrics(path) == untimed_metrics(unbroken)


def test_the_digest_sees_another_seed(unbroken: Path, tmp_path: Path) -> None:
    other = train(TINY.but(seed=1), tmp_path)
    assert digest_of(other) != digest_of(unbroken)


def test_loader_processes_change_nothing(unbroken: Path, tmp_path: Path) -> None:
    assert digest_of(train(TINY, tmp_path, Execution(workers=1))) == digest_of(unbroken)


@pytest.mark.parametrize(("phase", "epoch", "done"), [("train", 1, 2), ("train", 2, 3)])
def test_kill_9_loses_only_what_came_after_the_last_checkpoint(
    phase: str, epoch: int, done: int, unbroken: Path, tmp_path: Path
) -> None:
    words = (
        "import torch; torch.set_num_threads(1); import signal; from pathlib import Path; "
        "from rmploss.engine.train import train; "
        "from tests.engine.runs import TINY, Interrupting; "
        f"train(TINY, Path({str(tmp_path)!r}), "
        f"listener=Interrupting({phase!r}, {epoch}, {done}, signal.SIGKILL))"
    )
    died = subprocess.run([sys.executable, "-c", words], check=False, timeout=120)
    assert died.returncode == -signal.SIGKILL
    (path,) = tmp_path.iterdir()
    assert digest_of(resume(path)) == digest_of(unbroken)


def test_a_finished_run_is_left_alone(unbroken: Path) -> None:
    def content() -> dict[str, bytes]:
        files = (file for file in unbroken.rglob("*") if file.is_file())
        return {str(file): file.read_bytes() for file in files}

    before = content()
    assert resume(unbroken) == unbroken
    assert content() == before


def test_the_folder_tells_the_whole_story(unbroken: Path) -> None:
    folder = RunFolder.open(unbroken)
    assert [record["epoch"] for record in folder.metrics()] == [1, 2]
    assert [record["lambda"] for record in folder.metrics()] == [1.0, 0.0]  # k = 1: n/N = 1/2, 1
    assert folder.events()[0]["event"] == "start"
    result = json.loads((unbroken / "result.json").read_text())
    assert result["epochs"] == 2
    assert result["best_accuracy"] >= result["last_accuracy"]
    membrane = json.loads((unbroken / "membrane.json").read_text())
    assert [layer["layer"] for layer in membrane["layers"]] == ["lif1", "lif2", "lif3"]
    assert membrane["figure_layer"] == "lif2"
    of_input = evaluate_run(unbroken, potential="input")
    assert membrane["input"] == {
        "samples": of_input.samples,
        "quantization_error": of_input.quantization_error,
        "quantization_error_of_elements": of_input.quantization_error_of_elements,
    }
    assert of_input.quantization_error != result["quantization_error"]


def test_lines_that_are_no_metrics_are_dropped(unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        train(TINY, tmp_path, listener=Interrupting("train", 2, 2, signal.SIGTERM))
    (path,) = tmp_path.iterdir()
    with (path / "metrics.jsonl").open("a") as file:
        file.write(
            '{"epoch": "a", "step": 1}\n{"epoch": 1, "step": 1, "test_accuracy": null}\n{"ep'
        )
    resume(path)
    assert untimed_metrics(path) == untimed_metrics(unbroken)


@pytest.mark.parametrize(
    ("before", "now", "reasons"),
    [
        ("fastest", True, ["cuDNN took its fastest kernels before"]),
        ("deterministic", True, []),
        (None, True, []),  # of a version that recorded none
        ("fastest", False, ["cuDNN takes its fastest kernels, which --deterministic would not"]),
    ],
)
def test_kernels_that_round_otherwise_are_said(
    before: str | None, now: bool, reasons: list[str]
) -> None:
    gpu = World(device=torch.device("cuda", 0))
    here = placement(gpu, deterministic=now)
    event = {**here, "event": "execute", "kernels": before}
    if before is None:
        del event["kernels"]
    loaded: Any = SimpleNamespace(versions=here["versions"], threads=here["threads"])
    assert inexact_reasons(loaded, [event], gpu, deterministic=now) == reasons
