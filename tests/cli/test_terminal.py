"""The output of a run: a line per epoch, a bar on a terminal, JSON for programs."""

import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rmploss import recipes
from rmploss.cli import terminal
from rmploss.cli.terminal import Bar, JsonLines, TextLines, clock, epoch_line, listener
from rmploss.engine.title import title
from tests.engine.runs import TINY

RECORD: dict[str, Any] = {
    "epoch": 7,
    "train_loss": 0.5,
    "train_accuracy": 91.25,
    "test_accuracy": 90.0,
    "quantization_error": 0.125,
    "firing_rate": 0.0625,
    "lambda": 0.05,
    "train_s": 1.5,
    "test_s": 0.5,
}
FOLDER = Path("runs/x")


def test_an_epoch_is_one_line() -> None:
    assert epoch_line(RECORD, 400) == (
        "epoch   7/400  test 90.00 %  quantization error 0.1250  loss 0.500  train 91.25 %  "
        "rate 0.062  lambda 0.050  2.0 s"
    )


@pytest.mark.parametrize("kind", [TextLines, Bar])
def test_a_run_with_validation_is_not_said_to_be_tested(
    kind: type[TextLines], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = TextLines(sys.stderr) if kind is TextLines else Bar()
    lines.begin(TINY.but(validation=0.25), FOLDER, epoch=0, device="cpu")
    lines.epoch(RECORD)
    if isinstance(lines, Bar):
        lines.batch("test", 1, 2, 4)
        assert lines.progress is not None
        assert "validation 2/4" in lines.progress.tasks[0].description
    lines.end({})
    shown = capsys.readouterr().err
    assert "validation 90.00 %" in shown
    assert "test 90.00 %" not in shown


@pytest.mark.parametrize("width", [80, 60, 40, 20, 5])
def test_it_is_cut_between_two_numbers(width: int) -> None:
    whole, cut = epoch_line(RECORD, 400), epoch_line(RECORD, 400, width)
    assert whole.startswith(cut + "  ")
    assert len(cut) <= max(width, len("epoch   7/400"))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (90000, "25:00:00")],
)
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_text_lines_are_few_and_say_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    out = io.StringIO()
    lines = TextLines(out)
    lines.begin(TINY, FOLDER, epoch=0, device="cpu")
    for batch in range(1, 11):
        now += 10.0
        lines.batch("train", 1, batch, 20, loss=0.5)
    lines.batch("test", 1, 1, 2)
    lines.loading("digits", 1, 2)
    shown = out.getvalue().splitlines()
    # One line per 30 s; 3 of 40 batches took 30 s, so that 370 s are left.
    speed = TINY.batch_size / 10
    assert speed < 10
    assert shown[2] == f"epoch 1/2  batch 3/20  {speed:.1f} images/s  loss 0.500  left 0:06:10"
    assert [line.split("  ")[1] for line in shown[2:]] == ["batch 3/20", "batch 6/20", "batch 9/20"]


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ({}, ""),
        ({"T": 2, "seed": 1, "objective.k": 1.0}, ""),
        ({"objective": "none"}, ", changed: objective = none"),
        ({"objective.k": 0.5, "lr": 0.5}, ", changed: objective.k = 0.5, lr = 0.5"),
        ({"train_samples": None, "network.width": 0.5}, ", changed: network.width = 0.5"),
    ],
)
def test_the_title_says_what_was_changed(words: dict[str, Any], changed: str) -> None:
    recipe = recipes.get("digits-rmp")
    named = "convnet on digits without RMP-Loss" if "objective" in words else recipe.title
    assert title(recipes.override(recipe, words)) == named + changed
    unknown = recipes.override(recipe, words).but(name="mine")
    assert title(unknown) == recipe.title


