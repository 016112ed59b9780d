"""Dead, saturated and diverging networks are told once, while they train."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from rmploss.cli import main
from rmploss.engine import run_health
from rmploss.engine.batches import RankBatches, open_splits
from rmploss.engine.build import make_dataset, make_network
from rmploss.engine.execution import Execution
from rmploss.engine.health import SETTLED, Health, firing_rates
from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.engine.run_health import health_of
from rmploss.engine.train import resume, train
from rmploss.recipes import Recipe, use
from rmploss.report import write
from tests.engine.runs import TINY, digest_of
from tests.engine.test_fork import Notes
from tests.engine.test_go_on import Dying

Told = list[tuple[str, Mapping[str, Any]]]


def watching(into: Told, **options: Any) -> Health:
    return Health(lambda text, fields: into.append((text, fields)), "try another", **options)


def test_a_layer_is_told_after_two_batches_or_one_split_and_once() -> None:
    told: Told = []
    health = watching(told)
    health.see_rates({"a": 0.0, "b": 0.5, "c": 1.0}, 100, whole_split=False)
    health.see_rates({"a": 0.1, "b": 0.0, "c": 1.0}, 200, whole_split=False)
    assert [(f["what"], f["layers"], f["step"]) for _, f in told] == [("saturated", ["c"], 200)]
    health.see_rates({"a": 0.0, "b": 0.0, "c": 1.0}, 240, whole_split=True)
    health.see_rates({"a": 0.0, "b": 0.0, "c": 1.0}, 300, whole_split=True)
    assert [(f["what"], f["layers"]) for _, f in told[1:]] == [("dead", ["a", "b"])]
    text = "the neurons of a, b never fire: nothing behind them depends on the image (step 240)"
    assert told[1][0] == f"{text}; try another"


def test_a_loss_is_told_once_it_is_ten_times_that_of_the_start() -> None:
    told: Told = []
    health = watching(told)
    for number, loss in enumerate([2.3, 0.1, 22.9, 23.1, 1e30]):
        health.see_loss(loss, number)
    ((text, fields),) = told
    assert (fields["what"], fields["step"], fields["start"]) == ("diverging", 3, 2.3)
    assert text == "the loss is 23.1, 10 times that of the start: training diverges; try another"


def test_what_was_told_before_an_interruption_is_not_told_again() -> None:
    new: Told = []
    events = [{"what": "dead", "layers": ["a"]}, {"what": "diverging"}]
    health = watching(new, told=events, start=2.0)
    health.see_rates({"a": 0.0}, 1, whole_split=True)
    health.see_loss(1e9, 1)
    assert new == []


def first_batch(recipe: Recipe) -> Any:
    samples, _ = open_splits(recipe, make_dataset(recipe), None, Listener())
    return next(RankBatches(recipe).train(samples, epoch=0))


def test_rates_are_looked_at_without_a_change() -> None:
    recipe = TINY.but(accumulate=2)
    net = make_network(recipe, make_dataset(recipe)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    rates = firing_rates(net, first_batch(recipe), 2)
    assert list(rates) == ["lif1", "lif2", "lif3"]
    assert all(0 <= rate <= 1 for rate in rates.values())
    assert all(module.training for module in net.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_network_that_cannot_learn_is_told_while_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_health, "PROBE_STEPS", 1)
    shown = Notes()
    norm = use("none")  # which would follow the threshold
    neuron = use("if", v_threshold=1e6)
    recipe = TINY.but(neuron=neuron, norm=norm, objective=use("none"), lr=1e-9)
    with pytest.raises(RuntimeError, match="the machine failed"):
        train(recipe, tmp_path, Execution(save_minutes=0), DyingNotes(shown))
    (path,) = tmp_path.iterdir()
    (event, *_) = [e for e in RunFolder.open(path).events() if e["event"] == "health"]
    assert (event["what"], event["step"]) == ("dead", 2)
    assert any(event["text"] in text for text in shown.text)
    resume(path, listener=shown)
    again = [e["layers"] for e in RunFolder.open(path).events() if e["event"] == "health"]
    assert len({name for names in again for name in names}) == sum(map(len, again))
    page = write([path], tmp_path / "report.html").read_text()
    assert event["text"].partition(":")[0] in page


def test_layers_are_not_judged_before_the_running_statistics_are_those_of_the_data(
    tmp_path: Path,
) -> None:
    """In evaluation mode layers may be silent that fire in training; at the end they are told."""
    dead = TINY.but(
        neuron=use("if", v_threshold=1e6), norm=use("none"), objective=use("none"), epochs=3
    )
    path = train(dead, tmp_path)
    steps = [e["step"] for e in RunFolder.open(path).events() if e["event"] == "health"]
    last = RunFolder.open(path).metrics()[-1]["step"]
    assert last < SETTLED
    assert steps == [last]


def test_a_resumed_run_compares_with_its_start_and_not_with_its_best_epoch(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, TINY.name, TINY.to_json(), command=[])
    for epoch, loss in enumerate([2.0, 0.1], 1):
        losses = {"train_loss": loss, "train_regularizer": 0.3}
        folder.log_metrics({"epoch": epoch, "step": 4 * epoch, **losses})
    told: Told = []
    health = health_of(folder, TINY, lambda text, fields: told.append((text, fields)))
    health.see_loss(22.9, 9)  # 57 times that of the second epoch
    assert told == []
    health.see_loss(23.1, 10)
    assert told[0][1]["start"] == 2.3


class DyingNotes(Dying):
    """Fails after the third step; keeps the remarks of another listener."""

    def __init__(self, notes: Notes) -> None:
        super().__init__(epoch=1, done=3)
        self.notes = notes

    def note(self, text: str) -> None:
        self.notes.note(text)


def test_a_run_that_diverges_is_told(tmp_path: Path) -> None:
    shown = Notes()
    recipe = TINY.but(lr=100.0, lr_schedule=use("constant"), objective=use("none"))
    path = train(recipe, tmp_path, listener=shown)
    assert any(e.get("what") == "diverging" for e in RunFolder.open(path).events())
    (told,) = (text for text in shown.text if "training diverges; try" in text)
    program, *words = shlex.split(told.rpartition("try ")[2])
    assert (program, words[:3]) == ("rmploss", ["train", "--fork", str(path)])
    assert main([*words, "--runs-dir", str(tmp_path / "again")]) == 0  # after the end, as it is
    (again,) = (tmp_path / "again").iterdir()
    assert RunFolder.open(again).recipe().lr == recipe.lr / 10
    assert RunFolder.open(again).recipe().epochs == 2 * recipe.epochs


def test_looking_changes_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = train(TINY, tmp_path / "without")
    monkeypatch.setattr(run_health, "PROBE_STEPS", 1)
    assert digest_of(train(TINY, tmp_path / "with")) == digest_of(without)
