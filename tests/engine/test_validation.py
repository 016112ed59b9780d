"""A run that is tested on held-out training samples."""

from pathlib import Path

from rmploss.data import InMemory
from rmploss.engine.batches import open_splits
from rmploss.engine.build import make_dataset
from rmploss.engine.listener import Listener
from rmploss.engine.load import evaluate_run
from rmploss.engine.run import RunFolder
from rmploss.engine.train import train
from rmploss.recipes import Recipe
from tests.engine.runs import TINY

HELD = TINY.but(validation=0.25)


def opened(recipe: Recipe) -> tuple[InMemory, InMemory]:
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
