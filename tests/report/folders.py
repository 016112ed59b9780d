"""Run folders for the tests of reports, written without training."""

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from rmploss import recipes
from rmploss.analysis.histogram import BINS, HIGH, LOW
from rmploss.engine.run import recipe_hash
from rmploss.recipes import Recipe
from rmploss.report.predictions import Predictions, read_predictions

WITHOUT, WITH = recipes.get("digits"), recipes.get("digits-rmp")
ENVIRONMENT = {"python": "3.11.0", "torch": "2.9.0", "cpus": 2, "devices": [], "commit": None}


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def epoch(n: int, recipe: Recipe, accuracy: float, error: float, **changes: Any) -> dict[str, Any]:
    layer = {"quantization_error": error, "firing_rate": 0.2}
    return {
        "epoch": n,
        "step": 22 * n,
        "lambda": 0.5,
        "train_loss": 2.0 / n,
        "test_accuracy": accuracy,
        "quantization_error": error,
        "firing_rate": 0.2,
        "layers": {"lif1": layer, "lif2": layer},
        "train_s": 1.5,
        "test_s": 0.5,
        **changes,
    }


def membrane(layer: str, at: float = 0.0, v_threshold: float = 0.5) -> dict[str, Any]:
    """A triangle of counts, 20 bins to either side."""
    centre = round((at - LOW) / (HIGH - LOW) * BINS)
    counts = [100 * max(20 - abs(index - centre), 0) for index in range(BINS)]
    place = {"layer": layer, "v_threshold": v_threshold, "low": LOW, "high": HIGH}
    return {**place, "below": 100, "above": 0, "counts": counts}


def pixels(*shape: int) -> dict[str, Any]:
    count = 1
    for size in shape:
        count *= size
    data = base64.b64encode(bytes(i % 256 for i in range(count))).decode()
    return {"shape": list(shape), "base64": data}


def predicted() -> dict[str, Any]:
    """A predictions.json: a cat of ten is a dog; an image and a recording of four steps."""
    example = {"label": 0, "predicted": 1, "probability": 0.75, "layer": "lif1"}
    example |= {"active": {"lif1": [0.1, 0.2, 0.3, 0.4]}, "spikes": pixels(4, 2, 2)}
    return {
        "split": "test",
        "samples": 20,
        "classes": ["cat", "dog"],
        "confusion": [[0, 0, 9], [0, 1, 1], [1, 1, 10]],
        "examples": [
            {**example, "frames": pixels(1, 8, 8, 3)},
            {**example, "frames": pixels(4, 8, 8), "predicted": 0},
        ],
    }


def predictions() -> Predictions:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "predictions.json").write_text(json.dumps(predicted()))
        return read_predictions(Path(folder) / "predictions.json")


def run_folder(
    parent: Path,
    recipe: Recipe = WITH,
    *,
    name: str = "",
    accuracy: float = 90.0,
    error: float = 0.15,
    epochs: int | None = None,
    events: list[dict[str, Any]] | None = None,
    command: list[str] | None = None,
    finished: bool = True,
) -> Path:
    """A run whose accuracy rises by one point per epoch up to `accuracy`."""
    path = parent / (name or f"{recipe.name}-s{recipe.seed}")
    path.mkdir(parents=True)
    plain = recipe.to_json()
    document = {"recipe": plain, "sha256": recipe_hash(plain)}
    (path / "recipe.json").write_text(json.dumps(document))
    start = {"event": "start", "command": command or [], "environment": ENVIRONMENT}
    (path / "events.jsonl").write_text(lines(start, *(events or [])))
    last = recipe.epochs if epochs is None else epochs
    records = [epoch(n, recipe, accuracy - last + n, error) for n in range(1, last + 1)]
    (path / "metrics.jsonl").write_text(lines(*records))
    if finished:
        (path / "result.json").write_text("{}")
        layers = [membrane("lif1"), membrane("lif2", 0.3)]
        plain = {"split": "test", "samples": 360, "figure_layer": "lif2", "layers": layers}
        (path / "membrane.json").write_text(json.dumps(plain))
    return path
