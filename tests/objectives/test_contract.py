"""Invariants of every regularizer of the table: gradients, shards, weight, statistics."""

import pytest
import torch
from torch import Tensor

from rmploss import membrane_stats, stats
from rmploss.models import create
from rmploss.objectives import OBJECTIVES, SCHEDULES, Objective
from rmploss.objectives.several import SeveralRegularizers
from rmploss.ops.lif import moments as rows
from rmploss.ops.lif.moments import MomentSpec
from rmploss.stats import MembraneStats
from tests.given import Layer, normal

SHAPE = (3, 4, 2, 5)
PROGRESS = 0.3


@pytest.fixture(params=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> Objective:
    """Each regularizer with its defaults."""
    return OBJECTIVES.make(request.param)


def record(objective: Objective, *membranes: Tensor, fired: Tensor | None = None) -> MembraneStats:
    """The statistics of layers whose membranes `[T, B, C, N]` are given.

    fired: what counts as the spikes of the last layer, in place of those of its membrane.
    """
    spec = objective.spec or MomentSpec()
    stats = MembraneStats(spec)
    for index, u in enumerate(membranes):
        target = (u >= 0.5).to(u.dtype)
        o = target if fired is None or index < len(membranes) - 1 else fired
        by_step = [
            rows.membrane_moments(u_t, o_t, target_t, spec)
            for u_t, o_t, target_t in zip(u, o, target, strict=True)
        ]
        layer = Layer("")
        steps = torch.stack(by_step)
        stats.record(layer, steps if spec.per_step else steps.sum(0), u.numel() // u.shape[2])
    return stats


def test_the_call_is_the_weighted_value(objective: Objective) -> None:
    stats = record(objective, normal(*SHAPE), normal(2, 4, 3, 5))
    if isinstance(objective, SeveralRegularizers):
        return  # each has a weight of its own: test_several.py
    value, term = objective.value(stats), objective(stats, PROGRESS)
    assert value.shape == term.shape == ()
    assert term.item() == pytest.approx(objective.weight(PROGRESS) * value.item(), rel=1e-14)


def test_the_gradient_is_a_finite_difference(objective: Objective) -> None:
    # Narrow and off the threshold: there every term of every regularizer is at work.
    u = (0.3 * normal(*SHAPE) + 0.2).requires_grad_()
    o = (u.detach() >= 0.5).double().requires_grad_()  # moved on its own, as by a surrogate
    h = torch.finfo(torch.float64).eps ** (1 / 3)
    # No membrane close to the threshold: the targets of the difference stay what they are.
    assert (u - 0.5).abs().min() > 4 * h

    def value(u: Tensor, o: Tensor) -> Tensor:
        return objective.value(record(objective, u, fired=o))

    term = value(u, o)
    if objective.spec is None:
        assert not term.requires_grad
        return
    g_u, g_o = torch.autograd.grad(term, (u, o), allow_unused=True, materialize_grads=True)
    d_u, d_o = normal(*SHAPE, name="direction"), normal(*SHAPE, name="spikes")
    with torch.no_grad():
        ahead, behind = value(u + h * d_u, o + h * d_o), value(u - h * d_u, o - h * d_o)
    slope = (g_u * d_u).sum() + (g_o * d_o).sum()
    # Truncation and rounding of a central difference are each about h^2 of the values.
    torch.testing.assert_close(
        (ahead - behind) / (2 * h), slope, rtol=0, atol=100 * h * h * (1 + term.item())
    )
    assert abs(slope.item()) > 1e-6


def test_the_term_of_a_rank_is_that_of_the_global_batch(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Data parallelism averages the ranks' gradients, and so their terms. A term that is linear in
    # the moments is taken of each share alone; another one takes the moments of all ranks.
    if objective.spec is None or isinstance(objective, SeveralRegularizers):
        return
    whole = [(0.3 * normal(*size) + 0.2).requires_grad_() for size in (SHAPE, (2, 4, 3, 5))]
    value = objective.value(record(objective, *whole))
    shares = [[u[:, start : start + 2] for u in whole] for start in (0, 2)]
    sums = [[entry.moments.detach() for entry in record(objective, *share)] for share in shares]
    terms = []
    for rank, share in enumerate(shares):
        others = iter(sums[1 - rank])
        monkeypatch.setattr(stats, "ranks", lambda sync=True: 2)
        monkeypatch.setattr(stats, "all_reduce_sum", lambda x, others=others: x + next(others))
        terms.append(objective.value(record(objective, *share)))
        monkeypatch.undo()
    # What stands in for `all_reduce_sum` has no gradient to the other rank, whose half of it would
    # come back from there: of the shares' own halves, a linear term needs the mean, others the sum.
    shared = terms[0].item() == pytest.approx(value.item(), rel=1e-12)
    total = torch.stack(terms).sum() / (1 if shared else 2)
    torch.testing.assert_close(terms[0] if shared else total, value, rtol=1e-12, atol=1e-15)
    expected, found = (torch.autograd.grad(term, whole) for term in (value, total))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-15)


def test_the_weight_is_that_of_a_schedule(objective: Objective) -> None:
    weights = [objective.weight(n / 10) for n in range(11)]
    assert all(isinstance(weight, float) and weight >= 0 for weight in weights)


def test_layers_and_schedule_are_chosen_by_the_same_options() -> None:
    others = OBJECTIVES.keys() - {"none", "several"}
    for name in others:
        options = OBJECTIVES.complete(name, {})
        assert (options["include"], options["exclude"]) == (("*",), ())
        assert options["schedule"] in SCHEDULES
        problems = OBJECTIVES.problems(name, {"include": "lif1", "exclude": (1,), "schedule": 2})
        assert [p.where.partition(" = ")[0] for p in problems] == [
            "objective.include", "objective.exclude", "objective.schedule"
        ]  # fmt: skip
    assert len(others) >= 5


def test_it_takes_the_statistics_of_a_network(objective: Objective) -> None:
    net = create("convnet", in_channels=1, width=0.125)
    with membrane_stats(net, objective.spec) as stats:
        logits = net(normal(2, 1, 8, 8).float())
    (logits.square().sum() + objective(stats, PROGRESS)).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert net.conv1.conv.weight.grad is not None  # pyright: ignore


def test_it_has_a_card(objective: Objective) -> None:
    doc = type(objective).__doc__
    assert doc
    assert len(doc) > 40
