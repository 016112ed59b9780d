"""Training: the parameters after a step, and which losses and gradients stop it."""

import copy
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmploss import ops
from rmploss.conv import SpikeConv2d
from rmploss.engine import batches, checkpoint, train
from rmploss.engine.batches import RankBatches, micro_batches, open_splits
from rmploss.engine.build import make_dataset, make_network, make_objective
from rmploss.engine.evaluate import evaluate
from rmploss.engine.execution import Execution
from rmploss.engine.listener import Listener
from rmploss.engine.load import evaluate_run, load_network
from rmploss.engine.optimizers import Position, learning_rate
from rmploss.engine.run import RunFolder
from rmploss.engine.step import forward_backward
from rmploss.engine.tally import Terms
from rmploss.engine.train import resume
from rmploss.errors import InterruptedRunError, NonFiniteError, UserError
from rmploss.export.pack_run import pack_run
from rmploss.neurons.dsr import DSRIF
from rmploss.neurons.evolving import EvolvingLIF
from rmploss.neurons.lif import LIF
from rmploss.objectives.weighting import weights_of
from rmploss.ops.lif import reference
from rmploss.recipes import Recipe, use
from tests.engine.runs import TINY, digest_of

RATE = learning_rate(TINY.lr, TINY.lr_schedule, Position(0, 1, 0, 1))


def before_its_step(recipe: Recipe) -> tuple[nn.Module, list[Tensor]]:
    """The network before the only step of a run, with the mean gradient of its micro-batches."""
    dataset, objective = make_dataset(recipe), make_objective(recipe)
    samples, _ = open_splits(recipe, dataset, None, Listener())
    ((x, y),) = RankBatches(recipe).train(samples, epoch=0)
    net = make_network(recipe, dataset)
    for images, labels in micro_batches(x, y, recipe.accumulate):
        assert len(labels) == recipe.batch_size // recipe.accumulate
        forward_backward(net, objective, images, labels, weights=weights_of(objective, 1.0))
    gradients = [p.grad / recipe.accumulate for p in net.parameters() if p.grad is not None]
    assert len(gradients) == len(list(net.parameters()))
    return net, gradients


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_a_step_is_algorithm_1_on_the_mean_of_micro_batches(
    accumulate: int, tmp_path: Path
) -> None:
    recipe = TINY.but(epochs=1, train_samples=32, accumulate=accumulate, weight_decay=0.25)
    trained, _ = load_network(train.train(recipe, tmp_path))
    net, gradients = before_its_step(recipe)
    for p, gradient, ours in zip(net.parameters(), gradients, trained.parameters(), strict=True):
        expected = p.detach() - RATE * (gradient + 0.25 * p.detach())
        torch.testing.assert_close(ours.detach(), expected, rtol=1e-6, atol=1e-7)
    for theirs, ours in zip(net.buffers(), trained.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("share", [0.25, 4.0])
def test_gradients_longer_than_the_norm_are_cut_to_it(share: float, tmp_path: Path) -> None:
    recipe = TINY.but(epochs=1, train_samples=32, accumulate=2, weight_decay=0.25)
    net, gradients = before_its_step(recipe)
    norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients))
    trained, _ = load_network(train.train(recipe.but(clip_norm=share * norm), tmp_path))
    factor = min(share, 1.0)  # of the gradients: weight decay comes after
    for p, gradient, ours in zip(net.parameters(), gradients, trained.parameters(), strict=True):
        expected = p.detach() - RATE * (factor * gradient + 0.25 * p.detach())
        torch.testing.assert_close(ours.detach(), expected, rtol=1e-6, atol=1e-7)
        assert (RATE * (1 - factor) * gradient).abs().max() > 2e-6 or share > 1


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_the_norm_is_that_of_the_gradients_without_their_scale(amp: str, tmp_path: Path) -> None:
    recipe = TINY.but(
        epochs=1, train_samples=32, weight_decay=0.0, amp=amp, clip_norm=0.125, lr=1.0,
        lr_schedule=use("constant"),
    )  # fmt: skip
    net = make_network(recipe, make_dataset(recipe))
    trained, _ = load_network(train.train(recipe, tmp_path))
    moved = [
        (p - q).detach().double().square().sum().item()
        for p, q in zip(net.parameters(), trained.parameters(), strict=True)
    ]
    # The parameters, of the norm 7 together, are rounded to 2^-24; torch adds 1e-6 to the norm.
    assert math.sqrt(sum(moved)) == pytest.approx(0.125, abs=1e-6)


class Watching:
    """`forward_backward` that records the network before each call."""

    def __init__(self, look: Callable[[nn.Module], Any]) -> None:
        self.look = look
        self.seen: list[Any] = []

    def __call__(self, net: nn.Module, objective: Any, x: Tensor, y: Tensor, **options: Any):
        self.seen.append(self.look(net))
        return forward_backward(net, objective, x, y, **options)


