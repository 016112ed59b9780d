"""Run folders that earlier versions wrote are resumed, evaluated, reported and counted by this one.

The folders and their origin: `tests/fixtures/runs/README.md`.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from rmploss import ops, recipes, report
from rmploss.cli import main
from rmploss.engine.checkpoint import MANIFEST, seal, unseal
from rmploss.engine.execution import Execution
from rmploss.engine.load import evaluate_run
from rmploss.engine.run import RunFolder, recipe_hash
from rmploss.engine.run import recipe as recipe_module
from rmploss.engine.train import resume
from rmploss.engine.verify import verify
from rmploss.recipes import Recipe
from rmploss.report.tables import SeedSummary, table
from tests.engine.children import check_sound

FIXTURES = Path(__file__).parent / "fixtures" / "runs"
NAME = "digits-rmp-s0-69c2"
REFERENCE = Execution(device="cpu", backend="reference")
ROW = "cifar10-resnet20-rmp"
"""The row of Table 1 that `answer_to_row` assigns to the fixture's recipe."""
MADE_WITH = {"epochs": 3, "network.width": 0.25, "weight_decay": 0.0005}
DEFAULTS = {
    "expect": "",
    "neuron": {"name": "lif", "options": {}},
    "norm": {"name": "tdbn", "options": {}},
    "loss": {"name": "ce", "options": {}},
    "auxiliary": {"name": "none", "options": {}},
    "objective": {"name": "none", "options": {}},
    "optimizer": {"name": "sgd", "options": {"momentum": 0.9}},
    "lr_schedule": {"name": "cosine", "options": {}},
    "average": {"name": "none", "options": {}},
    "start": {"name": "none", "options": {}},
    "accumulate": 1,
    "clip_norm": None,
    "weight_decay": 1e-4,
    "weight_decay_on": "all",
    "amp": "off",
    "train_samples": None,
    "test_samples": None,
    "pocket": False,
    "seed": 0,
}
"""The values of fields that an old recipe.json lacks; they never change."""


@dataclass(frozen=True, kw_only=True)
class LaterRecipe(Recipe):
    """The recipe of a later version, which has one more field."""

    warmup: int = 0


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A copy of the run that was stopped in its second of three epochs."""
    return shutil.copytree(FIXTURES / "stopped" / NAME, tmp_path / "runs" / NAME)


@pytest.fixture
def unbroken(tmp_path: Path) -> Path:
    """A copy of the same run, finished."""
    return shutil.copytree(FIXTURES / "unbroken" / NAME, tmp_path / "done" / NAME)


@pytest.fixture
def later_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """This version reads and makes recipes that have a field more."""
    monkeypatch.setattr(recipe_module, "Recipe", LaterRecipe)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a run folder as if its recipe had been another from the start."""
    document = json.loads((path / "recipe.json").read_bytes())
    change(document["recipe"])
    document["sha256"] = recipe_hash(document["recipe"])
    (path / "recipe.json").write_text(json.dumps(document, indent=2))
    for file in path.glob(f"ckpt/*/{MANIFEST}"):
        file.write_bytes(seal(unseal(file.read_bytes()) | {"recipe_hash": document["sha256"]}))


def hashes(path: Path) -> set[str]:
    """The recipe hashes in the checkpoints of a run."""
    return {unseal(file.read_bytes())["recipe_hash"] for file in path.glob(f"ckpt/*/{MANIFEST}")}


def check_continued(path: Path) -> None:
    """The resumed run continued as the unbroken one."""
    before = (FIXTURES / "stopped" / NAME / "metrics.jsonl").read_bytes()
    assert (path / "metrics.jsonl").read_bytes().startswith(before)
    folder = RunFolder.open(path)
    records = folder.metrics()
    expected = RunFolder.open(FIXTURES / "unbroken" / NAME).metrics()
    assert [(r["epoch"], r["step"]) for r in records] == [(1, 22), (2, 44), (3, 66)]
    # From here on the images were shifted by other draws, which moved the loss by 0.015.
    # A network that lost its weights would begin at ln 10 = 2.3.
    for record, other in zip(records[1:], expected[1:], strict=True):
        assert record["train_loss"] == pytest.approx(other["train_loss"], rel=0, abs=0.1)
        assert record["lr"] == other["lr"]
    (event,) = [event for event in folder.events() if event["event"] == "resume"]
    assert (event["step"], event["rejected"]) == (29, [])
    assert "images in memory were augmented with other random numbers before" in event["inexact"]
    assert hashes(path) == {json.loads((path / "recipe.json").read_bytes())["sha256"]}
    check_sound(path)


def test_a_stopped_run_goes_on(stopped: Path) -> None:
    assert resume(stopped, REFERENCE) == stopped
    check_continued(stopped)


@pytest.mark.usefixtures("later_version")
def test_a_field_that_came_later_stops_no_old_run(stopped: Path) -> None:
    stored = (stopped / "recipe.json").read_bytes()
    recipe = RunFolder.open(stopped).recipe()
    assert isinstance(recipe, LaterRecipe)
    assert recipe.warmup == 0
    resume(stopped, REFERENCE)
    check_continued(stopped)
    assert (stopped / "recipe.json").read_bytes() == stored
    assert (
        evaluate_run(stopped, device="cpu").samples == 360
    )  # of a checkpoint that it wrote itself


