"""Moments of every time step `[T, 4, C]`: of each step alone, on every backend that runs here."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rmploss import LIF, membrane_stats, ops
from rmploss.neurons.relu import ReLU
from rmploss.norm import TDBatchNorm2d
from rmploss.ops import native
from rmploss.ops.lif.moments import ERROR, MomentSpec
from rmploss.surrogate import SURROGATES
from tests.given import normal
from tests.ops.test_cpu import assert_equal

T, B, C = 4, 3, 5


def options(spec: MomentSpec) -> Any:
    """The paper's neuron."""
    return {
        "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
        "surrogate": SURROGATES.make("clipped_tanh"), "moments": spec,
    }  # fmt: skip


@pytest.mark.parametrize("potential", ["u_pre", "input"])
def test_each_row_is_the_moments_of_its_step(potential: Any) -> None:
    x, u, rows = normal(T, B, C, 2, 2), None, []
    whole = MomentSpec(potential=potential)
    for t in range(T):
        _, one, u = ops.lif(x[t : t + 1], u, **options(whole), backend="reference")
        rows.append(one)
    steps = MomentSpec(potential=potential, per_step=True)
    _, found, _ = ops.lif(x, **options(steps), backend="reference")
    assert found is not None
    assert found.shape == (T, 4, C)
    assert torch.equal(found, torch.stack(rows))
    _, total, _ = ops.lif(x, **options(whole), backend="reference")
    assert total is not None
    torch.testing.assert_close(found.sum(0), total, rtol=1e-14, atol=1e-14)


@pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
@pytest.mark.parametrize("residual", ["none", "spikes", "numbers"])
@pytest.mark.parametrize("static", [False, True])
def test_norm_and_shortcut(residual: str, static: bool) -> None:
    y = normal(1 if static else T, B, C, 2, 2, mean=0.3)
    gain, bias = normal(C, mean=1, std=0.2, name="gain"), normal(C, name="bias")
    shortcut = normal(T, B, C, 2, 2, name="shortcut")
    if residual == "spikes":
        shortcut = (shortcut > 0.5).double()

    def run(y: Tensor, gain: Tensor, bias: Tensor, *rest: Tensor, **o: Any) -> Any:
        rule = options(MomentSpec(per_step=True))
        given: Any = {"residual": rest[0]} if rest else {}
        repeats = T if static else 1
        return ops.norm_lif(y, gain, bias, eps=1e-5, repeats=repeats, **given, **rule, **o)[:3]

    assert_equal(run, [y, gain, bias] + ([] if residual == "none" else [shortcut]))


def test_a_layer_records_them() -> None:
    for layer in (LIF(C), ReLU(C)):
        entries = []
        for per_step in (False, True):
            with membrane_stats(spec=MomentSpec(per_step=per_step)) as stats:
                layer(normal(T, B, C, 2, 2).float())
            entries.append(stats.layers[0])
        whole, steps = entries
        assert (whole.count, steps.count) == (T * B * 4, B * 4)
        assert whole.elements == steps.elements == T * B * 4 * C
        assert steps.row(ERROR).shape == steps.mean.shape == steps.variance.shape == (T, C)
        torch.testing.assert_close(steps.quantization_error, whole.quantization_error)
        torch.testing.assert_close(steps.mean.mean(0), whole.mean)


def test_a_norm_in_front_tracks_once() -> None:
    norms = [TDBatchNorm2d(C), TDBatchNorm2d(C)]
    for norm, per_step in zip(norms, (False, True), strict=True):
        with membrane_stats(spec=MomentSpec(per_step=per_step)):
            LIF(C)(normal(T, B, C, 2, 2).float(), norm=norm)
    assert torch.equal(norms[0].running_var, norms[1].running_var)
