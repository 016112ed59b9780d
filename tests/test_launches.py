"""How much a training step asks of a GPU: launches, bytes, reads by the host. No GPU is needed."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from rmploss import ops
from rmploss.models import create
from rmploss.ops import Spikes
from tests.launches import as_on_a_gpu, make_step

needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")

LAUNCHES = 350
"""Of a step of ResNet20; 875 on 2026-11-28, when the host was the limit."""
BYTES = 32
"""Of a step in bfloat16 per neuron and time step, as `launches.py` counts them: y, spikes and their
gradients are 2 bytes each."""


@needs_triton
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_step_launches_little(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with as_on_a_gpu(monkeypatch) as launches:
        step = make_step(128, precision)
        step()  # the first builds constants, and the optimizer its state
        launches.found.clear()
        with launches:
            values = step()
    print(launches.table(values))
    assert 100 < len(launches.found) <= LAUNCHES
    if precision is not None:
        assert launches.bytes <= BYTES * values


@needs_triton
@pytest.mark.parametrize(("name", "poolings", "alone"), [("resnet20", 4, 1), ("vgg16", 5, 5)])
def test_poolings_read_bits(
    name: str, poolings: int, alone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooling that is the only reader of spikes has no numbers written."""
    found: list[Spikes] = []
    pooled = Spikes.pooled
    monkeypatch.setattr(Spikes, "pooled", lambda x: found.append(x) or pooled(x))
    with as_on_a_gpu(monkeypatch) as launches, launches:
        create(name, width=1 / 16)(torch.rand(2, 3, 32, 32))
    assert [launch.name for launch in launches.found].count("triton.pool") == poolings
    assert sum(spikes._dense is None for spikes in found) == alone


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_the_host_reads_nothing_of_a_step(precision: Any) -> None:
    """The reference; of the Triton backend the test above says the same."""
    with FakeTensorMode(), ops.use_backend("reference"):
        with pytest.raises(DataDependentOutputException):
            torch.ones(()).item()
        make_step(2, precision)()
