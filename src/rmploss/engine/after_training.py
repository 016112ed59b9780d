"""After training, write membrane.json (histograms) and cost.json (operations) of the test split.

Reports and tables read both files. A run without them is finished; `rmploss train --resume` writes
the missing ones.
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
from rmploss.engine.batches import RankBatches
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork
from rmploss.recipes import Recipe

HISTOGRAM_SAMPLES = 1000
"""The number of test samples in the membrane histograms."""
COST_SAMPLES = 100
"""The number of test samples whose operations are counted."""
BATCH_SIZE = 16
"""Small, because a histogram holds several copies of the largest layer's membrane."""
MEMBRANE, COST = "membrane.json", "cost.json"


def is_analyzed(path: Path) -> bool:
    """True if a run folder has both files."""
    return all((path / name).is_file() for name in (MEMBRANE, COST))


def analyze(
    path: Path, net: SpikingNetwork, recipe: Recipe, samples: Samples, workers: int | None = 0
) -> None:
    """Write both files into a run folder. The network does not change.

    path: the run folder.
    net: the trained network.
    recipe: its recipe.
    samples: the test split.
    workers: the number of loader processes; None: chosen from the machine.
    """
    some = take(samples, min(len(samples), HISTOGRAM_SAMPLES))
    few = recipe.but(batch_size=min(recipe.batch_size, BATCH_SIZE))
    batches = RankBatches(few, workers=workers)
    histograms = membrane_histograms(net, batches.test(some))
    _write(
        path / MEMBRANE,
        {
            "split": "test",
            "samples": len(some),
            "figure_layer": net.figure_layer,
            "layers": [histogram.to_json() for histogram in histograms],
        },
    )
    some = take(samples, min(len(samples), COST_SAMPLES))
    deployed = fold(copy.deepcopy(net))
    with torch.no_grad():
        cost = inference_cost(deployed, batches.test(some))
    fields = {**asdict(cost), "microjoules": cost.microjoules}
    _write(path / COST, {"split": "test", "samples": len(some), **fields})


def _write(path: Path, content: dict[str, Any]) -> None:
    store.try_twice(lambda: store.write_text(path, json.dumps(content) + "\n"))
