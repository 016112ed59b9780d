"""How much a training step asks of a GPU: launches and bytes. No GPU is needed."""

from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grads_with_norm_ as clip

from rmploss import membrane_stats, recipes
from rmploss.data._in_memory import InMemory
from rmploss.data.cifar import CIFAR10
from rmploss.engine.step import TrainingStep
from rmploss.models import create
from rmploss.ops import Spikes
from rmploss.ops.lif.moments import MomentSpec
from rmploss.recipes import use
from tests.fake_gpu import GPU, Strict, make_step, moved
from tests.launches import Launches, as_on_a_gpu, launches_of_lists

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")

LAUNCHES = 350
"""Of a step of ResNet20; 875 on 2026-11-28, when the host was the limit."""
BYTES = 32
"""Of a step in bfloat16 per neuron and time step, as `launches.py` counts them: y, spikes and their
gradients are 2 bytes each."""
RECIPE = recipes.get("cifar10-resnet20-rmp")


def count(launches: Launches, run: Callable[[], object]) -> int:
    """Put in `launches` those of the second run; the first builds constants. Returns the number."""
    run()
    launches.found.clear()
    with launches:
        run()
    return len(launches.found)


def neuron_steps(step: TrainingStep) -> int:
    """Neurons x time steps x images."""
    with torch.no_grad(), membrane_stats(step.state.net, step.objective.spec) as stats:
        step.state.net(step.batch()[0])
    return sum(layer.elements for layer in stats)


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_step_launches_little(amp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole step of a run: losses, backward, checks, update, statistics that can be undone."""
    with as_on_a_gpu(monkeypatch) as launches:
        step = make_step(RECIPE.but(amp=amp))
        values = neuron_steps(step)
        number = count(launches, step)
    print(launches.table(values))
    assert 100 < number <= LAUNCHES
    if amp == "bf16":
        assert launches.bytes <= BYTES * values


def test_what_a_recipe_may_add_launches_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipping, averages and fp16's scale pass over all parameters at once."""
    with as_on_a_gpu(monkeypatch) as launches:
        step = make_step(RECIPE.but(amp="fp16", average=use("ema")))
        average, scale = step.state.average, step.state.scale
        assert average is not None
        assert scale is not None
        for parameter in step.parameters:
            parameter.grad = torch.empty_like(parameter)
        gradients = [p.grad for p in step.parameters if p.grad is not None]
        skip, norm = step.state.tally.stopped(), torch.empty((), device=GPU)
        found = {
            "clipping": count(launches, lambda: clip(step.parameters, 1.0, norm)),
            "averaging": count(launches, lambda: average.update(skip)),
            "unscaling": count(launches, lambda: scale.unscale(gradients)),
            "scale": count(launches, lambda: scale.update(skip)),
        }
    print(found)
    assert 1 < found["clipping"] <= 10
    assert 1 < found["averaging"] <= 20
    assert 1 < found["unscaling"] <= 5
    assert 1 < found["scale"] <= 20


AUGMENTATIONS = {"none": 30, "standard": 45, "autoaugment+cutout": 205}
"""Of CIFAR-10 -> launches at most, for a batch of any size."""


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_an_augmentation_launches_little(augment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the samples on the GPU a step makes its batch itself, from indices."""
    prepare = CIFAR10()._prepare(augment)
    with as_on_a_gpu(monkeypatch) as launches:
        stored = torch.empty(50_000, 3, 32, 32, dtype=torch.uint8, device=GPU)
        labels = torch.empty(50_000, dtype=torch.int64, device=GPU)
        samples = InMemory(stored, labels, moved(prepare))
        indices, epoch = labels[:128].clone(), labels[0].clone()
        with Strict():
            number = count(launches, lambda: samples.batch(indices, epoch))
    print(augment, number)
    assert 1 < number <= AUGMENTATIONS[augment]


def test_moments_of_every_step_cost_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward of a layer are a launch each, whatever its moments."""
    found: list[Counter[str]] = []
    for per_step in (False, True):
        with as_on_a_gpu(monkeypatch) as launches, launches:
            net = moved(create("resnet20", width=1 / 16))
            with membrane_stats(net, MomentSpec(per_step=per_step)) as stats:
                outputs = net(torch.empty(2, 3, 32, 32, device=GPU))
            (outputs.sum() + sum(layer.moments.sum() for layer in stats)).backward()
        names = (launch.name for launch in launches.found)
        found.append(Counter(name for name in names if name.startswith("triton.")))
    assert found[0] == found[1]
    assert found[0]["triton.lif_forward"] == found[0]["triton.lif_backward"] == 19


@pytest.mark.parametrize(("name", "poolings", "alone"), [("resnet20", 4, 1), ("vgg16", 5, 5)])
def test_poolings_read_bits(
    name: str, poolings: int, alone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooling that is the only reader of spikes has no numbers written."""
    found: list[Spikes] = []
    pooled = Spikes.pooled
    monkeypatch.setattr(Spikes, "pooled", lambda x: found.append(x) or pooled(x))
    with as_on_a_gpu(monkeypatch) as launches, launches:
        moved(create(name, width=1 / 16))(torch.empty(2, 3, 32, 32, device=GPU))
    assert [launch.name for launch in launches.found].count("triton.pool") == poolings
    assert sum(spikes._dense is None for spikes in found) == alone


def test_launches_on_lists_are_those_of_their_chunks() -> None:
    """Of two lists a launch takes 64 pairs, or 320 chunks of 65,536 elements."""

    def launches(*sizes: int, name: str = "_foreach_add_") -> int:
        return launches_of_lists(name, [[torch.empty(n, device="meta") for n in sizes]] * 2)

    assert launches(*[1] * 64) == 1
    assert launches(*[1] * 65) == 2
    assert launches(320 * 65536) == 1
    assert launches(320 * 65536, 1) == 2
    assert launches(321 * 65536, *[1] * 63) == 2
    assert launches(1, 1, name="_foreach_norm") == 3
    whole, part = torch.empty(4, 4), torch.empty(4, 8)[:, ::2]
    assert launches_of_lists("_foreach_add_", [[whole, whole], [whole, part]]) == 2
    assert launches_of_lists("_foreach_add_", [[whole, whole], [whole, whole.double()]]) == 2
