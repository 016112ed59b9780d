"""A number that is none, or infinite, reaches whoever looks: on every backend, with every reset."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rmploss import ops
from rmploss.ops import native, triton
from rmploss.ops.lif.moments import MomentSpec
from rmploss.surrogate import SURROGATES
from tests.given import normal

CPU = torch.device("cpu")
BACKENDS = {"cpu": native.MISSING, "triton": triton.missing(CPU)}
"""Backend -> why it cannot be tested here; Triton can in the interpreter (test_triton.py)."""
RESETS: dict[str, dict[str, Any]] = {
    "hard": {"v_reset": 0.0},
    "soft": {"v_reset": None},
    "soft by a number": {"v_reset": None, "reset_by": 1.0},
}


def layer(x: Tensor, backend: str, **changes: Any) -> tuple[Tensor, Tensor | None, Tensor]:
    """The paper's neuron with other options."""
    options: dict[str, Any] = {"decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, **changes}
    return ops.lif(x, backend=backend, **options)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's
@pytest.mark.parametrize("moments", [None, MomentSpec()], ids=["alone", "moments"])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset", RESETS.values(), ids=list(RESETS))
@pytest.mark.parametrize("surrogate", list(SURROGATES))
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_stays_one_where_the_reference_has_one(
    backend: str,
    surrogate: str,
    reset: dict[str, Any],
    detach_reset: bool,
    moments: MomentSpec | None,
) -> None:
    if reason := BACKENDS[backend]:
        pytest.skip(reason)
    x = torch.tensor([float("nan"), float("inf"), 0.4]).view(1, 1, 3)
    x = x.repeat(2, 1, 1).requires_grad_()
    found = []
    for name in (backend, "reference"):
        options: dict[str, Any] = {
            "surrogate": SURROGATES.make(surrogate), "detach_reset": detach_reset,
            "moments": moments, **reset,
        }  # fmt: skip
        spikes, sums, last = layer(x, name, **options)
        outputs = [spikes.sum(), last.sum()] + ([] if sums is None else [sums.sum()])
        # Each by itself: what is missing in one gradient must not hide behind another.
        gradients = [torch.autograd.grad(o, x, retain_graph=True)[0] for o in outputs]
        values = [spikes, last] + ([] if sums is None else [sums])
        found.append([v.isnan() for v in (*values, *gradients)])
    for one, other in zip(*found, strict=True):
        assert not torch.any(other & ~one)  # it may come from an infinite membrane as well
    if surrogate != "rectangle":  # which compares, and has no slope to multiply
        assert found[1][2 if moments is None else 3].any()  # of the spikes


def test_in_a_norm_it_is_seen() -> None:
    y = normal(4, 2, 8, 5, 5)
    y[0, 0, 0, 0, 0] = float("nan")
    options: dict[str, Any] = {
        "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
        "surrogate": SURROGATES.make("clipped_tanh"),
    }  # fmt: skip
    *_, mean, var = ops.norm_lif(y, torch.ones(8), torch.zeros(8), eps=1e-5, **options)
    assert mean[0].isnan()
    assert var[0].isnan()
    assert not var[1:].isnan().any()
