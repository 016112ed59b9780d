"""Whole training is what `rmploss train` does: its own recipe, its own seconds."""

from pathlib import Path

import pytest

from rmploss.errors import UserError
from rmploss_bench import whole_training as whole
from tests.benchmarks.kits import tiny
from tests.benchmarks.test_timing import silent


def test_figures_are_those_of_the_epochs_after_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def train(recipe: object, folder: Path, execution: object) -> Path:
        lines = [(99.0, 99.0), (2.0, 0.5), (4.0, 1.0)]
        text = "".join(f'{{"train_s": {a}, "test_s": {b}}}\n' for a, b in lines)
        folder.mkdir()
        (folder / "metrics.jsonl").write_text(text)
        return folder

    monkeypatch.setattr(whole, "train", train)
    monkeypatch.setattr(whole.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(
        whole, "admitted", lambda *_, **__: ({"rmploss": None}, {"rmploss": "green"})
    )
    workload = type("Workload", (), {"conditions": tiny(data_dir="x", batch=4)})
    rate, share = whole.whole_training(workload, ["rmploss"], 2, silent)  # pyright: ignore[reportArgumentType]
    assert (rate.what, rate.figures) == (whole.RATE, (20.0, 10.0))  # 40 images: 10 steps of 4
    assert (share.what, share.figures) == (whole.SHARE, (0.2, 0.2))
    assert [*tmp_path.iterdir()] == []


def test_the_recipe_is_the_paper_s_under_the_conditions() -> None:
    conditions = tiny(precision="bf16", T=3, batch=4, data_dir="x")
    recipe = whole.recipe_of(conditions, "rmploss+rmp-captured", epochs=5)
    assert (recipe.name, recipe.T, recipe.batch_size) == ("cifar10-resnet20-rmp", 3, 4)
    assert (recipe.amp, recipe.epochs, recipe.train_samples) == ("bf16", 5, 40)


def test_what_cannot_be_trained_is_named() -> None:
    with pytest.raises(UserError, match=r"norse: is not trained.*(\n.*)*CIFAR-10: is not here"):
        whole.recipe_of(tiny(), "norse", epochs=2)
    with pytest.raises(UserError, match="--network resnet18: has no recipe on CIFAR-10"):
        whole.recipe_of(tiny("resnet18", data_dir="x"), "rmploss", epochs=2)
