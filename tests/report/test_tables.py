"""The tables hold the results of finished runs of exactly their recipes, over seeds."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from rmploss import recipes
from rmploss.engine.run import RunFolder
from rmploss.errors import UserError
from rmploss.recipes import Recipe
from rmploss.report.tables import Line, SeedSummary, fair_table, table

NAME = "cifar10-resnet20-rmp"


def run(parent: Path, accuracies: list[float], recipe: Recipe) -> RunFolder:
    """A run folder with the metrics that a training would have left."""
    folder = RunFolder.create(parent, recipe.name, recipe.to_json(), command=())
    for epoch, accuracy in enumerate(accuracies, 1):
        seconds = {"train_s": 1.0, "test_s": 0.5, "train_cpu_s": 2.0}
        numbers = {"test_accuracy": accuracy, "quantization_error": 0.1, "firing_rate": 0.2}
        folder.log_metrics({"epoch": epoch, "step": epoch, **numbers, **seconds})
    return folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe of a row, made three epochs long."""
    recipe = recipes.get(NAME).but(epochs=3)
    monkeypatch.setitem(recipes.RECIPES.given, NAME, recipe)
    return recipe


def line(number: int, parent: Path, T: int = 4) -> Line:
    (found,) = [x for x in table(number, parent) if (x.recipe, x.T) == (NAME, T)]
    return found


def test_mean_and_deviation_over_the_seeds(short: Recipe, tmp_path: Path) -> None:
    lasts, bests = [80.0, 82.0, 87.0], [90.0, 82.0, 87.0]
    for seed, (last, best) in enumerate(zip(lasts, bests, strict=True)):
        run(tmp_path, [10.0, best, last], short.but(seed=seed))
    ours = line(1, tmp_path).ours
    assert ours is not None
    assert ours.seeds == 3
    assert ours.last == f"{statistics.mean(lasts):.2f} ± {statistics.stdev(lasts):.2f}"
    assert ours.best == f"{statistics.mean(bests):.2f} ± {statistics.stdev(bests):.2f}"
    assert ours.error == "0.1000 ± 0.0000"
    assert line(2, tmp_path).ours == ours  # the same run fills the same row of both tables
    assert line(2, tmp_path, T=6).ours is None


def test_one_seed_has_no_deviation(short: Recipe, tmp_path: Path) -> None:
    run(tmp_path, [10.0, 20.0, 30.0], short)
    ours = line(1, tmp_path).ours
    assert ours == SeedSummary(
        1, "30.00", "30.00", "0.1000", "0.200", "", "6", 30.0, ("0.1000", "", "", "")
    )


def test_the_cost_of_an_inference_is_read(short: Recipe, tmp_path: Path) -> None:
    folder = run(tmp_path, [10.0, 20.0, 30.0], short)
    (folder.path / "cost.json").write_text('{"microjoules": 12.34}')
    ours = line(1, tmp_path).ours
    assert ours is not None
    assert ours.energy == "12.3"
    (folder.path / "cost.json").write_text("[]")
    ours = line(1, tmp_path).ours
    assert ours is not None
    assert ours.energy == ""


def test_the_quantization_error_has_four_readings(short: Recipe, tmp_path: Path) -> None:
    folder = run(tmp_path, [10.0, 20.0, 30.0], short)
    means = {"quantization_error": 0.3, "quantization_error_of_elements": 0.4}
    for content, expected in (
        ({"input": {"samples": 9, **means}}, ("0.1000", "", "0.3000", "0.4000")),
        ({"input": {"quantization_error": 0.3}}, ("0.1000", "", "", "")),
        ({"input": {**means, "quantization_error": float("nan")}}, ("0.1000", "", "", "")),
        ([], ("0.1000", "", "", "")),
    ):
        (folder.path / "membrane.json").write_text(json.dumps(content))
        ours = line(1, tmp_path).ours
        assert ours is not None
        assert ours.readings == expected


def test_a_run_from_a_changed_ann_answers_to_nothing(short: Recipe, tmp_path: Path) -> None:
    folder = run(tmp_path, [10.0, 20.0, 30.0], short)
    assert line(1, tmp_path).ours is not None
    folder.log_event("begin", recipe="ann", altered=True)
    assert line(1, tmp_path).ours is None


def test_the_command_of_a_hybrid_start_trains_its_ann_first(tmp_path: Path) -> None:
    (found,) = [x for x in table(2, tmp_path) if (x.recipe, x.T) == ("cifar10-diet-vgg16", 10)]
    assert found.command == (
        "for s in 0 1 2; do rmploss train cifar10-diet-vgg16-ann --seed $s && "
        "rmploss train cifar10-diet-vgg16 --T 10 --seed $s "
        "--start runs/cifar10-diet-vgg16-ann-s$s-*; done"
    )


def test_the_fair_table_ranks_by_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = {"fair-vanilla": 30.0, "fair-rmp": 50.0, "fair-tdbn-rmp": 40.0}
    for name, accuracy in accuracies.items():
        recipe = recipes.get(name).but(epochs=1)
        monkeypatch.setitem(recipes.RECIPES.given, name, recipe)
        run(tmp_path, [accuracy], recipe)
    lines = fair_table(tmp_path)
    assert len(lines) == len(recipes.FAIR)
    ranked = ["RMP-Loss", "STBP-tdBN + RMP-Loss", "vanilla SNN"]
    assert [line.method for line in lines[:3]] == ranked
    assert all(line.ours is None for line in lines[3:])
    assert lines[-1].command.startswith("rmploss train fair-")
    pocket = fair_table(tmp_path, pocket=True)
    assert all(line.recipe.endswith("-pocket") and line.ours is None for line in pocket)


