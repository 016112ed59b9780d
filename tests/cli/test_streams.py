"""Output to closed streams, files, narrow or simple terminals: messages, no traceback."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmploss import recipes
from rmploss.cli import main
from tests.engine.runs import TINY

SMALL = (
    f"--epochs {TINY.epochs} --T {TINY.T} --width 0.125 --batch-size {TINY.batch_size} "
    f"--train-samples {TINY.train_samples} --test-samples {TINY.test_samples} --device cpu"
).split()


def shell(words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line in `sh`, with `rmploss` as a command."""
    return subprocess.run(
        ["sh", "-c", words.replace("rmploss", f"{sys.executable} -m rmploss")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
        timeout=300,
    )


def test_closed_streams_are_no_error() -> None:
    assert shell("rmploss list >&-").returncode == 0
    assert "digits-rmp" in shell("rmploss list 2>&- <&-").stdout
    wrong = shell("rmploss train digts >&- 2>&-")
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", "")


def test_a_terminal_that_knows_only_ascii() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell("rmploss table 2", **plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert "95.31 ? 0.07" in done.stdout


@pytest.mark.parametrize("verb", ["", "train", "list"])
def test_a_narrow_terminal(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert main([*verb.split(), "--help"]) == 0
    assert "rmploss" in capsys.readouterr().out


def test_without_a_terminal_there_are_plain_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "digits", *SMALL, "--runs-dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    (run,) = tmp_path.iterdir()
    # So small a network is unhealthy, of which a line warns.
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    title, place, *epochs, report = lines
    changes = "network.width = 0.125, epochs = 2, batch_size = 32, train_samples = 128, "
    changes += "test_samples = 64"
    assert title == f"{recipes.get('digits').title}, changed: {changes}"
    assert place == f"T=2, seed 0, on cpu: {run}"
    assert [line[:9] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert report == f"report: rmploss report {run}"


class Gone(io.StringIO):
    """A stream whose reader goes away after the first line."""

    def write(self, text: str) -> int:
        if "\n" in self.getvalue():
            raise BrokenPipeError
        return super().write(text)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_training_outlives_its_listener(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = Gone(), Gone()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["train", "digits", *SMALL, "--runs-dir", str(tmp_path), *options]) == 0
    (run,) = tmp_path.iterdir()
    assert (run / "result.json").is_file()
    heard = out if options else err
    assert len(heard.getvalue().splitlines()) == 1


def test_a_finished_run_is_left_alone_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "digits", *SMALL, "--runs-dir", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    end = capsys.readouterr().out.splitlines()[-1]
    (run,) = tmp_path.iterdir()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert main(["train", "--resume", str(run)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"{run} is finished, all files are intact: nothing to do",
        f"report: rmploss report {run}",
    ]
    assert main(["train", "--resume", str(run), "--json"]) == 0
    note, again = capsys.readouterr().out.splitlines()
    text = f"{run} is finished, all files are intact: nothing to do"
    assert json.loads(note) == {"event": "note", "text": text}
    assert again == end
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
