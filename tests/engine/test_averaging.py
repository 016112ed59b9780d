"""Averages of the weights: their formulas, what is skipped, and runs that are interrupted."""

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rmploss.cli import main
from rmploss.engine import checkpoint
from rmploss.engine.averaging import AVERAGES, WeightAverage
from rmploss.engine.build import make_dataset, make_network
from rmploss.engine.load import evaluate_run, load_network
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.errors import InterruptedRunError, NonFiniteError, UserError
from rmploss.models import SpikingNetwork, create
from rmploss.neurons.mpd_agl import AdaptiveWidthLIF
from rmploss.recipes import use
from tests.engine.runs import TINY, Interrupting, digest_of, untimed_metrics
from tests.given import normal
from tests.launches import Launches

STEPS = 8
AVERAGED = TINY.but(average=use("ema", decay=0.5))
FIELDS = ("averaged_accuracy", "averaged_ce", "averaged_quantization_error", "averaged_firing_rate")


def network() -> SpikingNetwork:
    return make_network(TINY, make_dataset(TINY)).double()


def make(net: SpikingNetwork, name: str, **options: Any) -> WeightAverage:
    return AVERAGES.make(name, net, STEPS, **options)


def train_a_step(net: SpikingNetwork, step: int) -> None:
    """Change all weights and statistics in place, as an optimizer and a forward do."""
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(normal(*tensor.shape, name=name, seed=step))
        else:
            tensor.fill_(step)


def coefficient(name: str, n: int) -> float:
    """c(n) of "ema" with decay 0.5 or 0.99, and of "swa" from step 4 of 8."""
    if name == "swa":
        return 1 / max(n - 4, 1)
    decay = {"ema 0.5": 0.5, "ema 0.99": 0.99}[name]
    return 1 - min(decay, (n + 1) / (n + 10))


@pytest.mark.parametrize(
    ("name", "options"),
    [("ema 0.5", {"decay": 0.5}), ("ema 0.99", {"decay": 0.99}), ("swa", {"start": 0.5})],
)
def test_it_is_its_formula(name: str, options: dict[str, float]) -> None:
    net = network()
    average = make(net, name.partition(" ")[0], **options)
    expected = {key: value.clone() for key, value in net.state_dict().items()}
    for n in range(1, STEPS + 1):
        train_a_step(net, n)
        average.update()
        for key, w in net.state_dict().items():
            a, c = expected[key], coefficient(name, n)
            expected[key] = a + c * (w - a) if w.is_floating_point() else w.clone()
    found = average.net.state_dict()
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-12, atol=1e-14)


def test_the_mean_of_the_last_half_is_a_mean() -> None:
    net = network()
    average = make(net, "swa", start=0.5)
    seen: list[Tensor] = []
    for n in range(1, STEPS + 1):
        train_a_step(net, n)
        average.update()
        seen.append(next(net.parameters()).detach().clone())
    found = next(average.net.parameters())
    torch.testing.assert_close(found, torch.stack(seen[4:]).mean(0), rtol=1e-12, atol=1e-14)


def test_a_skipped_step_changes_nothing() -> None:
    net = network()
    average, other = make(net, "ema"), make(net, "ema")
    train_a_step(net, 1)
    average.update(torch.tensor(False))
    other.update()
    train_a_step(net, 2)
    for value in (0.0, math.inf, -math.inf, math.nan):
        next(iter(net.buffers())).fill_(value)
        next(net.parameters()).data.fill_(value)
        average.update(torch.tensor(True))
        for name, tensor in other.tensors().items():
            assert torch.equal(average.tensors()[name], tensor), name


def test_an_update_launches_little() -> None:
    """A launch for each of 112 tensors would double those of a step of ResNet20."""
    average = make(create("resnet20", width=1 / 16), "ema")
    with Launches() as launches:
        average.update(torch.tensor(False))
    assert 5 < len(launches.found) < 20


def test_an_update_is_in_place_and_leaves_the_network_alone() -> None:
    net = network()
    average = make(net, "ema")
    places = {name: tensor.data_ptr() for name, tensor in average.tensors().items()}
    train_a_step(net, 1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    average.update()
    assert {name: tensor.data_ptr() for name, tensor in average.tensors().items()} == places
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in average.net.parameters())


def test_an_update_reads_nothing_on_the_host() -> None:
    with torch.device("meta"):
        net = network()
    average = make(net.to("meta"), "swa")
    average.update(torch.zeros((), dtype=torch.bool, device="meta"))
    make(net, "ema").update()


def test_what_was_saved_is_restored() -> None:
    net = network()
    average, other = make(net, "ema"), make(net, "ema")
    for n in (1, 2, 3):
        train_a_step(net, n)
        average.update()
    other.load({name: tensor.clone() for name, tensor in average.tensors().items()})
    train_a_step(net, 4)
    average.update()
    other.update()
    assert all(torch.equal(other.tensors()[n], t) for n, t in average.tensors().items())


