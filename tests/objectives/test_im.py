"""IM-Loss: each of its versions against the literal formula."""

from fnmatch import fnmatchcase

import pytest
import torch
from torch import Tensor

from rmploss import LIF, UserError, membrane_stats
from rmploss.models import MODELS, create
from rmploss.neurons import SpikingLayer
from rmploss.objectives.im import INNER, IMLoss
from tests.given import normal


def recorded(loss: IMLoss, *names: str) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The value of layers of these names, their potentials and their spikes `[T, B, C, N]`."""
    potentials, spikes = [], []
    with membrane_stats(spec=loss.spec) as stats:
        for index, name in enumerate(names):
            x = normal(3, 2, 4, 5, seed=index, mean=0.2)
            lif = LIF(decay=0.0)  # without memory, u is x
            lif.layer_name = name
            spikes.append(lif(x))
            potentials.append(x)
    return loss.value(stats), potentials, spikes


def test_the_supplement_is_a_mean_over_channels() -> None:
    value, (a, b, _), _ = recorded(IMLoss(), "lif1", "layer1.0.lif2", "layer1.0.lif1")
    terms = [((u.mean((0, 1, 3)) - 0.5) ** 2).mean() for u in (a, b)]  # not the inner neurons
    torch.testing.assert_close(value, sum(terms) / 2, rtol=1e-13, atol=0)


def test_the_paper_is_a_sum_over_layers() -> None:
    value, us, _ = recorded(IMLoss(version="paper"), "a", "b", "c")
    torch.testing.assert_close(value, sum((u.mean() - 0.5) ** 2 for u in us), rtol=1e-13, atol=0)


def test_the_release_takes_currents_behind_shortcuts_and_rates_elsewhere() -> None:
    loss = IMLoss(version="released", target=0.125, weight=0.005)
    value, us, os = recorded(loss, "lif1", "layer1.0.lif2", "lif3", "last")
    expected = ((us[1].mean() - 0.125) ** 2 + (os[2].mean() - 0.125) ** 2) / 2
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    assert loss.weight(0.3) == 0.005
    with pytest.raises(UserError, match="first and the last"):
        recorded(loss, "a", "b")


def test_wrong_options() -> None:
    with pytest.raises(UserError) as caught:
        IMLoss(version="draft", weight=-1)  # pyright: ignore
    assert [p.where for p in caught.value.problems] == ["weight = -1", "version = 'draft'"]


def test_published_constants_by_default() -> None:
    released = IMLoss(version="released")
    assert (released.weight(0.5), released.target) == (0.005, 0.125)
    assert (IMLoss().weight(0.5), IMLoss().target) == (2.0, None)
    with membrane_stats(spec=IMLoss().spec) as stats:
        LIF(v_threshold=1.0)(torch.full((2, 3, 1, 4), 0.8))  # u = 0.8 and 1.0
    torch.testing.assert_close(IMLoss().value(stats), torch.tensor(0.01), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_inner_neurons_are_those_of_blocks(name: str) -> None:
    image = {"image_size": 32} if "image_size" in MODELS.options(name) else {}
    net = create(name, width=1 / 64, **image)
    names = [m.layer_name for m in net.modules() if isinstance(m, SpikingLayer)]
    inner = [n for n in names if fnmatchcase(n, INNER)]
    assert all(n.split(".")[-3].startswith("layer") for n in inner)
    blocks = "resnet" in name or name == "joint"
    assert bool(inner) == blocks
    assert len(inner) < len(names) or not names
