"""How much a training step asks of a GPU: launches, bytes, reads by the host. No GPU is needed."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from rmploss import ops
from tests.launches import as_on_a_gpu, make_step

needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")

LAUNCHES = 350
"""Of a step of ResNet20; 875 on 2026-11-28, when the host was the limit."""
BYTES = 35
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


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_the_host_reads_nothing_of_a_step(precision: Any) -> None:
    """The reference; of the Triton backend the test above says the same."""
    with FakeTensorMode(), ops.use_backend("reference"):
        with pytest.raises(DataDependentOutputException):
            torch.ones(()).item()
        make_step(2, precision)()