@pytest.mark.parametrize(
    "changes", [{"T": 6}, {"lr": 0.02}, {"pocket": True}, {"train_samples": 5000}]
)
def test_a_changed_recipe_answers_to_no_row(
    changes: dict[str, Any], short: Recipe, tmp_path: Path
) -> None:
    run(tmp_path, [10.0, 20.0, 30.0], short.but(**changes))
    assert line(1, tmp_path).ours is None


def test_what_is_not_finished_or_not_readable_does_not_count(short: Recipe, tmp_path: Path) -> None:
    run(tmp_path, [10.0, 20.0], short)
    (damaged := run(tmp_path, [1.0, 2.0, 3.0], short).path / "recipe.json").write_text(
        damaged.read_text().replace('"lr": 0.01', '"lr": 0.02')
    )
    (tmp_path / "not a run").mkdir()
    assert line(1, tmp_path).ours is None


def test_the_command_fills_the_cell() -> None:
    found = line(2, Path("nowhere"), T=6)
    assert found.command == f"rmploss train {NAME} --T 6 --seed 0 1 2"
    assert (found.published, found.published_error, found.ours) == ("92.55 ± 0.06", "", None)
    assert line(1, Path("nowhere")).published_error == "0.121"


def test_pocket_answers_to_no_published_number() -> None:
    found = table(1, Path("nowhere"), pocket=True)
    assert {(x.published, x.published_error) for x in found} == {("", "")}
    assert all(x.recipe.endswith("-pocket") for x in found)


def test_a_row_without_rmp_loss_is_that_of_the_vanilla_network() -> None:
    methods = {x.recipe: x.method for x in table(1, Path("nowhere"))}
    assert methods["cifar10-vgg16"] == "vanilla SNN"
    assert methods["cifar10-vgg16-rmp"] == "RMP-Loss"


def test_a_row_whose_network_does_not_learn_says_why() -> None:
    told = {x.recipe: x.reservation for x in table(2, Path("nowhere"))}
    why = recipes.METHODS["diet"].unlearnt["cifar10-diet-resnet20"]
    assert "13 % after 480 steps" in why
    assert told["cifar10-diet-resnet20"] == why
    assert told["cifar10-tssl-cifarnet"] == ""


def test_there_are_four_tables() -> None:
    with pytest.raises(UserError, match="no table 5; there are 1, 2, 3, 4 and fair"):
        table(5, Path("nowhere"))


def csv_row(recipe: Recipe, number: int, accuracy: float, **changes: object) -> str:
    row = {
        "recipe": recipe.name,
        "seed": number,
        "T": recipe.T,
        "k": 0.1,
        "epochs": recipe.epochs,
        "train_samples": recipe.train_samples or "all",
        "test_samples": recipe.test_samples or "all",
        "last_accuracy": accuracy,
        "best_accuracy": accuracy,
        "quantization_error": 0.2,
        "firing_rate": 0.1,
        "microjoules": "",
        "command": f"rmploss train {recipe.name} --seed {number}",
        **changes,
    }
    return ",".join(map(str, row)) + "\n" + ",".join(map(str, row.values())) + "\n"


def test_what_was_not_run_is_taken_from_recorded_results(short: Recipe, tmp_path: Path) -> None:
    results, runs = tmp_path / "results", tmp_path / "runs"
    results.mkdir()
    (results / "a.csv").write_text(csv_row(short, 0, 80.0))
    (results / "b.csv").write_text(csv_row(short, 1, 82.0))
    (results / "c.csv").write_text(csv_row(short, 1, 10.0))  # the first file of a seed counts
    (results / "before-d.csv").write_text(csv_row(short, 2, 10.0))
    others = ({"T": 9}, {"k": 1}, {"epochs": 77}, {"last_accuracy": ""}, {"seed": "x"})
    changed = ({"command": "rmploss train x --set lr=1"}, {"train_samples": 7})
    for number, changes in enumerate((*others, *changed)):
        (results / f"e{number}.csv").write_text(csv_row(short, 3, 10.0, **changes))
    (results / "f.csv").write_bytes(b"\xff\n\x00")
    (found,) = [x for x in table(1, runs, results=results) if x.recipe == short.name]
    assert found.ours is not None
    assert (found.ours.seeds, found.ours.last, found.ours.energy) == (2, "81.00 ± 1.41", "")
    assert found.recorded == (str(results / "a.csv"), str(results / "b.csv"))
    run(runs, [70.0] * short.epochs, short)
    (found,) = [x for x in table(1, runs, results=results) if x.recipe == short.name]
    assert found.ours is not None
    assert (found.ours.last, found.recorded) == ("70.00", ())


def test_the_recorded_results_fill_the_pocket_table(tmp_path: Path) -> None:
    lines = table(1, tmp_path, pocket=True, results=Path("results"))
    filled = [line for line in lines if line.recorded]
    assert {"cifar10-resnet20-pocket", "cifar10-resnet20-rmp-pocket"} <= {x.recipe for x in filled}
    assert all(line.ours and line.ours.seeds >= 3 for line in filled)
