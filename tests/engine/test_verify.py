"""A finished run is verified to the last bit; what is damaged is named, by every verb."""

import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmploss.cli import main
from rmploss.engine import checkpoint, load, loop, manifest
from rmploss.engine.checkpoint import MANIFEST, STATE, seal, unseal
from rmploss.engine.evaluate import Evaluation
from rmploss.engine.execution import Execution
from rmploss.engine.load import evaluate_run, load_network
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.engine.verify import verify
from rmploss.errors import CheckpointError, DamagedRunError, InterruptedRunError
from rmploss.report import drawing
from tests.engine.runs import TINY, Interrupting, digest_of
from tests.test_old_runs import FIXTURES, NAME

CPU = Execution(device="cpu", backend="reference")
OLD = FIXTURES / "unbroken" / NAME


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return train(TINY, tmp_path_factory.mktemp("runs"), CPU)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a signal stopped in its second epoch."""
    parent = tmp_path_factory.mktemp("stopped")
    with pytest.raises(InterruptedRunError):
        train(TINY, parent, CPU, Interrupting("train", 2, 2, signal.SIGTERM))
    return next(parent.iterdir())


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(original, tmp_path / "runs" / original.name)


def files_of(path: Path) -> list[str]:
    return [*manifest.recorded_files(path), manifest.MANIFEST]


def newest(path: Path) -> Path:
    return checkpoint.saved(path)[0]


def test_every_file_of_a_finished_run_is_in_its_manifest(original: Path) -> None:
    listed = manifest.read(original)
    there = {p.relative_to(original).as_posix() for p in original.rglob("*") if p.is_file()}
    assert listed["files"].keys() == there - {".lock", "manifest.json"}
    assert {"recipe.json", "source.zip", "metrics.jsonl", "events.jsonl"} <= there
    assert {"membrane.json", "cost.json", "result.json", "predictions.json"} <= there
    result = verify(original)
    assert (result.state, result.damages, result.unverified) == ("finished", [], [])
    assert set(result.verified) == set(listed["files"])
    assert result.digest == listed["digest"] == digest_of(original)


def test_the_confusion_matrix_is_that_of_the_last_test(original: Path) -> None:
    stored = json.loads((original / "predictions.json").read_text())
    right = sum(count for label, guess, count in stored["confusion"] if label == guess)
    assert sum(count for _, _, count in stored["confusion"]) == stored["samples"]
    last = RunFolder.open(original).metrics()[-1]
    assert 100 * right / stored["samples"] == last["test_accuracy"]
    assert stored["classes"] == list("0123456789")


def test_no_file_of_a_run_is_a_pickle(original: Path) -> None:
    kinds = {".json", ".jsonl", ".safetensors", ".zip", ""}
    for path in (p for p in original.rglob("*") if p.is_file()):
        assert path.suffix in kinds
        if path.suffix.startswith(".json"):
            path.read_text()
        assert not path.read_bytes().startswith(
            (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
        )


def test_the_manifest_is_written_last(run: Path) -> None:
    written = max(p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file())
    assert (run / manifest.MANIFEST).stat().st_mtime_ns == written


def test_a_finished_run_stays_as_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (run / name).read_bytes() for name in files_of(run)}
    assert main(["train", "--resume", str(run), "--device", "cpu"]) == 0
    assert "all files are intact: nothing to do" in "".join(capsys.readouterr())
    assert {name: (run / name).read_bytes() for name in files_of(run)} == before


def test_a_report_and_a_reader_do_not_damage_a_run(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    assert main(["eval", str(run), "--device", "cpu"]) == 0
    assert main(["verify", str(run)]) == 0


def test_a_run_that_goes_on_has_no_manifest_until_it_is_finished(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies in between must not leave a finished run with an old manifest."""
    seen: list[bool] = []

    def analyze(*arguments: Any) -> None:
        seen.append(manifest.exists(run))
        original(*arguments)

    original = loop.analyze
    monkeypatch.setattr(loop, "analyze", analyze)
    (run / "cost.json").unlink()
    resume(run, CPU)
    assert (seen, manifest.exists(run)) == ([False], True)


@pytest.mark.parametrize(
    "name", ["predictions.json", "membrane.json", "cost.json", "result.json", "manifest.json"]
)
def test_a_lost_file_that_can_be_computed_is_written_again(name: str, run: Path) -> None:
    (run / name).unlink()
    assert main(["verify", str(run)]) == 9
    digest = digest_of(run)
    resume(run, CPU)
    result = verify(run)
    assert (result.state, result.damages, result.digest) == ("finished", [], digest)


def test_every_damaged_file_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in files_of(run)[:-1]:
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[:7] + bytes([data[7] ^ 4]) + data[8:])
    assert main(["verify", str(run)]) == 9
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"error: {len(files_of(run)) - 1} damaged files"
    for name, line in zip(files_of(run), told[1:], strict=False):
        assert line.startswith(f"  {run / name}: expected ")
        assert "bytes of SHA-256" in line
        assert ", found " in line
        assert "put a copy back" in line or "remove it" in line


