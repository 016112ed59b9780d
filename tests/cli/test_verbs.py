"""Every verb of the command line."""

import json
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rmploss import ops, recipes
from rmploss.cli import main, terminal
from rmploss.engine.listener import Listener
from rmploss.ops import native
from rmploss.report import recorded
from tests.engine.runs import TINY

VERBS = (
    "demo",
    "list",
    "train",
    "eval",
    "predict",
    "export",
    "search",
    "pack",
    "verify",
    "table",
    "report",
    "bench",
    "data",
    "doctor",
)
SMALL = ["--epochs", "1", "--train-samples", "64", "--test-samples", "32"]
SMALL += ["--batch-size", "32", "--width", "0.125", "--T", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made from the command line."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["train", "digits-rmp", *SMALL, "--runs-dir", str(runs)]) == 0
    (path,) = runs.iterdir()
    return path


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f"rmploss {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("verb", VERBS)
def test_every_help_fits_the_terminal_and_has_no_empty_default(
    verb: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("(default: False)", "(default: )", "(default: None)", "{None}", " INT ", " STR"):
        assert word not in out
    for line in out.splitlines():
        # A command can be copied only as a whole; the names of many choices have no space.
        assert len(line) <= width or line.startswith(("$ ", "usage:")), line
        assert len(line) <= 80 or not line.startswith("$ ")


def test_the_first_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in VERBS)


def test_the_list_is_short_and_counts_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    named = [line.split()[0] for line in lines if line and line.split()[0] in recipes.RECIPES]
    counted = [int(line.split()[1]) for line in lines if line.startswith("and ")]
    assert {"digits-rmp", "cifar10-resnet20-rmp", "images-resnet20-rmp"} <= set(named)
    assert len(named) + sum(counted) == len(recipes.RECIPES)


def test_list_all_shows_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "all"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in recipes.RECIPES)


@pytest.mark.parametrize("width", [60, 80])
def test_list_fits_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list", "all"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    flat = " ".join(out.split())
    assert all(recipe.expect in flat for recipe in recipes.RECIPES.values())


@pytest.mark.parametrize(
    ("topic", "shown"),
    [
        ("networks", "resnet20"),
        ("neurons", "decay"),
        ("surrogates", "clipped_tanh"),
        ("norms", "'outside'"),
        ("objectives", "rmp"),
        ("schedules", "triangle"),
        ("optimizers", "sgd"),
        ("data", "cifar10-dvs"),
        ("readings", "u_pre"),
    ],
)
def test_list_topics(topic: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", topic]) == 0
    assert shown in capsys.readouterr().out


def test_train_prints_json_lines_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "digits", *SMALL, "--runs-dir", str(tmp_path), "--json"]) == 0
    out, err = capsys.readouterr()
    events = [json.loads(line)["event"] for line in out.splitlines()]
    # A note warns that so small a network is unhealthy.
    assert [event for event in events if event != "note"] == ["begin", "epoch", "end"]
    assert err == ""


def test_several_seeds_are_several_runs(tmp_path: Path) -> None:
    words = ["train", "digits", *SMALL, "--runs-dir", str(tmp_path), "--seed", "0", "1"]
    assert main(words) == 0
    seeds = [json.loads(p.read_text())["recipe"]["seed"] for p in tmp_path.glob("*/recipe.json")]
    assert sorted(seeds) == [0, 1]


@pytest.mark.parametrize("options", [[], ["--checkpoint", "best"], ["--fold"]])
def test_eval_repeats_the_number_of_the_run(
    options: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), "--json", *options]) == 0
    got = json.loads(capsys.readouterr().out)
    last = json.loads((run / "result.json").read_text())
    # One epoch: the last is the best. Folding changes roundings only, of float32 currents.
    assert got["accuracy"] == pytest.approx(last["last_accuracy"], abs=4 if options[1:] else 1e-9)
    assert got["quantization_error"] == pytest.approx(last["quantization_error"], abs=1e-3)
    assert main(["eval", str(run)]) == 0
    assert "lif2" in capsys.readouterr().out


