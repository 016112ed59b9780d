"""docs/attach.md: every example runs as it stands, and records what it says."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from rmploss.interop.attach import FRAMEWORKS
from tests.interop.peers import peer

PAGE = (Path(__file__).parents[2] / "docs" / "attach.md").read_text(encoding="utf-8")
EXAMPLES = dict(
    re.findall(r"^## (.*)\n\n(?:[^`].*\n+)*```python\n((?:.*\n)*?)```", PAGE, re.MULTILINE)
)
ENTRIES = {"SpikingJelly": 17, "snnTorch": 2, "Norse": 1, "sinabs": 1}


def test_every_library_has_an_example() -> None:
    assert {name.lower() for name in ENTRIES} == set(FRAMEWORKS)
    assert set(EXAMPLES) == {*ENTRIES, "A neuron of your own"}


@pytest.mark.parametrize("title", [*ENTRIES, "A neuron of your own"])
def test_an_example_runs(title: str) -> None:
    if title in ENTRIES:
        peer(title.lower())
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library
        exec(EXAMPLES[title], names)
    assert names["loss"].requires_grad
    if title in ENTRIES:
        assert len(names["stats"]) == ENTRIES[title]
        gradients = [p.grad for p in names["net"].parameters() if p.requires_grad]
        assert any(g is not None and bool((g != 0).any()) for g in gradients)
    torch.manual_seed(0)
