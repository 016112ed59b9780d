"""Attacks on trained runs: in pixels, on the images that the run is tested on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rmploss.cli import main
from rmploss.data import Prepare, Standardize
from rmploss.data.digits import Digits
from rmploss.engine import attack, checkpoint
from rmploss.engine.attack import OfPixels, attack_run
from rmploss.engine.checkpoint import STATE
from rmploss.engine.load import evaluate_run
from rmploss.engine.train import train
from rmploss.errors import UserError
from rmploss.recipes import Recipe, get, override, use
from tests.engine.runs import TINY


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two seeds of a run that has learnt something."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = TINY.but(epochs=6, train_samples=512, test_samples=120, lr=0.1)
    first, second = (train(recipe.but(seed=seed), folder) for seed in (0, 1))
    return first, second


def test_pixels_are_standardized_in_front_of_the_network() -> None:
    seen: list[torch.Tensor] = []

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.flatten(1)

    standardize = Standardize([0.25], [0.5], white=16)
    stored = torch.randint(0, 17, (3, 1, 4, 4), dtype=torch.uint8)
    model = OfPixels(Net(), standardize)  # pyright: ignore[reportArgumentType]
    x = (stored / 16).requires_grad_()
    model(x).sum().backward()
    torch.testing.assert_close(seen[0], standardize(stored))
    torch.testing.assert_close(seen[0], (stored / 16 - 0.25) / 0.5)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, 2.0))  # 1 / std: eps counts in pixels


def test_a_run_is_attacked_on_its_test_images(runs: tuple[Path, Path]) -> None:
    first, second = runs
    small, large = attack_run(first, [1 / 255, 0.5], source=second)
    assert small.samples == 120
    assert small.clean == large.clean == evaluate_run(first).accuracy
    assert small.clean > 40
    assert large.pgd < small.pgd <= small.clean
    assert small.transfer is not None
    (fewer,) = attack_run(first, [0.1], samples=50, steps=1)
    assert (fewer.samples, fewer.transfer) == (50, None)


def test_the_command_line_prints_every_size(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(runs[0]), "--attack", "8/255", "0.2", "--attack-samples", "30"]
    assert main([*words, "--transfer", str(runs[1])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("attacks on 30 test images")
    assert lines[1] == "standard error: at most 9.1 points, as of 30 images"
    assert lines[2].split() == ["eps", "clean", "noise", "FGSM", "PGD", "transfer"]
    assert [line.split()[0] for line in lines[3:5]] == ["8/255", "0.2"]
    assert main([*words, "--json"]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [result["eps"] for result in results] == [8 / 255, 0.2]
    assert all(result["transfer"] is None and "masked" in result for result in results)
    assert all(result["standard_error"] == pytest.approx(9.13, abs=0.01) for result in results)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--attack large", "large"),
        ("--attack 1/0", "1/0"),
        ("--attack 0.1/", "0.1/"),
        ("--attack 2", "(0, 1]"),
        ("--attack 0.1 --fold", "--fold"),
        ("--attack 0.1 --averaged", "--averaged"),
        ("--attack 0.1 --workers 2", "--workers"),
        ("--attack 1e400", "(0, 1]"),
        ("--attack 1e-99999999", "(0, 1]"),
        ("--attack 1e99999999/1e99999999", "(0, 1]"),
        ("--transfer nowhere", "--attack 2/255"),
        ("--attack 0.1 --attack-samples 5000", "5000 samples"),
    ],
)
def test_mistakes(
    words: str, said: str, runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(runs[0]), *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_the_images_of_the_attacked_network_itself_are_refused(runs: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="another network") as caught:
        attack_run(runs[0], [0.1], source=runs[0])
    assert "is the attacked run" in str(caught.value)


def test_events_have_no_pixels_to_attack(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    changes = {"epochs": 1, "train_samples": 32, "test_samples": 16, "batch_size": 16, "T": 2}
    events = train(override(get("digits-events-convnet-rmp"), changes), tmp_path)
    with pytest.raises(UserError, match="cannot attack") as caught:
        attack_run(events, [0.1])
    assert "digits-events" in caught.value.problems[0].where
    with pytest.raises(UserError, match="other data"):
        attack_run(runs[0], [0.1], source=events)


def test_the_other_network_gets_images_standardized_as_in_its_training(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, seen = attack.open_splits, []

    def by_seed(recipe: Recipe, *arguments: Any) -> tuple[Any, Any]:
        test_split: Any
        train_split, test_split = usual(recipe, *arguments)
        test_split.prepare.standardize = Standardize([0.5 * recipe.seed], [1.0], white=16)
        return train_split, test_split

    def robustness(model: OfPixels, *_: object, source: OfPixels, **__: object) -> list[object]:
        seen.extend([model.standardize.mean.item(), source.standardize.mean.item()])
        return []

    monkeypatch.setattr(attack, "open_splits", by_seed)
    monkeypatch.setattr(attack, "robustness", robustness)
    attack_run(runs[0], [0.1], source=runs[1])
    assert seen == [0.0, 8.0]


def test_images_of_other_classes_are_refused(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = attack.load_network

    def other_classes(run: Path, which: Any, **options: Any) -> Any:
        net, recipe = usual(run, which, **options)
        return net, recipe if run == runs[0] else recipe.but(data=use("cifar100"))

    monkeypatch.setattr(attack, "load_network", other_classes)
    with pytest.raises(UserError, match="other data") as caught:
        attack_run(runs[0], [0.1], source=runs[1])
    assert "cifar100, 100 classes (apple, aquarium_fish, " in str(caught.value)
    assert "digits, 10 classes (0, 1, 2, 3, 4, ...), (1, 8, 8)" in str(caught.value)


def test_equally_many_other_classes_are_refused_too(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Turned(Digits):
        classes = tuple("9876543210")

    sets = iter([Turned(), Digits()])
    monkeypatch.setattr(attack, "make_dataset", lambda _: next(sets))
    with pytest.raises(UserError, match="other data"):
        attack_run(runs[0], [0.1], source=runs[1])


def test_a_run_in_half_precision_is_attacked_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(TINY.but(amp="bf16", epochs=1), tmp_path)
    autocast: list[bool] = []

    def robustness(model: OfPixels, batches: Any, *_: object, **__: object) -> list[object]:
        model.net.register_forward_pre_hook(
            lambda *_: autocast.append(torch.is_autocast_enabled("cpu"))
        )
        model(next(batches)[0])
        return []

    monkeypatch.setattr(attack, "robustness", robustness)
    attack_run(run, [0.1], device="cpu")
    assert autocast == [False]


def test_a_copy_of_the_attacked_run_is_no_other_network(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    with pytest.raises(UserError, match="another network") as caught:
        attack_run(runs[0], [0.1], source=copy)
    assert "holds the attacked network" in str(caught.value)


def test_images_that_are_prepared_by_more_than_a_standardization_are_refused(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Inverted(Prepare):
        standardize = Standardize([0.5], [1.0], white=16)

        def forward(self, stored: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
            return self.standardize(16 - stored.float())

    usual = attack.open_splits

    def inverted(*arguments: Any) -> Any:
        test_split: Any
        train_split, test_split = usual(*arguments)
        return train_split, replace(test_split, prepare=Inverted())

    monkeypatch.setattr(attack, "open_splits", inverted)
    with pytest.raises(UserError, match="cannot attack") as caught:
        attack_run(runs[0], [0.1])
    assert "by more than their standardization" in str(caught.value)


def test_a_damaged_checkpoint_and_other_images_are_told(
    runs: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(runs[0], tmp_path / "damaged")
    last = checkpoint.saved(run)[0]
    (last / STATE).write_bytes(b"x" + (last / STATE).read_bytes()[1:])
    words = ["eval", str(run), "--attack", "0.1", "--attack-samples", "10"]
    assert main([*words, "--device", "cpu"]) == 10
    told = capsys.readouterr()
    assert "attacks on 10 test images" in told.out
    assert f"of {run}, not its last checkpoint" in told.err
    with pytest.raises(UserError, match="another network"):
        attack_run(runs[1], [0.1], source=run)
    usual = attack.open_splits

    def fewer(*arguments: Any) -> Any:
        test_split: Any
        train_split, test_split = usual(*arguments)
        return train_split, test_split.select(torch.arange(50))

    monkeypatch.setattr(attack, "open_splits", fewer)
    words[1] = str(runs[0])
    assert main([*words, "--device", "cpu"]) == 0
    assert "note: the data are not those of the run" in capsys.readouterr().err
