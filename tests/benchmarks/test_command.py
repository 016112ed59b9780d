"""`rmploss bench`: what it prints, what it keeps, and its exit code."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import rmploss_bench
from rmploss.cli import main
from rmploss_bench import command, timing

TINY = ["--width", "0.0625", "--T", "2", "--batch", "2", "--repeats", "1", "--threads", "1"]


@pytest.mark.parametrize(
    ("topic", "shown"),
    [
        ("step", "step (s)"),
        ("eval", "eval (images/s)"),
        ("latency", "latency (s)"),
        ("memory", "MiB"),
        ("first-step", "first step (s)"),
        ("ops", "norm_lif [2, 2, 4, 32, 32]"),
        ("scale", "T=6 batch=2"),
        ("methods", "vanilla = 1"),
    ],
)
def test_every_topic(topic: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    only = {"methods": ["vanilla", "dsr"], "ops": []}.get(topic, ["rmploss"])
    assert main(["bench", topic, *TINY, *(["--only", *only] if only else [])]) == 0
    out = capsys.readouterr().out
    assert "resnet20" in out
    assert shown in out


def test_rows_for_programs_and_for_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", *TINY, "--only", "rmploss", "dense-bound", "--json", "--out", str(tmp_path)]
    assert main(words) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["contestant"] for line in lines] == ["rmploss", "dense-bound"]
    assert lines[0]["gate"] == "green"
    assert float(lines[0]["ratio_to_dense"]) > 0
    again = "rmploss bench step --network resnet20 --T 2 --batch 2 --width 0.0625 --threads 1 "
    assert lines[0]["command"] == again + "--repeats 1 --only rmploss dense-bound"
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("step-resnet20-")
    assert len(path.read_text().splitlines()) == 3


def test_a_red_gate_is_shown_and_sets_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timing, "gate", lambda case, train: lambda name: "spikes differ")
    assert main(["bench", *TINY, "--only", "rmploss"]) == 1
    assert "gate red: spikes differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "spikingjely"], 'did you mean "spikingjelly"'),
        (["methods", "--only", "tdnb"], 'did you mean "tdbn"'),
        (["methods", "--network", "vgg16"], "--network: is not read by methods"),
        (["ops", "--only", "rmploss"], "--only: is not read by ops"),
        (["first-step", "--data-dir", "."], "--data-dir: is not read by first-step"),
        (["--T", "0"], "T = 0: must be positive"),
        (["--width", "nan"], "width = nan: must be positive"),
        (["--width", "inf"], "width = inf: must be positive"),
        (["--threads", "100000"], "between 1 and 4096"),
        (["--repeats", "0"], "--repeats 0: must be at least 1"),
        (["--device", "tpu"], "device = tpu"),
        (["--data-dir", "/nowhere"], "CIFAR-10 is not complete"),
    ],
)
def test_a_mistake_is_reported_before_anything_runs(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "QUIET_S", 0)
    with command.ticker("[1/2] ") as tick:
        tick("measuring", 3, 8)
    assert capsys.readouterr().err == "[1/2] measuring 3/8\n"


def test_the_help_does_not_wait_for_torch() -> None:
    program = (
        f"import sys; sys.path[:] = {sys.path}; from rmploss.cli import main;"
        " code = main(['bench', '--help']); sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("topic", command.REPEATS)
def test_the_help_of_a_topic_shows_what_it_reads(
    topic: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["bench", topic, "--help"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 60
    assert out.startswith(f"usage: rmploss bench {topic} [-h]")
    assert "epochs of CIFAR-10 per hour" not in out or topic == "epoch"
    shown = {field.name for field in fields(command.Bench) if f"--{flag(field.name)} " in out}
    hidden = {"topic", *command.IGNORED.get(topic, ())}
    assert shown == {field.name for field in fields(command.Bench)} - hidden
    text = " ".join(out.replace("│", " ").split())
    assert f"Rounds; the figure is their median. (default: {command.REPEATS[topic]})" in text


def flag(name: str) -> str:
    return name.replace("_", "-")


def test_it_runs_as_a_module_from_its_folder() -> None:
    folder = Path(rmploss_bench.__file__).parents[1]
    words = [sys.executable, "-m", "rmploss_bench", "step", "--T", "0"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "T = 0: must be positive" in done.stderr
