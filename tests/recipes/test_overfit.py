"""The table of 256 images: every method has a system; the tool stops, goes on and keeps rows."""

from dataclasses import replace
from pathlib import Path

import overfit
import pytest
import torch

from rmploss.recipes import METHODS, RECIPES, SUFFIX

CPU = torch.device("cpu")


def row(accuracy: str, setting: overfit.Try = overfit.TRIES[0]) -> overfit.Row:
    """A row of the vanilla network."""
    recipe = overfit.systems()["vanilla"]
    values = dict.fromkeys(overfit.Row.__dataclass_fields__, "1")
    mark = overfit.overfit(recipe, setting).fingerprint()[:12]
    return overfit.Row(
        **values
        | {"system": "vanilla", "recipe": recipe.name, "fingerprint": mark, "accuracy": accuracy}
        | {"factor": str(setting.factor), "cycle": str(setting.epochs)}
    )


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[overfit.Try]:
    """The settings that were trained, to 50, 60, 70 ... percent."""
    done: list[overfit.Try] = []

    def train(system: str, recipe: object, setting: overfit.Try, device: object) -> overfit.Row:
        done.append(setting)
        return row(str(40 + 10 * len(done)), setting)

    monkeypatch.setattr(overfit, "TABLE", tmp_path / "overfit.csv")
    monkeypatch.setattr(overfit, "row_of", train)
    return done


def test_every_method_has_a_system() -> None:
    known = overfit.systems()
    assert {name for name in METHODS if not {name, f"fair-{name}"} & {*known}} == set()
    own = {recipe.name for method in METHODS.values() for recipe in method.recipes}
    assert {*overfit.OWN.values()} <= own


def test_a_reason_is_that_of_a_row_that_has_not_learnt() -> None:
    found = overfit.rows()
    for method in METHODS.values():
        for name in method.unlearnt:
            assert name in {recipe.name for recipe in method.recipes}
            of_it = [row for row in found if row.recipe == name + SUFFIX]
            assert not any(row.learnt for row in of_it)
            assert f"* `{name}`: {method.unlearnt[name]}." in overfit.reasons()


def test_a_system_keeps_its_optimizer_and_loses_what_hinders_memory() -> None:
    recipe = overfit.systems()["tssl"]
    trained = overfit.overfit(recipe, overfit.Try(3, 120))
    assert (trained.optimizer, trained.clip_norm) == (recipe.optimizer, recipe.clip_norm)
    assert (trained.weight_decay, trained.loss) == (recipe.weight_decay, recipe.loss)
    assert trained.lr == pytest.approx(3 * recipe.lr)
    assert (trained.train_samples, trained.epochs) == (256, 120)
    assert trained.data.options["augment"] == "none"


def test_the_settings_are_tried_until_one_has_learnt(
    trained: list[overfit.Try], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overfit, "LEARNT", 70.0)
    overfit.main(["vanilla"])
    assert trained == [*overfit.TRIES[:3]]
    overfit.main(["vanilla"])
    assert len(trained) == 3
    assert [r.accuracy for r in overfit.rows()] == ["50", "60", "70"]
    assert "| **70** |" in overfit.table()


def test_what_was_tried_is_not_tried_again(trained: list[overfit.Try]) -> None:
    overfit.add(row("50", overfit.TRIES[1]))
    overfit.main(["vanilla"])
    assert trained == [overfit.TRIES[0], *overfit.TRIES[2:]]


def test_a_setting_that_is_asked_for_is_trained(trained: list[overfit.Try]) -> None:
    overfit.add(row("99"))
    overfit.main(["vanilla", "--rate", "2", "--epochs", "9"])
    assert trained == [overfit.Try(2, 9)]


def test_the_row_of_a_recipe_that_has_changed_is_not_shown(trained: list[overfit.Try]) -> None:
    changed = replace(row("99"), fingerprint="0")
    overfit.add(changed)
    assert "99" not in overfit.table()
    overfit.main(["vanilla"])
    assert trained == [*overfit.TRIES]


def test_an_unknown_system_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        overfit.main(["vanila"])
    assert "no system vanila" in capsys.readouterr().err


def test_a_network_trains_until_it_knows_its_images() -> None:
    recipe = RECIPES["digits"].but(train_samples=256, batch_size=32, epochs=30)
    done = overfit.train(recipe, CPU)
    assert done.accuracy >= overfit.LEARNT
    assert done.steps % 8 == 0
    assert done.steps < 30 * 8
    assert (done.first, done.awake) == (0, "1")
