"""The numbers of an evaluation against means taken literally."""

import copy
from collections import defaultdict
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss import LIF, functional, models
from rmploss.engine.evaluate import Evaluation, evaluate
from rmploss.engine.static_batch import StaticBatch
from rmploss.errors import DataError
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork
from tests.given import labels, normal

NETWORKS = ["convnet", "resnet20"]


def network(name: str = "convnet", width: float = 0.125) -> SpikingNetwork:
    """A network in float64 whose running statistics are not the initial ones."""
    torch.manual_seed(0)
    net = models.create(name, in_channels=1, width=width, T=3).double()
    with torch.no_grad():
        for _ in range(3):
            net(normal(16, 1, 16, 16))
    return net


def split(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of these sizes."""
    return [(normal(n, 1, 16, 16, seed=i), labels(n, 10, seed=i)) for i, n in enumerate(sizes)]


def literal_values(
    net: SpikingNetwork, batches: list[tuple[Tensor, Tensor]], potential: str = "u_pre"
) -> dict[str, Tensor]:
    """Every value of u_pre (Eq. 1), or of the input current, of every layer, flat."""
    values: dict[str, list[Tensor]] = defaultdict(list)

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(module, LIF)
        u = inputs[0] if potential == "input" else functional.membrane(inputs[0])
        values[module.layer_name].append(u.flatten())

    copied = copy.deepcopy(net).eval()
    for module in copied.modules():
        if isinstance(module, LIF):
            module.register_forward_pre_hook(look)
    with torch.no_grad():
        for x, _ in batches:
            copied(x)
    return {name: torch.cat(parts) for name, parts in values.items()}


def literal(net: SpikingNetwork, batches: list[tuple[Tensor, Tensor]], p: float) -> dict[str, list]:
    """The means of q(u) and o of every layer, from the membranes themselves (Eqs. 1, 2, 9)."""
    found = {}
    for name, u_pre in literal_values(net, batches).items():
        o = (u_pre >= 0.5).double()
        found[name] = [(o - u_pre).abs().pow(p).mean().item(), o.mean().item()]
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("p", [2.0, 1.0])
def test_error_and_rate_of_every_layer_are_the_means_over_all_values(name: str, p: float) -> None:
    net, batches = network(name), split(4, 4, 1)  # the last batch weighs a quarter of the others
    found = evaluate(net, batches, p=p)
    expected = literal(net, batches, p)
    assert [layer.name for layer in found.layers] == list(expected)  # in running order
    for layer in found.layers:
        assert [layer.quantization_error, layer.firing_rate] == pytest.approx(
            expected[layer.name], rel=1e-12
        )
    errors, rates = zip(*expected.values(), strict=True)
    assert found.quantization_error == pytest.approx(sum(errors) / len(errors), rel=1e-12)
    assert found.firing_rate == pytest.approx(sum(rates) / len(rates), rel=1e-12)
    assert found.firing_rate > 0


@pytest.mark.parametrize("potential", ["u_pre", "input"])
def test_the_four_readings_of_the_quantization_error(potential: Literal["u_pre", "input"]) -> None:
    net, batches = network(), split(4, 4, 1)
    found = evaluate(net, batches, potential=potential)
    values = literal_values(net, batches, potential)
    errors = [((u >= 0.5).double() - u).square() for u in values.values()]
    layers, every = torch.stack([q.mean() for q in errors]).mean(), torch.cat(errors).mean()
    assert found.quantization_error == pytest.approx(layers.item(), rel=1e-12)
    assert found.quantization_error_of_elements == pytest.approx(every.item(), rel=1e-12)
    assert [layer.elements for layer in found.layers] == [len(q) for q in errors]
    assert every.item() != pytest.approx(layers.item(), rel=1e-3)  # the layers differ in size


def test_accuracy_and_loss_are_over_all_samples() -> None:
    net, batches = network(), split(4, 4, 1)
    with torch.no_grad():
        logits = torch.cat([copy.deepcopy(net).eval()(x) for x, _ in batches])
    y = torch.cat([y for _, y in batches])
    best = logits.argmax(1)
    batches = [(x, best[4 * i : 4 * i + len(t)]) for i, (x, t) in enumerate(batches)]
    found = evaluate(net, batches)
    assert (found.accuracy, found.samples) == (100.0, 9)
    assert found.loss == pytest.approx(F.cross_entropy(logits, best).item(), rel=1e-12)
    batches[2] = (batches[2][0], (best[8:] + 1) % 10)
    assert evaluate(net, batches).accuracy == pytest.approx(100 * 8 / 9, rel=1e-12)
    assert len(y) == 9


def test_an_empty_batch_changes_nothing() -> None:
    net, batches = network(), split(4, 1)
    empty = (torch.zeros(0, 1, 16, 16).double(), torch.zeros(0, dtype=torch.int64))
    calls = []
    found = evaluate(net, [*batches, empty], on_batch=lambda: calls.append(0))
    assert found == evaluate(net, batches)
    assert len(calls) == 3


class Plain(nn.Module):
    """A network of a user without a spiking layer of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 10).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


@pytest.mark.parametrize("last", [1, 3])
def test_a_network_without_spiking_layers_is_counted_sample_by_sample(last: int) -> None:
    """A last batch of one sample was once stretched to the size of the first."""
    net, batches = Plain(), split(4, last)
    whole = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    found: Evaluation = evaluate(net, batches)  # pyright: ignore[reportArgumentType]
    logits = net(whole[0])
    assert found.samples == 4 + last
    assert found.loss == pytest.approx(F.cross_entropy(logits, whole[1]).item(), rel=1e-12)
    right = (logits.argmax(1) == whole[1]).double().mean().item()
    assert found.accuracy == pytest.approx(100 * right, rel=1e-12)
    assert found.layers == ()


def test_a_batch_of_another_shape_is_never_stretched_into_the_first() -> None:
    batch = StaticBatch(torch.device("cpu"))
    batch.fill(torch.ones(4, 3, 2, 2), torch.zeros(4))
    for other in (torch.ones(4, 1, 2, 2), torch.ones(4, 3, 2, 2).double()):
        with pytest.raises(DataError, match=r"the first batch was \[4, 3, 2, 2\] torch.float32"):
            batch.fill(other, torch.zeros(4))


@pytest.mark.parametrize("training", [True, False])
def test_the_network_comes_back_as_it_was(training: bool) -> None:
    net = network().train(training)
    before = copy.deepcopy(net.state_dict())
    evaluate(net, split(4))
    assert net.training == training

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(net, split(4), on_batch=stop)
    assert net.training == training
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_the_norms_changes_no_spike(name: str) -> None:
    net, batches = network(name), split(4, 3)
    whole = evaluate(net, batches)
    folded = evaluate(fold(copy.deepcopy(net)), batches)  # pyright: ignore[reportArgumentType]
    assert folded.accuracy == whole.accuracy
    assert folded.loss == pytest.approx(whole.loss, rel=1e-12)
    for ours, theirs in zip(folded.layers, whole.layers, strict=True):
        assert (ours.name, ours.firing_rate) == (theirs.name, theirs.firing_rate)
        assert ours.quantization_error == pytest.approx(theirs.quantization_error, rel=1e-12)