@pytest.mark.parametrize("field", ["clip_norm", "loss", "seed"])
def test_a_recipe_from_before_a_field_goes_on(field: str, stopped: Path) -> None:
    rewrite(stopped, lambda plain: plain.pop(field))
    resume(stopped, REFERENCE)
    check_continued(stopped)


@pytest.mark.parametrize(("which", "epoch"), [("last", 3), ("best", 3)])
def test_a_finished_run_is_evaluated(which: Any, epoch: int, unbroken: Path) -> None:
    with ops.use_backend("reference"):
        found = evaluate_run(unbroken, which=which, device="cpu")
    record = RunFolder.open(unbroken).metrics()[epoch - 1]
    assert found.samples == 360
    # Rounding moved the loss by 3e-8 at most where it was tried; a spike more or less is 1e-4.
    assert found.loss == pytest.approx(record["test_ce"], rel=0, abs=1e-3)
    assert found.quantization_error == pytest.approx(record["quantization_error"], abs=1e-5)


def test_old_runs_are_reported(stopped: Path, unbroken: Path, tmp_path: Path) -> None:
    page = report.write([unbroken, stopped], tmp_path / "report.html").read_text()
    assert "80.00" in page
    assert "not finished: 1 of 3 epochs" in page
    assert "lif3" in page


