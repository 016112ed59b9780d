"""What is looked at when a run is finished: the membranes, and what an inference costs.

Both are read by reports and tables, and made of (a part of) the test split. A run that lacks one of
them is finished all the same; `rmploss train --resume` makes it.
"""

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rmploss import store
from rmploss.analysis import inference_cost, membrane_histograms
from rmploss.data import Samples, take
from rmploss.engine.batches import test_batches
from rmploss.engine.distributed import World
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork
from rmploss.recipes import Recipe

LOOKED_AT = 1000
"""How many test samples the membrane histograms of a run are taken from."""
COUNTED = 100
"""How many of them the operations are counted on."""
AT_ONCE = 16
"""How many of them at a time: a histogram holds several copies of the largest layer's membrane."""
MEMBRANE, COST = "membrane.json", "cost.json"
"""The files."""


def is_closed(path: Path) -> bool:
    """Whether both files are there."""
    return all((path / name).is_file() for name in (MEMBRANE, COST))


def close(
    path: Path, net: SpikingNetwork, recipe: Recipe, samples: Samples, workers: int = 0
) -> None:
    """Write both files into a run folder. The network is not changed."""
    some = take(samples, min(len(samples), LOOKED_AT))
    few = recipe.but(batch_size=min(recipe.batch_size, AT_ONCE))
    histograms = membrane_histograms(net, test_batches(few, some, World(), workers))
    _write(
        path / MEMBRANE,
        {
            "split": "test",
            "samples": len(some),
            "figure_layer": net.figure_layer,
            "layers": [histogram.to_json() for histogram in histograms],
        },
    )
    some = take(samples, min(len(samples), COUNTED))
    deployed = fold(copy.deepcopy(net))
    with torch.no_grad():
        cost = inference_cost(deployed, test_batches(few, some, World(), workers))
    plain = {**asdict(cost), "microjoules": cost.microjoules}
    _write(path / COST, {"split": "test", "samples": len(some), **plain})


def _write(path: Path, plain: dict[str, Any]) -> None:
    store.write_text(path, json.dumps(plain) + "\n")
