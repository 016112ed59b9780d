"""The reconstructed RecDis loss: every term against the literal formula, alone and together."""

import pytest
import torch
from torch import Tensor

from rmploss import LIF, UserError, membrane_stats
from rmploss.objectives.recdis import RecDisLoss
from tests.given import normal

V, A = 0.5, 0.5


def value(loss: RecDisLoss, *us: Tensor, fires_at: float = V) -> Tensor:
    """Of layers without memory, whose potentials are given."""
    with membrane_stats(spec=loss.spec) as stats:
        for u in us:
            LIF(u.shape[2], decay=0.0, v_threshold=fires_at)(u)
    return loss.value(stats)


def terms(u: Tensor, v: float = V, a: float = A) -> tuple[Tensor, Tensor, Tensor]:
    """Degeneration, mismatch, saturation, mean over channels."""
    m = u.mean((0, 1, 3))
    s = (u - m.view(-1, 1)).square().mean((0, 1, 3)).sqrt()
    d = (m - v).abs()
    zero = torch.zeros_like(m)
    return (
        torch.maximum(d**2 - s**2, zero).mean(),
        (torch.maximum(2 * a - d - s, zero) ** 2).mean(),
        (torch.maximum(s - 4 * a, zero) ** 2).mean(),
    )


@pytest.mark.parametrize(
    ("mean", "std", "at_work"),
    [(3.0, 0.5, (True, False, False)), (0.5, 0.3, (False, True, False)),
     (0.5, 4.0, (False, False, True)), (0.9, 0.1, (True, True, False))],
)  # fmt: skip
def test_each_shift_has_its_term(mean: float, std: float, at_work: tuple[bool, ...]) -> None:
    u = normal(8, 4, 3, 16, mean=mean, std=std)
    expected = terms(u)
    assert tuple(bool(term > 0) for term in expected) == at_work
    torch.testing.assert_close(value(RecDisLoss(), u), sum(expected), rtol=1e-11, atol=1e-13)


def test_the_centre_is_where_a_layer_fires_unless_it_is_given() -> None:
    u = normal(8, 4, 3, 16, mean=0.7, std=0.2)
    of_layer = value(RecDisLoss(), u, fires_at=1.0)
    torch.testing.assert_close(of_layer, sum(terms(u, v=1.0)), rtol=1e-11, atol=1e-13)
    given = value(RecDisLoss(v_threshold=0.25), u, fires_at=1.0)
    torch.testing.assert_close(given, sum(terms(u, v=0.25)), rtol=1e-11, atol=1e-13)
    assert of_layer != given


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.3), (0.5, 6.0)])
def test_the_half_width_scales_mismatch_and_saturation(mean: float, std: float) -> None:
    u = normal(8, 4, 3, 16, mean=mean, std=std)
    wide = value(RecDisLoss(half_width=1.0), u)
    torch.testing.assert_close(wide, sum(terms(u, a=1.0)), rtol=1e-11, atol=1e-13)
    assert wide != value(RecDisLoss(), u)
    assert RecDisLoss().weight(0.3) == 1.0


def test_layers_count_alike() -> None:
    u, w = normal(4, 2, 3, 8, mean=2.0), normal(4, 2, 5, 3, mean=0.5, std=0.2)
    expected = (sum(terms(u)) + sum(terms(w))) / 2
    torch.testing.assert_close(value(RecDisLoss(), u, w), expected, rtol=1e-11, atol=1e-13)


def test_a_constant_membrane_has_a_finite_gradient() -> None:
    x = torch.full((2, 2, 3, 4), 0.7, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(value(RecDisLoss(), x), x)
    assert torch.isfinite(g).all()


def test_wrong_options() -> None:
    with pytest.raises(UserError, match=r"weight = nan(?s:.*)half_width = 0"):
        RecDisLoss(weight=float("nan"), half_width=0)
