"""After training, write what reports show of the test split: predictions, membranes, cost.

    predictions.json    the confusion matrix, and examples with their spikes over time
    membrane.json       histograms of the membrane potentials; the quantization error of the input
                        current, whose two means are two more readings of Table 1
    cost.json           the operations of an inference

Reports and tables read these files. A run without them is finished; `rmploss train --resume` writes
the missing ones.
"""

import base64
import copy
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmploss import store
from rmploss.analysis import (
    Example,
    confusion,
    examples,
    inference_cost,
    membrane_histograms,
)
from rmploss.data import Samples, take
from rmploss.engine.batches import RankBatches
from rmploss.engine.distributed import World
from rmploss.engine.evaluate import evaluate
from rmploss.engine.precision import precision
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork
from rmploss.recipes import Recipe

HISTOGRAM_SAMPLES = 1000
"""The number of test samples in the membrane histograms."""
COST_SAMPLES = 100
"""The number of test samples whose operations are counted."""
EXAMPLES = 6
"""The number of test samples that are shown with their spikes."""
BATCH_SIZE = 16
"""Small, because a histogram holds several copies of the largest layer's membrane."""
PREDICTIONS, MEMBRANE, COST = "predictions.json", "membrane.json", "cost.json"


def is_analyzed(path: Path) -> bool:
    """True if a run folder has the files.

    Runs of earlier versions lack predictions.json; in others it is written before these two.
    """
    return all((path / name).is_file() for name in (MEMBRANE, COST))


def analyze(
    path: Path,
    net: SpikingNetwork,
    recipe: Recipe,
    samples: Samples,
    classes: Sequence[str] = (),
    workers: int | None = 0,
) -> None:
    """Write the files into a run folder. The network does not change.

    path: the run folder.
    net: the trained network.
    recipe: its recipe.
    samples: the test split.
    classes: the names of its classes; empty: they have none.
    workers: the number of loader processes; None: chosen from the machine.
    """
    # In batches of the test, so that the counts are those of its accuracy.
    counted = confusion(net, RankBatches(recipe, workers=workers).test(samples))
    shown = take(samples, min(len(samples), EXAMPLES))
    _write(
        path / PREDICTIONS,
        {
            "split": recipe.tested_on,
            "samples": len(samples),
            "classes": list(classes),
            "confusion": counted,
            "examples": [_example(each) for each in examples(net, RankBatches(recipe).test(shown))],
        },
    )
    some = take(samples, min(len(samples), HISTOGRAM_SAMPLES))
    few = recipe.but(batch_size=min(recipe.batch_size, BATCH_SIZE))
    batches = RankBatches(few, workers=workers)
    histograms = membrane_histograms(net, batches.test(some))
    device = next(net.parameters()).device
    of_input = evaluate(
        net,
        RankBatches(recipe, workers=workers).test(samples),
        world=World(device=device),
        potential="input",
        precision=precision(recipe, device),
    )
    _write(
        path / MEMBRANE,
        {
            "split": recipe.tested_on,
            "samples": len(some),
            "figure_layer": net.figure_layer,
            "layers": [histogram.to_json() for histogram in histograms],
            "input": {
                "samples": of_input.samples,
                "quantization_error": of_input.quantization_error,
                "quantization_error_of_elements": of_input.quantization_error_of_elements,
            },
        },
    )
    some = take(samples, min(len(samples), COST_SAMPLES))
    deployed = fold(copy.deepcopy(net))
    with torch.no_grad():
        cost = inference_cost(deployed, batches.test(some))
    fields = {**asdict(cost), "microjoules": cost.microjoules}
    _write(path / COST, {"split": recipe.tested_on, "samples": len(some), **fields})


def _example(example: Example) -> dict[str, Any]:
    """An example as JSON, its pixels in base64."""
    fields = {name: value for name, value in vars(example).items() if not torch.is_tensor(value)}
    return {**fields, "frames": _pixels(example.frames), "spikes": _pixels(example.spikes)}


def _pixels(pixels: Tensor) -> dict[str, Any]:
    data = base64.b64encode(pixels.contiguous().numpy().tobytes()).decode()
    return {"shape": list(pixels.shape), "base64": data}


def _write(path: Path, content: dict[str, Any]) -> None:
    store.try_twice(lambda: store.write_text(path, json.dumps(content) + "\n"))
