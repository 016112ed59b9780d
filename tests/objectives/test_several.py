"""Several regularizers: the sum of weighted terms, and which cannot be summed."""

import pytest
import torch

from rmploss import LIF, RMPLoss, UserError, membrane_stats
from rmploss.objectives import OBJECTIVES
from rmploss.objectives.im import IMLoss
from rmploss.objectives.several import SeveralRegularizers
from tests.given import normal


def test_it_is_the_sum() -> None:
    both = SeveralRegularizers(names=("im", "rmp"))
    with membrane_stats(spec=both.spec) as stats:
        LIF(4)(normal(3, 2, 4, 5))
    for progress in (0.0, 0.3, 0.5):
        expected = IMLoss()(stats, progress) + RMPLoss()(stats, progress)
        torch.testing.assert_close(both(stats, progress), expected, rtol=1e-15, atol=0)
    assert both.weight(0.5) == RMPLoss().weight(0.5)


@pytest.mark.parametrize("name", ["mpd_sgr", "tgo"])
def test_moments_per_step_serve_a_regularizer_of_sums(name: str) -> None:
    both, other = SeveralRegularizers(names=(name, "rmp")), OBJECTIVES.make(name)
    x = normal(3, 2, 4, 5)
    values = []
    for objective in (both, other, RMPLoss()):
        with membrane_stats(spec=objective.spec) as stats:
            LIF(4)(x)
        values.append(objective(stats, 0.3))
    torch.testing.assert_close(values[0], values[1] + values[2], rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "names", [(), ("rmp",), ("rmp", "rmp"), ("none", "rmp"), ("several", "im")]
)
def test_what_is_no_sum(names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="two or more different"):
        SeveralRegularizers(names=names)


def test_each_regularizer_has_its_own_options() -> None:
    options = (("im.weight", 0.5), ("rmp.k", 0.3), ("rmp.p", 1.0))
    both = SeveralRegularizers(names=("im", "rmp"), options=(("im.weight", 0.5), ("rmp.k", 0.3)))
    assert both.terms[0].weight(0.5) == 0.5
    assert both.terms[1].weight(0.5) == pytest.approx(0.3)
    other = SeveralRegularizers(names=("rmp", "recdis"), options=(("recdis.weight", 3.0),))
    assert other.terms[0].weight(0.5) == pytest.approx(0.1)
    assert other.terms[1].weight(0.5) == 3.0
    with pytest.raises(UserError, match="different moments"):  # p is part of them
        SeveralRegularizers(names=("im", "rmp"), options=options)


@pytest.mark.parametrize("option", ["weight", "recdis.weight", "im.", "im.wieght"])
def test_an_option_of_none_of_them(option: str) -> None:
    with pytest.raises(UserError) as caught:
        SeveralRegularizers(names=("im", "rmp"), options=((option, 1.0),))
    assert option.partition(".")[2] in str(caught.value)
