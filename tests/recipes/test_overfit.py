"""The table of 256 images: every method has a system; the tool stops, goes on and keeps rows."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import csv_rows
import overfit
import pytest
import torch

from rmploss.errors import UserError
from rmploss.recipes import METHODS, RECIPES, SUFFIX

CPU = torch.device("cpu")


def row(
    accuracy: str, setting: overfit.Try = overfit.TRIES[0], system: str = "vanilla"
) -> overfit.Row:
    """A row of a system, of the vanilla network."""
    recipe = overfit.systems()[system]
    values = dict.fromkeys(overfit.Row.__dataclass_fields__, "1")
    mark = overfit.mark(overfit.overfit(recipe, setting))
    return overfit.Row(
        **values
        | {"system": system, "recipe": recipe.name, "fingerprint": mark, "accuracy": accuracy}
        | {"factor": f"{setting.factor:g}", "cycle": str(setting.epochs)}
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


def cards() -> dict[str, tuple[str, str]]:
    """Pocket recipes with a reason on a card -> the reason, and "any" or "own" rate it is of."""
    found = {
        name + SUFFIX: (why, "any") for m in METHODS.values() for name, why in m.unlearnt.items()
    }
    return found | {
        f"fair-{m.name}{SUFFIX}": (
            m.reservation,
            "any" if "does not learn" in m.reservation else "own",
        )
        for m in METHODS.values()
        if m.reservation
    }


def test_a_reason_is_of_a_recipe_of_its_method() -> None:
    for method in METHODS.values():
        assert {*method.unlearnt} <= {recipe.name for recipe in method.recipes}
    assert {*cards()} <= {recipe.name for recipe in overfit.systems().values()}


def test_a_reason_is_that_of_rows_that_have_not_learnt() -> None:
    """Of a recipe none has; of a method on the fair protocol none at its own rate in 480 steps."""
    found = [(row, cards()[row.recipe][1]) for row in overfit.rows() if row.recipe in cards()]
    first = ("1", str(overfit.TRIES[0].epochs))
    against = [
        row
        for row, rate in found
        if row.learnt and (rate == "any" or (row.factor, row.cycle) == first)
    ]
    assert found
    assert not against, "mend the cards of these methods"


def test_the_first_accuracy_of_a_reason_is_that_of_its_row() -> None:
    """Where a row of as many steps at the recipe's own rate is there."""
    compared = 0
    for recipe, (why, _) in cards().items():
        figures = re.search(r"(\d+) % (?:after|in) (\d+) steps", why)
        assert figures, f"{recipe}: its card says no accuracy and number of steps"
        accuracy, steps = map(int, figures.groups())
        for row in overfit.rows():
            if (row.recipe, row.factor, int(row.steps)) == (recipe, "1", steps):
                assert abs(float(row.accuracy) - accuracy) <= 1, recipe
                compared += 1
    assert compared


def test_reasons_are_told_by_the_rows(trained: list[overfit.Try]) -> None:
    """A card alone is no evidence; what has learnt is not listed; a cause is not made up."""
    known = overfit.on_cards()
    card = known["fair-stbp-pocket"]
    assert f"* `fair-stbp` (`fair-stbp-pocket`), not run for the table above: {card}." in (
        overfit.reasons().splitlines()
    )
    assert "`vanilla`" not in overfit.reasons()
    overfit.add(row("50", system="fair-stbp"))
    overfit.add(row("50"))
    overfit.add(row("60", overfit.TRIES[1]))
    told = overfit.reasons().splitlines()
    assert f"* `fair-stbp` (`fair-stbp-pocket`): {card} (settings tried: 1)." in told
    best = "60 % at best (settings tried: 2); cause not measured."
    vanilla = f"* `vanilla` (`cifar10-resnet20-pocket`): {best}"
    assert vanilla in told
    overfit.add(row("95", overfit.TRIES[2], system="fair-stbp"))
    overfit.add(row("95", overfit.TRIES[2]))
    assert "`vanilla`" not in overfit.reasons()
    assert "`fair-stbp`" not in overfit.reasons()


def test_a_reason_of_no_system_is_told_as_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfit, "on_cards", lambda: {"another-pocket": "of a card"})
    assert "* `another-pocket`, not run for the table above: of a card." in overfit.reasons()


def test_a_system_that_has_not_learnt_has_a_reason() -> None:
    unlearnt = {name + SUFFIX for method in METHODS.values() for name in method.unlearnt}
    reserved = {f"fair-{name}{SUFFIX}" for name, method in METHODS.items() if method.reservation}
    found = overfit.rows()
    learnt = {row.recipe for row in found if row.learnt}
    assert {row.recipe for row in found} - learnt <= unlearnt | reserved


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


def test_the_row_of_a_recipe_that_has_changed_is_kept_and_not_shown(
    trained: list[overfit.Try],
) -> None:
    changed = replace(row("99"), fingerprint="0")
    unknown = replace(row("98"), system="of another version")
    overfit.add(unknown)
    overfit.add(changed)
    assert "99" not in overfit.table()
    overfit.main(["vanilla"])
    assert trained == [*overfit.TRIES]
    kept = csv_rows.read(overfit.TABLE)
    assert [each["accuracy"] for each in kept] == ["99", "50", "60", "70", "80", "90", "98"]
    assert [each.accuracy for each in overfit.rows()] == ["50", "60", "70", "80", "90"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("accuracy", ""),
        ("accuracy", "2580"),
        ("factor", "abc"),
        ("cycle", "60.5"),
        ("lr", "nan"),
        ("awake", "-1"),
        ("cpu_s", "1,2"),
    ],
)
def test_a_damaged_file_is_told_with_its_line(
    trained: list[overfit.Try], field: str, value: str
) -> None:
    lines = [",".join(overfit.COLUMNS), ",".join(asdict(row("99")).values())]
    damaged = ",".join({**asdict(row("99")), field: value}.values())
    overfit.TABLE.write_text("\n".join([*lines, "", damaged, ""]))
    what = "16 values, not 15" if "," in value else f"{field} cannot be {value!r}"
    with pytest.raises(SystemExit, match=f"error: .*\n.*overfit.csv, line 4: {what}"):
        overfit.main(["vanilla"])
    assert not trained
    overfit.TABLE.write_text("my notes\n")
    with pytest.raises(UserError, match="line 1: the columns are not system,"):
        overfit.table()


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
