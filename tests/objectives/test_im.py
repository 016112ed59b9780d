"""IM-Loss: each of its versions against the literal formula."""

from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rmploss import LIF, UserError, membrane_stats
from rmploss.models import MODELS, create
from rmploss.neurons import SpikingLayer
from rmploss.norm import TDBatchNorm2d
from rmploss.objectives.im import IMLoss
from tests.given import normal


class Seen(NamedTuple):
    """Input currents, potentials before the reset and spikes of layers, `[T, B, C, N]` each."""

    x: list[Tensor]
    u: list[Tensor]
    o: list[Tensor]


def recorded(loss: IMLoss, *places: str) -> tuple[Tensor, Seen]:
    """The value of layers in these places, and their membranes."""
    seen = Seen([], [], [])
    with membrane_stats(spec=loss.spec) as stats:
        for index, place in enumerate(places):
            x = normal(3, 2, 4, 5, seed=index, mean=0.2)
            lif = LIF(4, decay=0.25)
            lif.place = place
            seen.o.append(lif(x))
            seen.u.append(lif.membrane(x))
            seen.x.append(x)
    return loss.value(stats), seen


def test_the_supplement_is_a_mean_over_channels() -> None:
    value, seen = recorded(IMLoss(), "", "sum", "inner")
    terms = [((u.mean((0, 1, 3)) - 0.5) ** 2).mean() for u in seen.u[:2]]  # not the inner neurons
    torch.testing.assert_close(value, sum(terms) / 2, rtol=1e-13, atol=0)


def test_the_paper_is_a_sum_over_layers() -> None:
    value, seen = recorded(IMLoss(version="paper"), "", "sum", "")
    expected = sum((u.mean() - 0.5) ** 2 for u in seen.u)
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)


def test_the_release_takes_currents_behind_shortcuts_and_rates_elsewhere() -> None:
    loss = IMLoss(version="released", target=0.125, weight=0.005)
    value, seen = recorded(loss, "", "inner", "sum", "")
    expected = ((seen.x[2].mean() - 0.125) ** 2 + (seen.o[3].mean() - 0.125) ** 2) / 2
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    assert loss.weight(0.3) == 0.005
    with pytest.raises(UserError, match="no layer is left"):
        recorded(loss, "", "inner")


def test_wrong_options() -> None:
    with pytest.raises(UserError) as caught:
        IMLoss(version="draft", weight=-1)  # pyright: ignore
    assert [p.where for p in caught.value.problems] == ["weight = -1", "version = 'draft'"]


def test_published_constants_by_default() -> None:
    released = IMLoss(version="released")
    assert (released.weight(0.5), released.target) == (0.005, 0.125)
    assert IMLoss(version="released", T=5).target == 0.1
    assert (IMLoss().weight(0.5), IMLoss().target) == (2.0, None)
    with membrane_stats(spec=IMLoss().spec) as stats:
        LIF(1, v_threshold=1.0)(torch.full((2, 3, 1, 4), 0.8))  # u = 0.8 and 1.0
    torch.testing.assert_close(IMLoss().value(stats), torch.tensor(0.01), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_neurons_know_their_place_in_a_block(name: str) -> None:
    image = {"image_size": 32} if "image_size" in MODELS.options(name) else {}
    net = create(name, width=1 / 64, **image)
    found = {m.place for m in net.modules() if isinstance(m, SpikingLayer)}
    blocks = "resnet" in name or name == "joint"
    assert ("inner" in found) == blocks
    assert ("sum" in found) == (blocks and not name.startswith("sew"))


@pytest.mark.parametrize("name", ["resnet20", "diet-resnet20"])
def test_what_sees_a_sum_of_branches_is_no_inner_neuron(name: str) -> None:
    """The current of an inner neuron comes from its convolution or norm alone; of others, not."""
    image = {"image_size": 32} if "image_size" in MODELS.options(name) else {}
    lively = partial(LIF, v_threshold=0.05)
    net = create(name, width=1 / 16, T=2, neuron=lively, **image).double()
    convolved: list[Tensor] = []
    currents: dict[str, list[bool]] = {"inner": [], "sum": []}

    def keep(_: nn.Module, __: object, y: Tensor) -> None:
        convolved.append(y)

    def look(neuron: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        place = str(getattr(neuron, "place", ""))
        if place in currents:
            x = inputs[0].flatten(0, 1)
            same = (y.reshape(x.shape) for y in convolved if y.numel() == x.numel())
            currents[place].append(any(torch.equal(y, x) for y in same))

    for module in net.modules():
        if isinstance(module, nn.Conv2d | TDBatchNorm2d):
            module.register_forward_hook(keep)
    for module in net.modules():
        if isinstance(module, SpikingLayer):
            module.register_forward_pre_hook(look)
    net(normal(2, 3, 32, 32, name="image"))
    assert all(currents["inner"])
    assert not any(currents["sum"])
    assert len(currents["inner"]) == 8


def test_before_activation_the_first_neurons_of_a_block_see_the_sum() -> None:
    block = create("preact-resnet18", width=1 / 64).get_submodule("layer2.0")
    assert [getattr(block.get_submodule(name), "place") for name in ("lif1", "lif2")] == [  # noqa: B009
        "sum",
        "inner",
    ]