def test_a_checkpoint_that_the_manifest_lacks_is_damage(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = newest(run).with_name("step-00000099")
    shutil.copytree(newest(run), later)
    assert main(["verify", str(run)]) == 9
    assert "one that the manifest lacks" in capsys.readouterr().err


def test_what_is_no_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nothing")]) == 2
    assert "not a run" in capsys.readouterr().err
    assert main(["verify"]) == 2


def test_a_file_beside_runs_is_passed_over(run: Path) -> None:
    report = run.parent / "report.html"
    report.touch()
    assert main(["verify", str(run), str(report)]) == 0
    assert main(["verify", str(report)]) == 2


def test_json_is_one_object_per_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "cost.json").write_text("{}")
    assert main(["verify", "--json", str(run), str(OLD)]) == 9
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["state"], first["sound"]) == ("finished", False)
    assert [damage["file"] for damage in first["damages"]] == ["cost.json"]
    assert (second["state"], second["sound"]) == ("finished, without a manifest", True)


def test_a_run_without_a_manifest_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(OLD)]) == 0
    told = capsys.readouterr().out
    assert "finished, without a manifest; 3 files intact; without a stored hash:" in told
    assert "digest cdb5355b5dd005d3" in told


def test_an_old_run_whose_files_disagree_is_damaged(tmp_path: Path) -> None:
    path = shutil.copytree(OLD, tmp_path / NAME)
    text = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(
        text.replace('"test_accuracy": 80.0', '"test_accuracy": 81.0')
    )
    (damage,) = verify(path).damages
    assert damage.file == "result.json"
    assert damage.expected == "last_accuracy = 81.0, from metrics.jsonl"
    (path / "metrics.jsonl").write_text(text.split("\n", 1)[1])
    assert [damage.found for damage in verify(path).damages] == ["none of epoch 1"]


