"""Random numbers in training (dropout) are a function of seed and step, so runs resume."""

import signal
from pathlib import Path

import pytest
import torch

from rmploss import recipes
from rmploss.engine.train import resume, train
from rmploss.errors import InterruptedRunError
from rmploss.recipes import use
from tests.engine.runs import TINY, Interrupting, digest_of, untimed_metrics

DROPPING = recipes.override(
    TINY, {"accumulate": 2, "loss": "mse", "norm": "bn_step", "neuron": "plif"}
).but(network=use("plifnet", width=1 / 64, image_size=8))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    torch.manual_seed(1)
    return train(DROPPING, tmp_path_factory.mktemp("unbroken"))


def test_a_resumed_run_draws_the_masks_of_the_unbroken_one(unbroken: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)  # whatever the process has drawn before
    with pytest.raises(InterruptedRunError):
        train(DROPPING, tmp_path, listener=Interrupting("train", 1, 3, signal.SIGTERM))
    (path,) = tmp_path.iterdir()
    torch.manual_seed(3)
    resume(path)
    assert digest_of(path) == digest_of(unbroken)
    assert untimed_metrics(path) == untimed_metrics(unbroken)


def test_the_masks_matter(unbroken: Path, tmp_path: Path) -> None:
    still = DROPPING.but(network=DROPPING.network.but(dropout=0.0))
    assert digest_of(train(still, tmp_path)) != digest_of(unbroken)