def test_report_writes_a_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == run / "report.html"
    assert "<svg" in page.read_text()


def test_table_prints_the_paper_and_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", "1", "--runs-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "91.89" in out
    assert "0.121" in out
    assert "rmploss train cifar10-resnet20-rmp --T 4 --seed 0 1 2" in out
    assert main(["table", "2", "--pocket", "--json", "--runs-dir", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len([row for row in recipes.ROWS if row.table == 2])
    assert all(line["published"] == "" for line in lines)


@pytest.mark.parametrize("which", ["1", "fair", "fair-best"])
def test_table_says_where_recorded_results_are_if_none_are_here(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = Path.cwd() / "results"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        recorded, "SOURCE_TREE", tmp_path / "site-packages"
    )  # a package from a wheel
    assert main(["table", which, "--pocket"]) == 0
    out = capsys.readouterr().out
    assert "no recorded results here" in out
    (line,) = (line for line in out.splitlines() if "--results" in line)
    program, *words = line.replace("CLONE/results", str(clone)).split()
    assert program == "rmploss"
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "no recorded results" not in out
    assert which == "fair-best" or "*: not of your runs, but of" in out
    assert main(["table", which, "--pocket", "--results", "."]) == 0
    assert "no recorded results in ." in capsys.readouterr().out


@pytest.mark.parametrize("which", ["1", "fair", "fair-best"])
def test_a_table_of_full_size_without_a_run_names_that_of_pocket_size(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Path.cwd() / "results"
    monkeypatch.chdir(tmp_path)
    hint = f"rmploss table {which} --pocket"
    assert main(["table", which, "--results", str(results)]) == 0
    out = capsys.readouterr().out
    assert hint in out
    assert "chosen settings" not in out
    assert main([*hint.split()[1:], "--results", str(results)]) == 0
    assert hint not in capsys.readouterr().out


def test_table_fills_a_cell_with_mean_and_deviation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = TINY.but(name="cifar10-resnet20-rmp", T=4, epochs=1)
    monkeypatch.setitem(recipes.RECIPES.given, "cifar10-resnet20-rmp", tiny)
    words = ["train", tiny.name, "--seed", "0", "1", "--runs-dir", str(tmp_path)]
    assert main(words) == 0
    assert main(["table", "1", "--json", "--runs-dir", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (line,) = [line for line in lines if line["recipe"] == tiny.name]
    assert line["ours"]["seeds"] == 2
    assert "±" in line["ours"]["last"]


def test_doctor_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "self-test       ok" in out
    assert ops.pick("auto", torch.device("cpu")) in out
    assert native.instruction_set() in out
    assert main(["data", "--data-dir", str(tmp_path)]) == 0
    assert "rmploss data fetch cifar10" in capsys.readouterr().out


def test_demo_ends_with_a_comparison_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("digits", "digits-rmp"):
        objective = recipes.get(name).objective
        monkeypatch.setitem(recipes.RECIPES.given, name, TINY.but(name=name, objective=objective))
    assert main(["demo", "--runs-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "without RMP-Loss" in out
    assert (tmp_path / "demo.html").is_file()


def test_demo_packs_what_eval_measures_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("digits", "digits-rmp"):
        monkeypatch.setitem(recipes.RECIPES.given, name, TINY.but(name=name))
    packed = tmp_path / "a pack"
    words = ["demo", "--runs-dir", str(tmp_path / "runs"), "--pack", str(packed)]
    assert main(words) == 0
    *_, again, _, reference = capsys.readouterr().out.splitlines()
    assert again.endswith(f"rmploss eval '{packed}'")
    assert reference.startswith("hf:OWNER/a pack@REVISION#")
    assert main(["eval", str(packed)]) == 0
    assert main(words) == 2  # before it trains again
    assert "the folder of the pack exists" in capsys.readouterr().err


class _Stopping(Listener):
    """Ends the process's training as Ctrl-C does, in the second run."""

    def __init__(self) -> None:
        self.runs = 0

    def begin(self, *_: Any, **__: Any) -> None:
        self.runs += 1

    def batch(self, *_: Any, **__: Any) -> None:
        if self.runs == 2:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_demo_goes_on_with_its_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("digits", "digits-rmp"):
        objective = recipes.get(name).objective
        monkeypatch.setitem(recipes.RECIPES.given, name, TINY.but(name=name, objective=objective))
    words = ["demo", "--runs-dir", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr(terminal, "listener", lambda **_: _Stopping())
        assert main(words) == 75
    assert f"rmploss demo --seed 0 --runs-dir {tmp_path}" in capsys.readouterr().err
    before = sorted(path.name for path in tmp_path.iterdir())
    assert len(before) == 2
    assert main(words) == 0
    assert "with RMP-Loss" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "demo.html"])
    assert main(words) == 0  # it was finished: a new one
    assert len([*tmp_path.iterdir()]) == 5


def test_the_list_of_data_sets_fits_80_columns_and_says_once_how_to_get_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("--data-dir or $RMPLOSS_DATA") == 1
    assert out.count("ILSVRC2012_img_val.tar") == 1
    assert "tonic           yours: rmploss train RECIPE --data tonic:NAME" in out


def test_a_reader_that_goes_away_is_no_error() -> None:
    words = f"{sys.executable} -m rmploss list | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_the_help_imports_no_metadata_of_packages() -> None:
    """It is 15 ms of a fifth of a second, for the entries of other packages alone."""
    code = (
        "import sys; from rmploss.cli import main; main([]); "
        "print('importlib.metadata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_help_and_list_do_not_wait_for_torch() -> None:
    words = (
        "import sys; from rmploss.cli import main; main(['list']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, check=False)
    assert done.returncode == 0


def test_torchrun_trains_one_run_on_two_ranks(tmp_path: Path) -> None:
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
        *("-m", "rmploss", "train", "digits-rmp", *SMALL, "--runs-dir", str(tmp_path)),
        *("--seed", "0", "1"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) == 2
    for path in tmp_path.iterdir():
        assert json.loads((path / "result.json").read_text())["epochs"] == 1


def test_a_rank_ends_before_threads_can_abort_it(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import atexit, sys
class Last:
    def __del__(self, write=sys.stdout.write):
        write("Python ended ")
last, sys.argv = Last(), ["rmploss", "no-verb"]
atexit.register(print, "exit functions ran", end=" ")
from rmploss.cli import command
command()
"""

    def end() -> tuple[int, str]:
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    monkeypatch.delenv("RANK", raising=False)
    assert end() == (2, "exit functions ran Python ended ")
    monkeypatch.setenv("RANK", "0")
    assert end() == (2, "exit functions ran ")


def test_a_full_disk_behind_the_output_is_not_our_fault() -> None:
    words = f"{sys.executable} -m rmploss list > /dev/full"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr == "error: No space left on device\n"


def test_the_version_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rmploss {version('rmploss')}\n"


def test_predict_shows_control_characters_of_a_name_and_does_not_send_them(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a\x1b[2J.png"
    Image.new("L", (8, 8), 200).save(file)
    assert main(["predict", str(run), str(file), "--top", "1"]) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / r"a\x1b[2J.png"))


def test_predict_prints_the_classes_of_every_image(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    for file in files:
        Image.new("L", (8, 8), 200).save(file)
    assert main(["predict", str(run), *files, "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == files
    assert all(line.count("%") == 2 for line in lines)
    assert main(["predict", str(run), *files, "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["file"] for record in records] == files
    assert sum(guess["probability"] for guess in records[0]["top"]) <= 1 + 1e-6
    assert main(["predict", str(run)]) == 2
    assert "no file was named" in capsys.readouterr().err
