"""A run tested on held-out training samples; splits that are read once; a run without analysis."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from rmploss.cli import main
from rmploss.data import DATASETS, InMemory, Splits
from rmploss.data.digits import Digits
from rmploss.engine.after_training import COST, MEMBRANE, PREDICTIONS
from rmploss.engine.batches import open_splits, splits_kept
from rmploss.engine.build import make_dataset
from rmploss.engine.execution import Execution
from rmploss.engine.listener import Listener
from rmploss.engine.load import evaluate_run
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.export.pack_run import pack_run
from rmploss.recipes import Recipe, use
from rmploss.report import write
from tests.engine.runs import TINY, digest_of

HELD = TINY.but(validation=0.25)


def opened(recipe: Any) -> tuple[InMemory, InMemory]:
    train_samples, test_samples = open_splits(recipe, make_dataset(recipe), None, Listener())
    assert isinstance(train_samples, InMemory)
    assert isinstance(test_samples, InMemory)
    return train_samples, test_samples


def test_the_held_out_share_replaces_the_test_split(tmp_path: Path) -> None:
    train_samples, held = opened(HELD)
    assert (len(train_samples), len(held)) == (96, 32)
    path = train(HELD, tmp_path)
    folder = RunFolder.open(path)
    data = next(event["data"] for event in folder.events() if event["event"] == "execute")
    assert (data["train"]["samples"], data["test"]["samples"]) == (96, 32)
    assert evaluate_run(path).accuracy == folder.metrics()[-1]["test_accuracy"]


@pytest.mark.parametrize("recipe", [TINY, HELD], ids=["test", "validation"])
def test_results_are_said_to_be_of_the_split_that_they_are_of(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the terminal, in the report, in the card of a pack and in the files of a run."""
    word, other = ("test", "validation") if recipe is TINY else ("validation", "test")
    count = len(opened(recipe)[1])
    path = train(recipe, tmp_path / "runs")
    for name in (PREDICTIONS, MEMBRANE, COST):
        assert json.loads((path / name).read_text())["split"] == word
    assert main(["eval", str(path)]) == 0
    assert f"({count} {word} samples)" in capsys.readouterr().out
    assert main(["eval", str(path), "--attack", "0.1"]) == 0
    assert f"attacks on {count} {word} images" in capsys.readouterr().out
    for more in ([], ["--attack", "0.1"]):
        assert main(["eval", str(path), "--json", *more]) == 0
        assert json.loads(capsys.readouterr().out)["split"] == word
    page = " ".join(write([path], tmp_path / "report.html").read_text().split())
    page = page.partition("<h2>To reproduce")[0]  # behind it are the fields of recipe and record
    for words in (f"% of the {word} split", f"{count} {word} samples", f"accuracy, {word} split"):
        assert words in page
    assert not re.search(rf"\b{other} (split|samples|images)", page, re.IGNORECASE)
    pack_run(path, tmp_path / "pack")
    assert f"| on the {word} split | |" in (tmp_path / "pack" / "README.md").read_text()


def test_kept_splits_are_those_that_a_run_reads_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [opened(HELD.but(seed=seed)) for seed in (0, 1)]
    count = []
    digits: Any = DATASETS["digits"]
    original = digits.open

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        count.append(self)
        return original(self, *arguments, **options)

    monkeypatch.setattr(digits, "open", counted)
    with splits_kept():
        kept = [opened(HELD.but(seed=seed, lr=lr)) for lr in (0.1, 0.2) for seed in (0, 1)][2:]
        assert len(count) == 2
        whole = opened(TINY)
        assert len(count) == 3
    assert len(whole[0]) == 128
    opened(HELD)
    assert len(count) == 4
    place = torch.arange(8), torch.tensor(3)
    for ours, theirs in zip(kept, alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.batch(*place)[0], other.batch(*place)[0])
    assert not torch.equal(kept[0][0].batch(*place)[0], kept[1][0].batch(*place)[0])


class Drawn(Digits):
    """A data set from outside: it draws its test split from the seed, and shows no options."""

    def __repr__(self) -> str:
        return "Drawn"

    def open(self, root: Path | None, *, seed: int, **options: Any) -> Splits:
        splits = super().open(root, seed=seed, **options)
        assert isinstance(splits.test, InMemory)
        first = 32 * seed + 16 * self.augment
        return Splits(splits.train, splits.test.select(torch.arange(first, first + 16)))


def test_the_split_of_another_seed_or_option_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "tests-drawn"
    monkeypatch.setitem(DATASETS._added, name, Drawn)
    recipes = [
        TINY.but(data=use(name, augment=augment), seed=seed, test_samples=None)
        for seed in (0, 1)
        for augment in (False, True)
    ]
    alone = [opened(recipe)[1].stored for recipe in recipes]
    with splits_kept():
        kept = [opened(recipe)[1].stored for recipe in recipes * 2]
    assert all(map(torch.equal, kept, alone * 2))
    assert len({one.numpy().tobytes() for one in alone}) == 4


def test_a_run_without_analysis_is_finished_and_gets_it_later(tmp_path: Path) -> None:
    path = train(TINY, tmp_path, Execution(analyze=False))
    before = digest_of(path)
    assert (path / "result.json").is_file()
    assert not (path / MEMBRANE).exists()
    resume(path)
    assert (path / MEMBRANE).is_file()
    assert (path / COST).is_file()
    assert digest_of(path) == before
