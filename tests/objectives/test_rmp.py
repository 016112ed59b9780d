"""RMP-Loss: Eqs. 8-12 literally, from membranes; selected layers; wrong statistics."""

import pytest
import torch
from torch import Tensor, nn

from rmploss import LIF, MomentSpec, RMPLoss, UserError, functional, membrane_stats
from rmploss.models import create
from rmploss.stats import MembraneStats
from tests.given import Layer, normal


class Layers(nn.Module):
    """Two layers of neurons of unequal size that keep their input currents."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = LIF(3), LIF(2)
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).mean(-1)[..., :2] + 0.3 * x[:, :, :2].sum(-1)
        self.inputs = [x, y]
        return self.second(y)


def literal(x: Tensor, p: float, potential: str) -> Tensor:
    """q(u) of Eqs. 8-9 of every membrane value, flattened."""
    u = functional.membrane(x, channels=x.shape[2]) if potential == "u_pre" else x
    return torch.where(u >= 0.5, 1 - u, 0 - u).abs() ** p


@pytest.mark.parametrize("potential", ["u_pre", "input"])
@pytest.mark.parametrize("p", [1.0, 2.0, 1.5])
def test_the_value_is_equation_10(p: float, potential: str) -> None:
    net, x = Layers(), normal(4, 2, 3, 5, mean=0.2)
    rmp = RMPLoss(p=p, potential=potential)  # pyright: ignore[reportArgumentType]
    with membrane_stats(net, rmp.spec) as stats:
        net(x)
    errors = [literal(current, p, potential).flatten() for current in net.inputs]
    assert len(errors[0]) != len(errors[1])
    mean_of_means = (errors[0].mean() + errors[1].mean()) / 2
    torch.testing.assert_close(rmp.value(stats), mean_of_means, rtol=1e-13, atol=0)
    by_elements = RMPLoss(p=p, potential=potential, reduction="elements")  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(
        by_elements.value(stats), torch.cat(errors).mean(), rtol=1e-13, atol=0
    )
    assert not torch.isclose(by_elements.value(stats), mean_of_means)


def test_the_call_is_the_value_times_lambda() -> None:
    rmp = RMPLoss(k=0.3)
    with membrane_stats(spec=rmp.spec) as stats:
        LIF()(normal(3, 2, 4))
    assert rmp(stats, progress=0.25).item() == pytest.approx(0.15 * rmp.value(stats).item())
    assert rmp(stats, progress=1.0).item() == 0


@pytest.mark.parametrize("k", [0.1, 1.0, 0.0])
def test_lambda_is_equation_12(k: float) -> None:
    rmp, epochs = RMPLoss(k=k), 400
    for n in range(epochs + 1):
        expected = 2 * k * n / epochs if n <= epochs / 2 else 2 * k * (1 - n / epochs)
        assert rmp.weight(n / epochs) == pytest.approx(expected, abs=1e-16)
    assert rmp.weight(0) == rmp.weight(1) == 0
    assert rmp.weight(0.5) == k


def test_the_paper_is_the_default() -> None:
    rmp = RMPLoss()
    assert rmp.weight(0.5) == 0.1
    assert rmp.spec == MomentSpec(p=2, potential="u_pre", detach_target=True, differentiable=True)
    assert rmp.reduction == "layers"


IMAGE = {"resnet20": 16, "resnet19": 8, "vgg16": 32}
TERMS = {"resnet20": (19, 11), "resnet19": (17, 9), "vgg16": (13, 13)}
"""Spiking layers, and how many of them the authors' code takes into the loss."""


@pytest.mark.parametrize("name", TERMS)
def test_the_layers_that_take_part(name: str) -> None:
    net = create(name, T=2, width=1 / 32)
    every, outer = RMPLoss(), RMPLoss(exclude=("*.lif1",))
    with membrane_stats(net, every.spec) as stats:
        net(normal(2, 3, IMAGE[name], IMAGE[name]).float())
    all_names = [entry.name for entry in stats]
    layers, terms = TERMS[name]
    assert len(all_names) == len(set(all_names)) == layers
    taken = [entry.quantization_error for entry in stats if not entry.name.endswith(".lif1")]
    assert len(taken) == terms
    torch.testing.assert_close(outer.value(stats), torch.stack(taken).mean())
    torch.testing.assert_close(
        every.value(stats), torch.stack([entry.quantization_error for entry in stats]).mean()
    )


def recorded(*names: str) -> MembraneStats:
    """Entries by name whose errors are 1, 2, 4, ... per element."""
    stats = MembraneStats()
    for index, name in enumerate(names):
        moments = torch.full((4, 2), 2.0**index * 3, dtype=torch.float64)
        stats.record(Layer(name), moments, 3)
    return stats


def test_include_and_exclude() -> None:
    stats = recorded("lif1", "layer1.0.lif1", "layer1.0.lif2")
    value = {
        "all": RMPLoss(),
        "blocks": RMPLoss(include=("layer1.*",)),
        "one": RMPLoss(include=("lif1", "*.lif2"), exclude=("*.lif2",)),
    }
    assert {name: rmp.value(stats).item() for name, rmp in value.items()} == pytest.approx(
        {"all": 7 / 3, "blocks": 3, "one": 1}
    )


def test_names_are_compared_with_their_case() -> None:
    with pytest.raises(UserError, match='unknown "LIF1"'):
        RMPLoss(exclude=("LIF1",)).value(recorded("lif1", "layer1.0.lif1"))


def test_no_layer_left_is_reported() -> None:
    with pytest.raises(UserError, match=r"exclude=\('\*',\)(?s:.*)lif1, lif2"):
        RMPLoss(exclude=("*",)).value(recorded("lif1", "lif2"))
    with pytest.raises(UserError, match="no spiking layer ran"):
        RMPLoss().value(MembraneStats())


def test_statistics_of_another_kind_are_refused() -> None:
    with membrane_stats(spec=MomentSpec(p=1)) as stats:
        LIF()(normal(3, 2, 4))
    with pytest.raises(
        UserError, match=r"p=1(?s:.*)p=2(?s:.*)membrane_stats\(net, objective.spec\)"
    ):
        RMPLoss().value(stats)
    for rmp in (RMPLoss(p=1, potential="input"), RMPLoss(p=1, detach_target=False)):
        with pytest.raises(UserError, match="this loss needs"):
            rmp.value(stats)
    assert RMPLoss(p=1).value(stats).item() > 0


@pytest.mark.parametrize("k", [-0.1, float("inf"), float("nan")])
def test_k_must_be_a_weight(k: float) -> None:
    with pytest.raises(UserError, match=r"k = .*must be >= 0(?s:.*)the paper uses 0.1"):
        RMPLoss(k=k)


def test_patterns_come_in_a_tuple() -> None:
    # A bare "*.lif2" would be six patterns, of which "*" takes every layer.
    with pytest.raises(UserError) as caught:
        RMPLoss(include="*.lif2", exclude="*.lif1")  # pyright: ignore[reportArgumentType]
    assert [p.fix for p in caught.value.problems] == ["include=('*.lif2',)", "exclude=('*.lif1',)"]


def test_all_problems_at_once() -> None:
    with pytest.raises(UserError) as caught:
        RMPLoss(k=-1, reduction="sum")  # pyright: ignore[reportArgumentType]
    assert [p.where for p in caught.value.problems] == ["k = -1", "reduction = 'sum'"]
    with pytest.raises(UserError, match="triangle"):
        RMPLoss(schedule="trangle")
