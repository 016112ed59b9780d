"""Run folders as values: whole ones, unfinished ones, damaged ones."""

import json
from pathlib import Path

import pytest

from rmploss.errors import UserError
from rmploss.report.read import Group, read
from tests.report.folders import WITH, epoch, lines, predicted, run_folder


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    run = read(run_folder(tmp_path))
    assert run.recipe == WITH
    assert [record["epoch"] for record in run.epochs] == list(range(1, 9))
    assert run.last["test_accuracy"] == run.last["best_accuracy"] == 90.0
    assert run.last["best_epoch"] == 8
    assert run.last["seconds"] == 16.0
    assert list(run.membranes) == ["lif1", "lif2"]
    assert (run.figure_layer, run.samples, run.missing) == ("lif2", 360, [])


def test_a_run_has_its_name_even_from_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_folder(tmp_path))
    assert read(Path()).path.name == "digits-rmp-s0"


def test_the_best_epoch_is_the_first_of_the_highest_accuracy(tmp_path: Path) -> None:
    path = run_folder(tmp_path)
    accuracies = [50.0, 80.0, 80.0, 70.0]
    records = [epoch(n + 1, WITH, value, 0.1) for n, value in enumerate(accuracies)]
    (path / "metrics.jsonl").write_text(lines(*records))
    last = read(path).last
    assert (last["test_accuracy"], last["best_accuracy"], last["best_epoch"]) == (70.0, 80.0, 2)


def test_an_unfinished_run_says_what_is_missing(tmp_path: Path) -> None:
    run = read(run_folder(tmp_path, epochs=3, finished=False))
    assert run.missing == [
        "not finished: 3 of 8 epochs",
        "no histograms: they are taken when training ends",
    ]


def test_a_run_without_any_epoch(tmp_path: Path) -> None:
    path = run_folder(tmp_path, finished=False)
    (path / "metrics.jsonl").unlink()
    run = read(path)
    assert (run.epochs, run.last) == ([], {})


def test_half_a_line_a_repeated_epoch_and_null_do_no_harm(tmp_path: Path) -> None:
    path = run_folder(tmp_path, epochs=2)
    again = epoch(2, WITH, 77.0, 0.2, firing_rate=None)
    between = {"epoch": 2, "step": 50, "train_loss": 1.0}
    torn = json.dumps(epoch(3, WITH, 78.0, 0.2))[:40]
    with (path / "metrics.jsonl").open("a") as file:
        file.write(lines(again, between) + "\0\0\n" + torn)
    run = read(path)
    assert [record["epoch"] for record in run.epochs] == [1, 2]
    assert run.last["test_accuracy"] == 77.0
    assert Group((run,), "", 0).values("firing_rate") == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"layers": [{"layer": "lif1"}]}', "cannot be read"),
        (
            '{"figure_layer": "a", "samples": 1, "layers": [{"low": -9, "high": 9, "counts": []}]}',
            "not those of this version",
        ),
    ],
)
def test_damaged_histograms_are_reported_and_left_out(
    tmp_path: Path, content: str, reason: str
) -> None:
    path = run_folder(tmp_path)
    (path / "membrane.json").write_text(content)
    run = read(path)
    assert run.membranes == {}
    assert reason in run.missing[-1]


def _without(name: str) -> str:
    return json.dumps({key: value for key, value in predicted().items() if key != name})


def _changed(name: str, value: object) -> str:
    stored = predicted()
    stored["examples"][0][name] = value
    return json.dumps(stored)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        _without("confusion"),
        _without("classes"),
        _without("examples"),
        json.dumps({**predicted(), "confusion": [[0, 0, -1]]}),
        json.dumps({**predicted(), "confusion": [[0, 1]]}),
        json.dumps({**predicted(), "confusion": [[0, 5, 1]]}),
        json.dumps({**predicted(), "confusion": [[0, 10**9, 1]], "classes": []}),
        json.dumps({**predicted(), "classes": [{}, "dog"]}),
        _changed("label", 2),
        _changed("probability", "high"),
        _changed("frames", {"shape": [1, 9, 9], "base64": "AAAA"}),
        _changed("spikes", {"shape": [4], "base64": "AAAAAA=="}),
        _changed("active", {"lif1": [0.5]}),
    ],
)
def test_damaged_predictions_are_reported_and_left_out(tmp_path: Path, content: str) -> None:
    path = run_folder(tmp_path)
    (path / "predictions.json").write_text(content)
    run = read(path)
    assert run.predictions is None
    assert "predictions.json cannot be read" in run.missing[-1]


def test_values_are_those_of_the_runs_that_have_them(tmp_path: Path) -> None:
    runs = [
        read(run_folder(tmp_path, WITH.but(seed=seed), accuracy=80.0 + seed)) for seed in (0, 1)
    ]
    empty = read(run_folder(tmp_path, WITH.but(seed=2), epochs=0, finished=False))
    group = Group((empty, *runs), "", 0)
    assert group.values("test_accuracy") == [80.0, 81.0]
    assert group.values("quantization_error", "lif2") == [0.15, 0.15]
    assert group.values("quantization_error", "unknown") == []
    assert group.shown == runs[0]


def test_a_changed_recipe_is_refused(tmp_path: Path) -> None:
    path = run_folder(tmp_path)
    document = json.loads((path / "recipe.json").read_text())
    document["recipe"]["lr"] = 9.0
    (path / "recipe.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="was changed after the run began"):
        read(path)