def test_json_knows_no_nan() -> None:
    out = io.StringIO()
    lines = JsonLines(out)
    lines.begin(TINY, FOLDER, epoch=3, device="cpu")
    lines.epoch(RECORD | {"test_ce": math.nan, "layers": {"lif1": {"rate": math.inf}}})
    lines.end({"epochs": 4})
    begin, epoch, end = (json.loads(line, parse_constant=_refuse) for line in _lines(out))
    assert begin == {
        "event": "begin",
        "run": "runs/x",
        "recipe": "digits-rmp",
        "epoch": 3,
        "device": "cpu",
    }
    assert (epoch["test_ce"], epoch["layers"]) == (None, {"lif1": {"rate": None}})
    assert epoch["train_accuracy"] == 91.25
    assert end == {"event": "end", "epochs": 4}


def test_the_listener_fits_the_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(listener(json_lines=True), JsonLines)
    assert type(listener(json_lines=False)) is TextLines
    monkeypatch.setattr(terminal.sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(listener(json_lines=False), Bar)


@pytest.mark.parametrize("width", [100, 40, 20])
def test_a_bar_shows_where_the_run_is_and_what_is_left(width: int) -> None:
    out = io.StringIO()
    bar = Bar()
    bar.console = Console(file=out, force_terminal=True, width=width, height=20, highlight=False)
    bar.loading("digits", 1, 2)
    bar.loading("digits", 2, 2)
    bar.begin(TINY, FOLDER, epoch=0, device="cpu")
    for batch in range(1, 5):
        bar.batch("train", 1, batch, 4, loss=0.5)
    bar.batch("test", 1, 1, 2)
    assert bar.progress is not None
    (task,) = bar.progress.tasks
    assert (task.completed, task.total) == (1.0, 2.0)
    assert "epoch 1/2" in task.description
    bar.epoch(RECORD)
    bar.end({})
    bar.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert epoch_line(RECORD, 2, width) in plain
    assert "left" in plain
    assert out.getvalue().endswith("\x1b[2K") or out.getvalue().count("\x1b[?25h")  # cursor back


@pytest.mark.parametrize("width", [150, 100, 60])
def test_the_times_are_named_and_never_cut(width: int) -> None:
    out = io.StringIO()
    bar = Bar()
    bar.console = Console(file=out, force_terminal=True, width=width, height=20, highlight=False)
    bar.begin(TINY, FOLDER, epoch=0, device="cpu")
    assert bar.progress is not None
    for batch in (17, 18):
        bar.batch("train", 2, batch, 391, loss=2.345, lam=0.5, grad_norm=1.25)
        bar.progress.refresh()
    bar.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    line = [line for line in plain.replace("\r", "\n").splitlines() if "18/391" in line][-1]
    share = r"\d%  ?elapsed \d+:\d\d:\d\d " if width >= 80 else ""
    assert re.search(share + r"left (\d+:\d\d|-:--):(\d\d|--)", line), line
    assert re.match(r"epoch 2/2  train 18/391  \d+ images/s ", line), line
    assert len(line) <= width
    assert ("━" in line) == (width >= 100)


def test_the_speed_is_that_of_the_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    speed = terminal.Speed(batch_size=100)
    assert speed.see("train", 1, 41) == ""  # of a resumed epoch
    now = 2.0
    assert speed.see("train", 1, 45) == "200 images/s"
    assert speed.see("test", 1, 1) == ""
    now = 102.0
    assert speed.see("test", 1, 2) == "1.0 images/s"
    assert speed.see("train", 2, 1) == ""


def _lines(out: io.StringIO) -> list[str]:
    return out.getvalue().splitlines()


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def test_what_is_waited_for_is_shown_until_the_run_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(terminal.sys, "stderr", out)
    bar = Bar("preparing the run")
    bar.console = Console(file=out, force_terminal=True, width=80, height=20, highlight=False)
    assert out.getvalue() == "\r\x1b[Kpreparing the run ..."
    bar.note("a remark")
    assert out.getvalue().endswith("\r\x1b[Ka remark\n\r\x1b[Kpreparing the run ...")
    bar.begin(TINY, FOLDER, epoch=0, device="cpu")
    bar.note("begun")
    bar.close()
    after = out.getvalue().rpartition("preparing the run ...")[2]
    assert after.startswith("\r\x1b[K")
    assert "begun" in after