def test_every_step_brings_the_parameters_back_into_their_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DSR's thresholds, which start at their bound and which weight decay pulls under it."""
    watching = Watching(
        lambda net: [m.threshold.item() for m in net.modules() if isinstance(m, DSRIF)]
    )
    monkeypatch.setattr("rmploss.engine.step.forward_backward", watching)
    neuron = use("dsr-if", threshold=0.75, bound=0.75)
    recipe = TINY.but(neuron=neuron, objective=use("none"), weight_decay=0.9)
    net, _ = load_network(train.train(recipe, tmp_path))
    last = watching.look(net)
    assert [len(thresholds) for thresholds in watching.seen] == [3] * 8
    assert min(min(thresholds) for thresholds in watching.seen) == 0.75
    assert min(last) == 0.75


def test_every_step_brings_the_weights_back_into_their_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TSSL-BP's weights, which a rate of 3 takes out of [-4, 4] at once."""
    watching = Watching(lambda net: max(p.abs().max().item() for p in net.parameters()))
    monkeypatch.setattr("rmploss.engine.step.forward_backward", watching)
    recipe = TINY.but(
        network=use("tssl-cifarnet", width=1 / 32, image_size=8, dropout=0.0), T=5,
        neuron=use("tssl"), norm=use("none"), loss=use("van_rossum"), objective=use("none"),
        optimizer=use("adamw"), lr=3.0, lr_schedule=use("constant"),
    )  # fmt: skip
    net, _ = load_network(train.train(recipe, tmp_path))
    assert watching.seen[1:] == [4.0] * 7
    assert watching.look(net) == 4.0


def test_surrogates_evolve_with_the_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IM-Loss: K(n) = 10^(n/N), n from 1 on, the same for all steps of an epoch."""
    watching = Watching(
        lambda net: [m.surrogate.alpha / 2 for m in net.modules() if isinstance(m, EvolvingLIF)]  # pyright: ignore
    )
    monkeypatch.setattr("rmploss.engine.step.forward_backward", watching)
    train.train(TINY.but(neuron=use("evolving"), epochs=3), tmp_path)
    assert len(watching.seen) == 12
    for step, steepness in enumerate(watching.seen):
        assert steepness == pytest.approx([10 ** ((step // 4 + 1) / 3)] * 3, rel=1e-12)


def test_what_evolves_is_tested_loaded_and_analyzed_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neuron may evolve in its forward, too: here its threshold sinks from epoch to epoch."""

    def sink(neuron: EvolvingLIF, progress: float) -> None:
        neuron.v_threshold = 0.5 - 0.4 * progress

    monkeypatch.setattr(EvolvingLIF, "evolve", sink)
    path = train.train(TINY.but(neuron=use("evolving"), average=use("ema", decay=0.5)), tmp_path)
    first, last = RunFolder.open(path).metrics()
    assert last["firing_rate"] > 1.2 * first["firing_rate"] > 0
    found, averaged = evaluate_run(path), evaluate_run(path, averaged=True)
    assert (found.loss, found.firing_rate) == (last["test_ce"], last["firing_rate"])
    assert averaged.loss == last["averaged_ce"]
    assert averaged.firing_rate == last["averaged_firing_rate"]
    before = (path / "membrane.json").read_bytes()
    (path / "membrane.json").unlink()
    train.resume(path)
    assert (path / "membrane.json").read_bytes() == before
    claims, _ = pack_run(path, tmp_path / "pack")
    assert evaluate_run(tmp_path / "pack", device="cpu").firing_rate == claims.firing_rate
    neurons = [m for m in load_network(tmp_path / "pack")[0].modules() if isinstance(m, LIF)]
    assert [neuron.v_threshold for neuron in neurons] == pytest.approx([0.1] * 3)


def test_parts_are_cut_along_the_batch() -> None:
    frames, labels = torch.arange(48.0).view(2, 4, 1, 2, 3), torch.arange(4)  # [T, B, C, H, W]
    first, second = micro_batches(frames, labels, 2)
    assert torch.equal(torch.cat([first[0], second[0]], 1), frames)
    assert first[0].shape == (2, 2, 1, 2, 3)
    assert [first[1].tolist(), second[1].tolist()] == [[0, 1], [2, 3]]


def test_the_metrics_are_those_of_the_epoch(tmp_path: Path) -> None:
    recipe = TINY.but(epochs=4)
    path = train.train(recipe, tmp_path)
    records = RunFolder.open(path).metrics()
    assert [r["lambda"] for r in records] == [0.5, 1.0, 0.5, 0.0]  # Eq. 12 with k = 1, N = 4
    assert [r["step"] for r in records] == [4, 8, 12, 16]
    rates = [learning_rate(0.1, use("onecycle"), Position(n, 4, 3, 4)) for n in range(4)]
    assert [r["lr"] for r in records] == rates  # of the epoch's last step
    net, _ = load_network(path)
    _, samples = open_splits(recipe, make_dataset(recipe), None, Listener())
    again = evaluate(net, batches.RankBatches(recipe).test(samples))
    last = records[-1]
    assert (last["test_accuracy"], last["test_ce"]) == (again.accuracy, again.loss)
    assert last["quantization_error"] == again.quantization_error
    assert list(last["layers"]) == ["lif1", "lif2", "lif3"]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_in_half_precision_the_membranes_stay_in_float32(
    amp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    membranes, currents = set(), set()
    step, convolution = reference.lif_step, SpikeConv2d.convolve

    def look(x: Tensor, u: Tensor, **options: Any) -> Any:
        membranes.update((x.dtype, u.dtype))
        return step(x, u, **options)

    def convolve(module: SpikeConv2d, x: Tensor, **options: Any) -> Tensor:
        y = convolution(module, x, **options)
        if module.training and torch.is_grad_enabled():  # not the rehearsal before the run
            currents.add(y.dtype)
        return y

    monkeypatch.setattr(reference, "lif_step", look)
    monkeypatch.setattr(SpikeConv2d, "convolve", convolve)
    with ops.use_backend("reference"):
        path = train.train(TINY.but(amp=amp), tmp_path)
    assert membranes == {torch.float32}
    assert currents == {{"bf16": torch.bfloat16, "fp16": torch.float16}[amp]}
    net, _ = load_network(path)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in net.parameters())
    assert all(math.isfinite(r["train_loss"]) for r in RunFolder.open(path).metrics())


