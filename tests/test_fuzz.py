"""Random arguments of public functions: a value, equal to the reference's, or an error of ours."""

import math
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from rmploss import (
    IF,
    LIF,
    Accumulator,
    MomentSpec,
    RMPLoss,
    SpikeConv2d,
    TDBatchNorm2d,
    attach,
    checkpoint,
    export,
    functional,
    load,
    membrane_stats,
    models,
    ops,
    register,
    rmp_loss,
)
from rmploss.errors import UserError
from rmploss.neurons import NEURONS
from rmploss.norm import NORMS
from rmploss.objectives import AUXILIARIES, LOSSES
from rmploss.objectives.schedules import SCHEDULES
from rmploss.recipes import RECIPES

EXAMPLES = 250 if os.environ.get("RMPLOSS_FUZZ") == "all" else 20
"""Calls of each function."""
NUMBERS = [None, True, -1, 0, 1, 2, 3, 4, 0.25, 0.5, -0.5, 1.0, math.nan, math.inf, 10**12]
WORDS = ["", "sum", "lif", "convnet", "ce", (1, 2), [3], {}]
OBJECTS = [np.float32(0.5), np.int64(4), object(), lambda x: x]
SCALARS = st.sampled_from([*NUMBERS, *WORDS, *OBJECTS])
TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
SHAPES = [(), (4,), (3, 4), (2, 3, 4), (2, 3, 4, 4), (2, 3, 4, 4, 4), (0, 3, 4), (1, 1, 3, 8, 8)]


def made(shape: tuple[int, ...], dtype: torch.dtype, kind: str) -> Tensor:
    """A tensor of that shape and type, the same for the same arguments."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    x = (x > 0).to(dtype) if kind == "spikes" else x.to(dtype)
    if kind == "meta":
        return x.to("meta")
    if kind == "sparse":
        return x.to_sparse() if x.ndim else x
    return x.transpose(-1, -2) if kind == "strided" and x.ndim > 1 else x


TENSORS = st.builds(
    made,
    st.sampled_from(SHAPES),
    st.sampled_from([*TYPES, torch.complex64]),
    st.sampled_from(["dense", "dense", "dense", "spikes", "strided", "sparse", "meta"]),
)
VALUES = st.one_of(TENSORS, TENSORS, SCALARS)
NEURON = ["channels", "decay", "v_threshold", "v_reset", "reset_by", "surrogate", "moments"]
PARTS = ["k", "p", "schedule", "reduction", "width", "T", "num_classes", "neuron", "norm", "spec"]
KERNEL = ["stride", "padding", "groups", "dilation", "bias", "padding_mode", "dtype"]
CALL = ["x", "u", "residual", "repeats", "over_time", "progress", "stats", "foo"]
FILES = ["net", "sample", "path", "form", "reader", "dt", "checkpoint", "averaged", "entry", "name"]
NAMES = st.sampled_from([*NEURON, *PARTS, *KERNEL, *CALL, *FILES])
CALLS: dict[str, Callable[..., Any]] = {
    "functional.lif": functional.lif,
    "functional.lif_step": functional.lif_step,
    "functional.membrane": functional.membrane,
    "functional.accumulate": functional.accumulate,
    "LIF": LIF,
    "IF": IF,
    "Accumulator": Accumulator,
    "TDBatchNorm2d": TDBatchNorm2d,
    "SpikeConv2d": SpikeConv2d,
    "RMPLoss": RMPLoss,
    "rmp_loss": torch.no_grad()(rmp_loss),
    "attach": attach,
    "MomentSpec": MomentSpec,
    **{f"{name}.forward": lambda *a, n=name, **k: NEURONS[n](4)(*a, **k) for name in NEURONS},
    "LIF.step": lambda *a, **k: LIF(4, carry_state=True).step(*a, **k),
    "LIF.membrane": lambda *a, **k: LIF(4).membrane(*a, **k),
    "Accumulator.forward": lambda *a, **k: Accumulator()(*a, **k),
    **{f"{name}.forward": lambda *a, n=name, **k: NORMS[n](4).eval()(*a, **k) for name in NORMS},
    "SpikeConv2d.forward": lambda *a, **k: conv()(*a, **k),
    "RMPLoss.call": lambda *a, **k: RMPLoss()(*a, **k),
    **{
        f"lambda {name}": lambda *a, n=name, **k: RMPLoss(schedule=n).weight(*a, **k)
        for name in SCHEDULES
    },
    "create": models.create,
    "convnet": lambda **k: models.create("convnet", **k),
    "network.forward": lambda *a, **k: net()(*a, **k),
    "checkpoint": lambda *a, **k: checkpoint(LIF(4), *a, **k),
    "membrane_stats": lambda *a, **k: membrane_stats(*a, **k).__enter__(),
    **{f"loss {name}": lambda *a, n=name: LOSSES[n]()(*a) for name in LOSSES},
    **{
        f"loss {name}": lambda *a, n=name: AUXILIARIES[n]()(*a)
        for name in AUXILIARIES
        if name != "none"
    },
    "load": load,
    **{name: getattr(export, name) for name in export.__all__},
    **{
        f"{name} of a network": lambda *a, n=name, **k: getattr(export, n)(net(), *a, **k)
        for name in export.__all__
    },
    **{f"register.{name}": family for name, family in register.FAMILIES.items()},
    "register.recipe": register.recipe,
}


def conv() -> SpikeConv2d:
    """The same convolution each time."""
    torch.manual_seed(0)
    return SpikeConv2d(3, 4, 3, padding=1)


@cache
def net() -> Any:
    """A network in evaluation, which no call changes."""
    torch.manual_seed(0)
    return models.create("convnet", width=0.125, T=2).eval()


def outcome(name: str, places: list[Any], names: dict[str, Any]) -> Any:
    """What a call returns; the `UserError` that it raises."""
    try:
        return CALLS[name](*places, **names)
    except UserError as error:
        return error


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors of what a call returned."""
    if isinstance(value, Tensor):
        return [value]
    return [x for part in value for x in tensors_of(part)] if isinstance(value, tuple) else []


@pytest.fixture(autouse=True)
def nothing_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written in a folder of the test's own, and no entry stays registered."""
    monkeypatch.chdir(tmp_path)
    for registry in (*(family.registry for family in register.FAMILIES.values()), RECIPES):
        monkeypatch.setattr(registry, "_added", {})


@pytest.mark.parametrize("name", CALLS)
def test_a_call_returns_the_reference_or_tells_its_mistake(name: str) -> None:
    takes_places = name != "convnet"

    @seed(0)
    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(
        st.lists(VALUES, max_size=3 if takes_places else 0),
        st.dictionaries(NAMES, VALUES, max_size=0 if name.startswith("loss") else 2),
    )
    def call(places: list[Any], names: dict[str, Any]) -> None:
        if name.startswith("loss") and len(places) < 3:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = outcome(name, places, names)
            with ops.use_backend("reference"):
                expected = outcome(name, places, names)
        assert isinstance(found, UserError) == isinstance(expected, UserError), (found, expected)
        for one, other in zip(tensors_of(found), tensors_of(expected), strict=True):
            assert one.dtype == other.dtype
            if one.device.type != "meta" and other.device.type != "meta":
                half = one.dtype in (torch.float16, torch.bfloat16)
                near: Any = {"rtol": 2e-2, "atol": 2e-2} if half else {"rtol": 1e-4, "atol": 1e-5}
                torch.testing.assert_close(one, other, **near, equal_nan=True)

    call()