def answer_to_row(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Assign the recipe of the fixture's command line, in this version, to a row of Table 1."""
    recipe = recipes.override(recipes.get("digits-rmp"), MADE_WITH)
    monkeypatch.setitem(recipes.RECIPES.given, ROW, recipe)
    return recipe


def row_of(runs: Path) -> SeedSummary | None:
    """The results in the row."""
    (line,) = [line for line in table(1, runs) if line.recipe == ROW]
    return line.ours


@pytest.mark.parametrize("later", [False, True])
def test_old_and_new_repeats_are_one_cell(
    later: bool, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = answer_to_row(monkeypatch)
    if later:
        monkeypatch.setattr(recipe_module, "Recipe", LaterRecipe)
        recipe = LaterRecipe.from_json(recipe.to_json())
    ours = row_of(unbroken.parent)
    assert ours is not None
    assert (ours.seeds, ours.last) == (1, "80.00")
    again = recipe.but(seed=1)
    folder = RunFolder.create(unbroken.parent, again.name, again.to_json(), command=())
    assert ("warmup" in folder.stored_recipe()) == later
    numbers = {"test_accuracy": 82.0, "quantization_error": 0.1, "firing_rate": 0.2}
    folder.log_metrics({"epoch": 3, "step": 66, **numbers})
    ours = row_of(unbroken.parent)
    assert ours is not None
    assert (ours.seeds, ours.last) == (2, "81.00 ± 1.41")


def test_a_changed_recipe_is_refused(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = stopped / "recipe.json"
    file.write_text(file.read_text().replace('"lr": 0.1', '"lr": 0.2'))
    before = (stopped / "metrics.jsonl").read_bytes()
    for words in (["train", "--resume"], ["eval"], ["report"]):
        assert main([*words, str(stopped)]) == 2
        assert "was changed after the run began" in capsys.readouterr().err
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_checkpoints_of_another_recipe_are_refused(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((stopped / "recipe.json").read_bytes())
    document["recipe"]["lr"] = 0.2
    document["sha256"] = recipe_hash(document["recipe"])  # sealed again, unlike the checkpoints
    (stopped / "recipe.json").write_text(json.dumps(document))
    assert main(["train", "--resume", str(stopped)]) == 7
    assert "is of recipe 69c2a8fd59b1" in capsys.readouterr().err


def test_a_field_of_a_later_version_is_named_with_that_version(
    unbroken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_to_row(monkeypatch)
    rewrite(unbroken, lambda plain: plain.update(warmup=5))
    events = unbroken / "events.jsonl"
    events.write_text(events.read_text().replace('"rmploss": "0.1.0"', '"rmploss": "7.8"'))
    for words in (["train", "--resume"], ["eval"], ["report"]):
        assert main([*words, str(unbroken)]) == 2
        told = capsys.readouterr().err
        assert f"{unbroken / 'recipe.json'}: warmup: unknown to rmploss 0." in told
        assert "use rmploss 7.8 (commit 9fdecf99643c" in told
    assert main(["table", "1", "--runs-dir", str(unbroken.parent)]) == 0
    told = capsys.readouterr().err
    assert told.startswith(f"left out: {unbroken}")
    assert "warmup: unknown to rmploss" in told
    assert row_of(unbroken.parent) is None
    events.unlink()
    assert main(["eval", str(unbroken)]) == 2
    assert "use another version of rmploss, which wrote it" in capsys.readouterr().err


def test_a_missing_field_is_named(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(stopped, lambda plain: plain.pop("lr"))
    assert main(["train", "--resume", str(stopped)]) == 2
    told = capsys.readouterr().err
    assert f"{stopped / 'recipe.json'}: not a recipe: " in told
    assert "'lr'" in told
    assert "written by rmploss 0.1.0 (commit 9fdecf9" in told


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"objective": {"name": "rmp", "options": {"kk": 1.0}}}, 'objective.kk: unknown "kk"'),
        ({"neuron": {"name": "lif9", "options": {}}}, 'neuron: unknown "lif9"'),
    ],
)
def test_an_option_of_a_later_version_is_named_with_that_version(
    change: dict[str, Any],
    what: str,
    stopped: Path,
    unbroken: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path in (stopped, unbroken):
        rewrite(path, lambda plain: plain.update(change))
    assert main(["train", "--resume", str(stopped)]) == 2
    told = capsys.readouterr().err
    assert what in told
    assert "written by rmploss 0.1.0 (commit 9fdecf9" in told
    assert main(["table", "1", "--runs-dir", str(unbroken.parent)]) == 0


def test_a_field_at_its_default_changes_no_fingerprint() -> None:
    recipe = recipes.get("digits-rmp")
    later = LaterRecipe.from_json(recipe.to_json())
    assert later.fingerprint() == recipe.fingerprint()
    assert later.but(warmup=5).fingerprint() != recipe.fingerprint()
    # Of this very recipe, ever since fields at their defaults are left out.
    assert recipe.fingerprint().startswith("0b8a512cf802be45")


def test_what_a_missing_field_means_never_changes() -> None:
    recipe = Recipe(
        name="",
        title="",
        data=recipes.use("digits"),
        network=recipes.use("convnet"),
        T=4,
        lr=0.1,
        epochs=1,
        batch_size=1,
    )
    plain = recipe.to_json()
    assert {name: plain[name] for name in DEFAULTS} == DEFAULTS
    # A new field without a default would make every run folder that lacks it unreadable.
    required = {f.name for f in fields(Recipe) if f.default is MISSING}
    assert required == {"name", "title", "data", "network", "T", "lr", "epochs", "batch_size"}


MANIFESTS = FIXTURES / "4825b71"
"""The runs of the first version with a manifest."""


def copy_of(kind: str, tmp_path: Path) -> Path:
    """A copy of one of these runs."""
    (source,) = (MANIFESTS / kind).iterdir()
    return shutil.copytree(source, tmp_path / "runs" / source.name)


def test_a_run_with_a_manifest_is_intact_finished_and_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy_of("unbroken", tmp_path)
    assert main(["verify", str(path)]) == 0
    assert ": finished; 11 files intact" in capsys.readouterr().out
    manifest = (path / "manifest.json").read_bytes()
    assert main(["train", "--resume", str(path), "--device", "cpu"]) == 0
    assert (path / "manifest.json").read_bytes() == manifest
    with ops.use_backend("reference"):
        found = evaluate_run(path, device="cpu")
    assert found.loss == pytest.approx(RunFolder.open(path).metrics()[-1]["test_ce"], abs=1e-3)
    assert report.write([path], tmp_path / "report.html").is_file()


def test_a_stopped_run_with_a_metrics_hash_goes_on(tmp_path: Path) -> None:
    path = copy_of("stopped", tmp_path)
    resume(path, REFERENCE)
    (unbroken,) = (MANIFESTS / "unbroken").iterdir()
    records, expected = (RunFolder.open(run).metrics() for run in (path, unbroken))
    assert [(r["epoch"], r["step"]) for r in records] == [(1, 22), (2, 44), (3, 66)]
    for record, other, tolerance in zip(records[1:], expected[1:], (6e-3, 2e-2), strict=True):
        assert record["train_loss"] == pytest.approx(other["train_loss"], rel=0, abs=tolerance)
    assert not [event for event in RunFolder.open(path).events() if event["event"] == "damaged"]
    assert verify(path).damages == []
    check_sound(path)


def test_an_edited_recipe_is_shown_field_by_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy_of("stopped", tmp_path)
    file = path / "recipe.json"
    text = file.read_text()
    file.write_text(text.replace('"lr": 0.1', '"lr": 0.2').replace('"width": 0.25', '"width": 0.5'))
    assert main(["train", "--resume", str(path)]) == 2
    told = capsys.readouterr().err
    assert "recipe.json: lr: 0.1 is now 0.2" in told
    assert "recipe.json: network.width: 0.25 is now 0.5" in told
    file.write_text(text)
    rewritten = json.loads(text)
    rewritten["recipe"]["T"] = 6
    rewritten["sha256"] = recipe_hash(rewritten["recipe"])  # sealed again, unlike the checkpoints
    file.write_text(json.dumps(rewritten))
    assert main(["train", "--resume", str(path)]) == 7
    assert "recipe.json: T: 4 is now 6" in capsys.readouterr().err


def test_an_edited_recipe_of_an_older_run_shows_its_command(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = stopped / "recipe.json"
    file.write_text(file.read_text().replace('"lr": 0.1', '"lr": 0.2'))
    assert main(["train", "--resume", str(stopped)]) == 2
    assert "the run began with: rmploss train digits-rmp --epochs 3" in capsys.readouterr().err