def test_wrong_options_are_reported() -> None:
    for name, option in (("ema", "decay"), ("swa", "start")):
        for value in (-0.1, 1.0, math.nan):
            with pytest.raises(UserError, match=rf"{option}(?s:.*)must lie in \[0, 1\)"):
                make(network(), name, **{option: value})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an average, without interruption."""
    return train(AVERAGED, tmp_path_factory.mktemp("averaged"))


def stored(path: Path) -> dict[str, Tensor]:
    """The average's tensors in the last checkpoint."""
    loaded = checkpoint.load_latest(path, recipe_hash=RunFolder.open(path).recipe_hash)
    return {name: t for name, t in loaded.extra.items() if name.startswith("average/")}


@pytest.mark.parametrize(
    ("phase", "epoch", "done"),
    # Four batches of training and two passes of two batches of tests: trained, then averaged.
    [("train", 1, 3), ("test", 1, 1), ("test", 1, 3), ("train", 2, 2)],
)
def test_an_interrupted_average_goes_on_bit_for_bit(
    phase: str, epoch: int, done: int, unbroken: Path, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        train(AVERAGED, tmp_path, listener=Interrupting(phase, epoch, done, signal.SIGTERM))
    (path,) = tmp_path.iterdir()
    resume(path)
    assert digest_of(path) == digest_of(unbroken)
    assert untimed_metrics(path) == untimed_metrics(unbroken)
    expected = stored(unbroken)
    assert stored(path).keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in stored(path).items())


def test_what_evolves_sets_no_tensor_of_the_average() -> None:
    recipe = TINY.but(neuron=use("mpd_agl"))
    net = make_network(recipe, make_dataset(recipe))
    average = make(net, "ema")
    neuron: Any = next(m for m in average.net.modules() if isinstance(m, AdaptiveWidthLIF))
    neuron.met.fill_(True)
    neuron.norm_gain.fill_(0.1)
    before = {name: value.clone() for name, value in average.tensors().items()}
    width = neuron.surrogate.width
    average.evolve(0.5)
    assert neuron.surrogate.width == neuron.width_of(0.1) != width
    assert all(torch.equal(value, before[name]) for name, value in average.tensors().items())


def test_the_average_of_what_evolves_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """MPD-AGL keeps its width in a buffer."""
    recipe = AVERAGED.but(neuron=use("mpd_agl"))
    unbroken = train(recipe, tmp_path / "unbroken")
    with pytest.raises(InterruptedRunError):
        train(recipe, tmp_path, name="broken", listener=Interrupting("train", 2, 2, signal.SIGTERM))
    path = resume(tmp_path / "broken")
    assert digest_of(path) == digest_of(unbroken)
    expected = stored(unbroken)
    assert all(torch.equal(value, expected[name]) for name, value in stored(path).items())
    evaluated, last = evaluate_run(path, averaged=True), RunFolder.open(path).metrics()[-1]
    assert evaluated.loss == last["averaged_ce"]


def test_the_average_changes_nothing_of_the_training(unbroken: Path, tmp_path: Path) -> None:
    alone = untimed_metrics(train(TINY, tmp_path))
    both = untimed_metrics(unbroken)
    assert all(field in record for record in both for field in FIELDS)
    assert [{k: v for k, v in r.items() if k not in FIELDS} for r in both] == alone


def test_both_weights_are_evaluated(unbroken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = RunFolder.open(unbroken).metrics()[-1]
    trained, averaged = evaluate_run(unbroken), evaluate_run(unbroken, averaged=True)
    assert (trained.accuracy, trained.loss) == (last["test_accuracy"], last["test_ce"])
    assert (averaged.accuracy, averaged.loss) == (last["averaged_accuracy"], last["averaged_ce"])
    assert averaged.quantization_error == last["averaged_quantization_error"]
    assert averaged.loss != trained.loss
    assert main(["eval", str(unbroken), "--averaged"]) == 0
    assert f"{averaged.accuracy:.2f} %" in capsys.readouterr().out


def test_an_average_that_is_not_finite_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(self: WeightAverage, skip: Tensor | None = None) -> None:
        self.net.get_parameter("conv2.conv.weight").fill_(math.nan)

    monkeypatch.setattr(WeightAverage, "update", spoil)
    with pytest.raises(NonFiniteError, match="network of averaged weights outputs NaN") as caught:
        train(AVERAGED, tmp_path)
    assert "conv2.conv.weight" in str(caught.value)
    (path,) = tmp_path.iterdir()
    assert RunFolder.open(path).metrics() == []


def test_a_run_without_an_average_says_so(tmp_path: Path) -> None:
    path = train(TINY.but(epochs=1), tmp_path)
    with pytest.raises(UserError, match="its recipe has no average of the weights"):
        load_network(path, averaged=True)