def test_an_unfinished_run_is_verified_as_far_as_hashes_go(stopped: Path, tmp_path: Path) -> None:
    path = shutil.copytree(stopped, tmp_path / stopped.name)
    result = verify(path)
    assert (result.state, result.damages) == ("not finished", [])
    assert "recipe.json" in result.verified
    assert f"ckpt/{newest(path).name}/{STATE}" in result.verified
    assert result.unverified == ["events.jsonl", "metrics.jsonl", "source.zip"]
    text = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(text.replace('"step": 4', '"step": 3'))
    (damage,) = verify(path).damages
    assert (damage.file, damage.found[:6]) == ("metrics.jsonl", "others")


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_a_resume_over_a_damaged_record_goes_on_and_is_not_counted(
    name: str, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copytree(stopped, tmp_path / "runs" / stopped.name)
    (path / name).unlink()
    assert main(["train", "--resume", str(path), "--device", "cpu"]) == 0
    assert f"damaged, the run goes on: {name}" in "".join(capsys.readouterr())
    assert main(["table", "1", "--runs-dir", str(path.parent)]) == 9
    assert f"was damaged and went on: {name}" in capsys.readouterr().err


def test_an_older_checkpoint_is_named_and_has_its_own_exit_code(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last, before = checkpoint.saved(run)[:2]
    data = (last / STATE).read_bytes()
    (last / STATE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert main(["eval", str(run), "--device", "cpu"]) == 10
    told = capsys.readouterr()
    assert "accuracy " in told.out
    assert f"this is {before.name} of {run}, not its last checkpoint" in told.err
    assert f"{last.name}: {STATE} is damaged: its SHA-256 differs" in told.err
    with pytest.warns(RuntimeWarning, match=f"loaded {before.name}, an older checkpoint"):
        load_network(run)
    last.rename(last.with_name(f"{last.name}.corrupt"))
    assert main(["eval", str(run), "--device", "cpu"]) == 10
    assert "was found damaged earlier" in capsys.readouterr().err
    shutil.rmtree(last.with_name(f"{last.name}.corrupt"))
    assert main(["eval", str(run), "--device", "cpu"]) == 10
    assert "whose checkpoint is missing" in capsys.readouterr().err


def test_the_best_epoch_of_damaged_metrics_is_not_guessed(run: Path) -> None:
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"test_accuracy": ', '"test_accuracy": 1'))
    with pytest.raises(DamagedRunError, match="the best epoch is not known"):
        evaluate_run(run, which="best", device="cpu")


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no counters": lambda m: m.pop("progress"),
    "no files": lambda m: m.pop("files"),
    "versions": lambda m: m.update(versions=[], format=9),
    "counters": lambda m: m.update(progress={"epoch": "x", "step": m["progress"]["step"]}),
    "optimizer": lambda m: m.update(optimizer=3),
    "files": lambda m: m.update(files={STATE: []}),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=list(HOSTILE))
def test_a_checkpoint_that_was_sealed_again_is_refused(
    change: Callable[[dict[str, Any]], object], run: Path
) -> None:
    for path in checkpoint.saved(run):
        content = unseal((path / MANIFEST).read_bytes())
        change(content)
        (path / MANIFEST).write_bytes(seal(content))
    with pytest.raises(CheckpointError):
        load_network(run)
    assert len(verify(run).damages) >= 2


def test_a_checkpoint_of_another_network_is_refused(run: Path) -> None:
    folder = RunFolder.open(run)
    loaded = checkpoint.load_latest(run, recipe_hash=folder.recipe_hash)
    del loaded.model_state[next(iter(loaded.model_state))]
    checkpoint.save(
        run,
        model_state=loaded.model_state,
        optimizer_state=loaded.optimizer_state,
        counters=loaded.counters,
        recipe_hash=folder.recipe_hash,
        versions={},
    )
    assert main(["eval", str(run), "--device", "cpu"]) == 7


# Every way in which a file is damaged, for the tests of all verbs.


def _flip(path: Path) -> None:
    data = path.read_bytes()
    for place in random.Random(len(data)).sample(range(len(data)), min(3, len(data))):
        data = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
    path.write_bytes(data)


def _numbers(word: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(re.sub(rb"(?<=: )-?\d+(\.\d+)?", word.encode(), data) or b"x")

    return change


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(target: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return change


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _unreadable(path: Path) -> None:
    """Also for root, who may read everything: a link to a file that refuses to be read."""
    path.chmod(0)
    if os.access(path, os.R_OK):
        _link("/proc/self/mem")(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "unreadable": _unreadable,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": _flip,
    "removed": lambda path: path.unlink(),
    "folder": _folder,
    "dangling link": _link("/nowhere/at/all"),
    "link to a folder": _link("/"),
    "endless link": _link("/dev/zero"),
    "pipe": _pipe,
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()[2:]),
    "NaN": _numbers("NaN"),
    "huge": _numbers("1e999"),
    "huge whole": _numbers("9" * 5000),
    "whole": _numbers("9" * 400),
    "negative": _numbers("-1"),
    "word": _numbers('"x"'),
    "list": _numbers("[]"),
    "deep": lambda path: path.write_bytes(b'{"a":' * 100_000 + b"\n"),
    "null": lambda path: path.write_bytes(b"null\n"),
    "one field": lambda path: path.write_bytes(b'{"event": 3, "epoch": null, "recipe": {}}\n'),
}
VERBS = {
    "verify": ["verify", "RUN"],
    "table": ["table", "1", "--runs-dir", "RUNS"],
    "fair": ["table", "fair", "--runs-dir", "RUNS"],
    "report": ["report", "RUN", "--out", "OUT"],
    "eval": ["eval", "RUN", "--device", "cpu"],
    "best": ["eval", "RUN", "--device", "cpu", "--checkpoint", "best"],
    "resume": ["train", "--resume", "RUN", "--device", "cpu", "--backend", "reference"],
}


def pairs(path: Path) -> list[tuple[str, str]]:
    """Every damage once, and every file; with RMPLOSS_FUZZ=all every damage of every file."""
    files = files_of(path)
    if os.environ.get("RMPLOSS_FUZZ") == "all":
        return [(name, damage) for name in files for damage in DAMAGES]
    return [(files[n * 5 % len(files)], damage) for n, damage in enumerate(DAMAGES)]


def test_no_damage_ends_in_a_traceback_or_goes_unsaid(
    original: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each damaged file is told by `verify`; no verb ends in a traceback or changes the run."""
    monkeypatch.setattr(load, "evaluate", lambda *_, **__: Evaluation(0.0, 0.0, 1, ()))
    monkeypatch.setattr(load, "check", lambda *_: None)
    if os.environ.get("RMPLOSS_FUZZ") != "all":
        # Drawing takes most of the time, and what is damaged is read before.
        monkeypatch.setattr(drawing.Drawing, "inline", lambda _: "<svg></svg>")
    for count, (name, damage) in enumerate(pairs(original)):
        path = shutil.copytree(original, tmp_path / f"{count}" / original.name)
        DAMAGES[damage](path / name)
        places = {"RUN": path, "RUNS": path.parent, "OUT": tmp_path / "report.html"}
        codes = {}
        for verb, words in VERBS.items():
            codes[verb] = main([str(places.get(word, word)) for word in words])
            told = "".join(capsys.readouterr())
            assert "bug of rmploss" not in told, f"{verb} of {name}, {damage}: {told}"
        where = f"{name}, {damage}: {codes}"
        changed = (
            not (path / name).is_file()
            or (path / name).is_symlink()
            or (path / name).read_bytes() != (original / name).read_bytes()
        )
        lost = damage in ("removed", "dangling link")  # Both are written again by a resume.
        computed = name in (*manifest.COMPUTED, manifest.MANIFEST) and lost
        if not computed:
            assert codes["verify"] == (9 if changed else 0), where
            assert (codes["resume"] == 0) == (not changed), where
        if name.endswith(("metrics.jsonl", "events.jsonl", "recipe.json")) and changed:
            assert codes["table"] == 9, where
            assert codes["report"] in (2, 9), where
        if name.startswith(f"ckpt/{newest(original).name}/") and changed:
            assert codes["eval"] == 10, where
        shutil.rmtree(path.parent)