class Poison:
    """`forward_backward` whose fourth call has a number that is not finite."""

    def __init__(self, kind: str) -> None:
        self.kind, self.calls = kind, 0
        self.parameters: list[Tensor] = []
        self.net: nn.Module = nn.Identity()

    def __call__(self, net: nn.Module, objective: Any, x: Tensor, y: Tensor, **options: Any):
        self.calls += 1
        if self.calls != 4:
            return forward_backward(net, objective, x, y, **options)
        self.net, self.parameters = net, copy.deepcopy(list(net.parameters()))
        if self.kind == "input":
            x = x.clone()
            x[0, 0, 0, 0] = math.nan
        terms = forward_backward(net, objective, x, y, **options)
        gradient = next(net.parameters()).grad
        assert gradient is not None
        match self.kind:
            case "gradient":
                gradient.view(-1)[0] = -math.inf
            case "loss":
                terms += Terms(torch.tensor([math.inf, 0, 0, 0]))
            case "regularizer":
                terms += Terms(torch.tensor([0, math.nan, 0, 0]))
        return terms


@pytest.mark.parametrize("kind", ["input", "gradient", "loss", "regularizer"])
def test_what_is_not_finite_never_reaches_the_parameters(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = Poison(kind)
    monkeypatch.setattr("rmploss.engine.step.forward_backward", poison)
    with pytest.raises(NonFiniteError, match=r"\(epoch 1, batch 4\)") as caught:
        train.train(TINY, tmp_path)
    assert caught.value.exit_code == 3
    assert "its last checkpoint is intact" in str(caught.value)
    for before, after in zip(poison.parameters, poison.net.parameters(), strict=True):
        assert torch.equal(before, after)
    (path,) = tmp_path.iterdir()
    event = RunFolder.open(path).events()[-1]
    assert (event["event"], event["step"]) == ("non-finite", 3)

    monkeypatch.undo()  # What was wrong is mended: the run goes on as if it had never been.
    unbroken = train.train(TINY, tmp_path / "unbroken")
    assert digest_of(resume(path)) == digest_of(unbroken)


class BetweenEpochs(Listener):
    """Sends this process a signal after its first epoch."""

    def epoch(self, record: dict[str, Any]) -> None:
        if record["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_between_two_epochs_saves_nothing_twice(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match="stopped after step 4"):
        train.train(TINY, tmp_path, listener=BetweenEpochs())
    (path,) = tmp_path.iterdir()
    names = sorted(saved.name for saved in (path / "ckpt").iterdir())
    assert names == ["step-00000000", "step-00000004"]
    unbroken = train.train(TINY, tmp_path / "unbroken")
    assert digest_of(resume(path)) == digest_of(unbroken)


@pytest.mark.parametrize(
    "changes",
    [
        {"T": 1},
        {"batch_size": 1, "train_samples": 2},
        {"test_samples": 1},
        {"network": TINY.network.but(width=1e-9)},
    ],
)
def test_the_smallest_recipes_stay_finite(changes: dict[str, Any], tmp_path: Path) -> None:
    path = train.train(TINY.but(epochs=1, **changes), tmp_path)
    (record,) = RunFolder.open(path).metrics()
    plain = [value for value in record.values() if not isinstance(value, dict)]
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in plain)


def test_loss_scaling_leaves_out_a_step_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp16 an infinite gradient is how the scaler learns its scale."""
    monkeypatch.setattr("rmploss.engine.step.forward_backward", Poison("gradient"))
    path = train.train(TINY.but(amp="fp16"), tmp_path)
    loaded = checkpoint.load_latest(path, recipe_hash=RunFolder.open(path).recipe_hash)
    assert loaded.scaler_state is not None
    assert loaded.scaler_state["scale"] == 2.0**15  # half of the first one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 200}, "only 128 training samples, so no batch is full   at most 128"),
        ({"train_samples": 5000}, "the split has 1437"),
        ({"test_samples": 500}, "the split has 360"),
        ({"T": 0}, "T = 0: must be at least 1"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train.train(TINY.but(**changes), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(UserError, match="workers = -1: is negative"):
        Execution(workers=-1)
