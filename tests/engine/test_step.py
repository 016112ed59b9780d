"""One step of Algorithm 1: its loss, its gradients, and what must stop it."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss import RMPLoss, membrane_stats, models
from rmploss.engine.build import check, make_dataset, make_network, make_optimizer
from rmploss.engine.optimizers import Position, learning_rate
from rmploss.engine.run import RunFolder
from rmploss.engine.step import forward_backward
from rmploss.engine.tally import Terms
from rmploss.engine.train import train
from rmploss.errors import NonFiniteError, UserError
from rmploss.objectives.none import NoRegularizer
from rmploss.objectives.weighting import weights_of
from rmploss.recipes import use
from tests.engine.runs import TINY
from tests.given import labels, normal


def network() -> models.SpikingNetwork:
    torch.manual_seed(0)
    return models.create("convnet", in_channels=1, width=0.125, T=2).double()


def test_the_loss_is_cross_entropy_plus_lambda_times_rmp() -> None:
    net, objective = network(), RMPLoss(k=0.4)
    x, y = normal(8, 1, 8, 8), labels(8, 10)
    terms = forward_backward(net, objective, x, y, weights=weights_of(objective, 0.25))
    got = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}

    net = network()
    with membrane_stats(spec=objective.spec) as stats:
        logits = net(x)
    ce, rmp = F.cross_entropy(logits, y), objective.value(stats)
    (ce + 0.4 * 2 * 0.25 * rmp).backward()  # Eqs. 11 and 12
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, rtol=0, atol=0)
    means = terms.means()
    assert means["train_loss"] == pytest.approx(ce.item(), abs=1e-12)
    assert means["train_regularizer"] == pytest.approx(0.2 * rmp.item(), abs=1e-12)
    assert means["train_accuracy"] == 100 * (logits.argmax(1) == y).double().mean()


def test_no_regularizer_adds_nothing() -> None:
    x, y = normal(8, 1, 8, 8), labels(8, 10)
    net = network()
    forward_backward(net, NoRegularizer(), x, y, weights=(0.0,))
    plain = network()
    F.cross_entropy(plain(x), y).backward()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("epoch", "batch", "rate"),
    [
        (0, 0, 0.01),
        (0, 9, 0.01),
        (200, 0, 0.005),
        (399, 9, 0.01 * (1 - math.cos(math.pi / 400)) / 2),
    ],
)
def test_the_papers_schedule_falls_by_a_cosine_once_per_epoch(
    epoch: int, batch: int, rate: float
) -> None:
    got = learning_rate(0.01, use("cosine"), Position(epoch, 400, batch, 10))
    assert got == pytest.approx(rate, rel=1e-12)


def test_onecycle_rises_to_the_peak_and_falls_to_nothing() -> None:
    rates = [
        learning_rate(0.1, use("onecycle"), Position(e, 10, b, 10))
        for e in range(10)
        for b in range(10)
    ]
    assert rates[0] == pytest.approx(0.1 / 25)
    assert rates[30] == pytest.approx(0.1)
    assert rates == sorted(rates[:31]) + sorted(rates[31:], reverse=True)
    assert rates[-1] < 1e-4


def test_accumulated_parts_give_the_mean_of_their_gradients(tmp_path: Path) -> None:
    recipe = TINY.but(accumulate=2)
    check(recipe, tmp_path)
    assert train(recipe.but(epochs=1), tmp_path).is_dir()
    with pytest.raises(UserError, match="accumulate = 3"):
        check(TINY.but(accumulate=3), tmp_path)


def test_half_precision_keeps_the_membranes_in_float32(tmp_path: Path) -> None:
    path = train(TINY.but(epochs=1, amp="bf16"), tmp_path)
    record = RunFolder.open(path).metrics()[0]
    assert math.isfinite(record["train_loss"])
    assert 0 < record["quantization_error"] < 1


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_number_that_is_not_finite_never_reaches_the_parameters(
    poison: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def poisoned(net: torch.nn.Module, *arguments: object, **options: object) -> Terms:
        nonlocal calls
        calls += 1
        terms = forward_backward(net, *arguments, **options)  # pyright: ignore[reportArgumentType]
        if calls == 3:
            if poison == "loss":
                return Terms(terms.sums * math.nan)
            grad = next(net.parameters()).grad
            assert isinstance(grad, Tensor)
            grad.view(-1)[0] = math.inf
        return terms

    monkeypatch.setattr("rmploss.engine.step.forward_backward", poisoned)
    with pytest.raises(NonFiniteError, match="epoch 1, batch 3") as stopped:
        train(TINY, tmp_path)
    assert stopped.value.exit_code == 3
    (path,) = tmp_path.iterdir()
    assert any(event["event"] == "non-finite" for event in RunFolder.open(path).events())
    assert [p.name for p in (path / "ckpt").iterdir()] == ["step-00000000"]


def test_weight_decay_on_weights_leaves_out_gains_offsets_and_biases() -> None:
    recipe = TINY.but(weight_decay_on="weights", weight_decay=0.1)
    net = make_network(recipe, make_dataset(recipe))
    decayed, spared = make_optimizer(recipe, net).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in spared["params"])


def test_the_seed_alone_decides_the_initial_weights() -> None:
    nets = [make_network(TINY.but(seed=seed), make_dataset(TINY)) for seed in (0, 0, 1)]
    first = [next(iter(net.parameters())) for net in nets]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_a_network_that_diverged_in_its_last_step_is_not_a_finished_run(tmp_path: Path) -> None:
    wild = TINY.but(epochs=1, lr=1e30, train_samples=32)
    with pytest.raises(NonFiniteError, match="test of epoch 1"):
        train(wild, tmp_path)
    (path,) = tmp_path.iterdir()
    assert not (path / "result.json").exists()
    assert RunFolder.open(path).metrics() == []
