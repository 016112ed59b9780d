"""The hybrid start against its description: layer after layer over all steps, not step by step."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss import UserError
from rmploss.models import SpikingNetwork, create
from rmploss.models.hybrid import hybrid_start, quantile
from rmploss.neurons.diet import Diet
from rmploss.neurons.relu import ReLU
from tests.given import normal

STEPS, PERCENTILE, SCALE = 6, 95.0, 0.5
SMALL = {"num_classes": 3, "width": 1 / 16, "image_size": 16}


def pair(name: str = "diet-vgg16") -> tuple[SpikingNetwork, SpikingNetwork]:
    """A spiking network, and an ANN of other weights."""
    torch.manual_seed(1)
    snn = create(name, T=2, neuron=lambda _: Diet(leak=0.9, threshold=0.4), **SMALL).double()
    return snn, create(name, T=1, neuron=ReLU, **SMALL).double()


def integrate(current: Tensor, v: float) -> Tensor:
    """Integrate-and-fire with the soft reset: all steps of a layer."""
    m, spikes = torch.zeros_like(current[0]), []
    for x_t in current:
        m = m + x_t
        o = (m / v - 1 >= 0).double()
        m = m - v * o
        spikes.append(o)
    return torch.stack(spikes)


def rank(values: Tensor) -> float:
    """By sorting."""
    row = values.flatten().sort().values
    return row[round(PERCENTILE / 100 * (len(row) - 1))].item()


def calibrated(net: SpikingNetwork, x: Tensor) -> dict[str, float]:
    """The thresholds of the VGG16, from its weights, by the description."""
    found: dict[str, float] = {}
    x = x.expand(STEPS, *x.shape)

    def fire(name: str, current: Tensor) -> Tensor:
        v = max(rank(step) for step in current)
        found[name] = v * SCALE
        return integrate(current, v)

    for name, layer in net.get_submodule("layers").named_children():
        if name.startswith("conv"):
            weight = layer.get_parameter("conv.weight")
            current = F.conv2d(x.flatten(0, 1), weight, padding=1).unflatten(0, x.shape[:2])
            x = fire(f"layers.lif{name.removeprefix('conv')}", current)
        elif name.startswith("pool"):
            x = F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])
    x = x.flatten(2)
    for index in (1, 2):
        x = fire(f"lif{index}", x @ net.get_parameter(f"fc{index}.layer.weight").T)
    return found


def test_thresholds_are_calibrated_layer_by_layer() -> None:
    snn, ann = pair()
    x = normal(4, 3, 16, 16, name="images")
    found = hybrid_start(snn, ann.state_dict(), x, percentile=PERCENTILE, scale=SCALE, steps=STEPS)
    with torch.no_grad():
        wanted = calibrated(ann, x)
    assert [*found] == [*wanted]  # in running order
    assert len(found) == 15
    assert found == pytest.approx(wanted, rel=1e-12)
    neurons = {n: m for n, m in snn.named_modules() if isinstance(m, Diet)}
    assert {n: m.threshold.item() for n, m in neurons.items()} == found
    for neuron in neurons.values():
        assert neuron.leak.item() == pytest.approx(0.9, rel=1e-7)  # as it was
        assert (neuron.carry_state, neuron.u) == (False, None)
    assert snn.training
    weights = ann.state_dict()
    assert all(torch.equal(snn.state_dict()[key], value) for key, value in weights.items())


def test_of_a_resnet_the_stem_alone() -> None:
    snn, ann = pair("diet-resnet20")
    x = normal(4, 3, 16, 16, name="images")
    stem = ("lif1", "lif2", "lif3")
    found = hybrid_start(snn, ann.state_dict(), x, steps=3, percentile=90, layers=stem)
    assert tuple(found) == stem
    # The first layer sees the same current at every step.
    current = F.conv2d(x, ann.get_parameter("conv1.conv.weight"), padding=1)
    assert found["lif1"] == pytest.approx(0.3 * quantile(current, 90), rel=1e-12)
    others = [m for n, m in snn.named_modules() if isinstance(m, Diet) and n not in stem]
    assert [m.threshold.item() for m in others] == pytest.approx([0.4] * 16, rel=1e-7)


def test_a_layer_in_a_block_is_calibrated_with_its_shortcut() -> None:
    snn, ann = pair("diet-resnet20")
    x = normal(4, 3, 16, 16, name="images")
    hybrid_start(snn, ann.state_dict(), x, steps=1, percentile=90, scale=1.0, layers=("lif?",))
    found = hybrid_start(
        snn, ann.state_dict(), x, steps=1, percentile=90, scale=1.0, layers=("lif?", "layers.0.*")
    )
    seen: list[Tensor] = []
    last = snn.get_submodule("layers.0.lif2")
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    snn.eval()(x.unsqueeze(0))
    assert found["layers.0.lif2"] == pytest.approx(quantile(seen[0], 90), rel=1e-12)


def test_the_rank_of_a_percentile() -> None:
    x = torch.tensor([[3.0, 1.0], [4.0, 2.0]])
    assert [quantile(x, p) for p in (1e-9, 34, 66, 100)] == [1, 2, 3, 4]
    assert quantile(torch.arange(1000.0), 99.7) == 996


def test_what_does_not_fit_is_told() -> None:
    snn, ann = pair()
    x, state = normal(2, 3, 16, 16), ann.state_dict()
    before = {key: value.clone() for key, value in snn.state_dict().items()}
    wrong = {key: value for key, value in state.items() if key != "fc1.layer.weight"}
    wrong["head.layer.weight"] = torch.zeros(5, 5)
    wrong["conv9.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match="the ANN is not of this network") as caught:
        hybrid_start(snn, wrong, x)
    told = {p.where: p.what for p in caught.value.problems}
    assert told.keys() == {"fc1.layer.weight", "head.layer.weight", "conv9.weight"}
    assert told["fc1.layer.weight"].endswith("in the ANN missing")
    assert all(torch.equal(snn.state_dict()[key], value) for key, value in before.items())

    with pytest.raises(UserError, match="no diet neurons match"):
        hybrid_start(snn, state, x, layers=("layer9",))
    dead = {**state, "layers.conv2_1.conv.weight": -state["layers.conv2_1.conv.weight"].abs()}
    with pytest.raises(UserError, match=r"layers\.lif2_1: percentile 99 = 0: must"):
        hybrid_start(snn, dead, x, percentile=99, steps=2)
    neurons = [m for m in snn.modules() if isinstance(m, Diet)]
    assert not any(m.carry_state for m in neurons)
    assert snn.training
    assert {round(m.threshold.item(), 6) for m in neurons} == {0.4}  # none is half calibrated
    assert isinstance(snn.get_submodule("fc1.layer"), nn.Linear)
