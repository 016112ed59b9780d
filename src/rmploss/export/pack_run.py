"""Pack a run: its weights, record and card, and the formats that can hold its network.

What the pack claims is measured when it is made: on the test split, with the packed weights.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rmploss.engine import pack
from rmploss.engine.files import read_regular
from rmploss.engine.load import evaluate_run, find_weights
from rmploss.engine.pack import Claims
from rmploss.engine.run import RunFolder
from rmploss.engine.trained import Trained, load
from rmploss.errors import Problem, UserError
from rmploss.export.of_run import PARITY, SAMPLES, files_of
from rmploss.export.parity import Parity

TARGETS = ("onnx", "nir")
"""The formats that a pack holds if they can hold the network; they have no pickles."""
KEPT = ("recipe.json", "metrics.jsonl", "result.json", "membrane.json", "cost.json")
"""The files of a run folder that a pack repeats, as far as they are there."""


def pack_run(
    run_dir: Path,
    folder: Path,
    *,
    checkpoint: Literal["last", "best"] = "last",
    averaged: bool = False,
    data_dir: Path | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> tuple[Claims, str]:
    """Write the pack of a run; returns what it claims, and the SHA-256 of its manifest.

    run_dir: the run folder.
    folder: of the pack; it must not exist.
    checkpoint, averaged: which weights, see `rmploss.load`.
    data_dir: the folder of the data sets.
    on_note: called with how each file compares with the network, or why a format is left out.
    """
    if pack.is_pack(run_dir):
        raise UserError("a pack is not packed again", [Problem(str(run_dir), "is a pack", "a run")])
    chosen: Any = {"averaged": averaged, "data_dir": data_dir}
    net = load(run_dir, checkpoint=checkpoint, averaged=averaged)
    claims = Claims.of(evaluate_run(run_dir, which=checkpoint, device="cpu", **chosen))
    files = {name: read_regular(run_dir / name) for name in KEPT if (run_dir / name).is_file()}
    compared: list[Parity] = []
    for target in TARGETS:
        try:
            written, found = files_of(net, target, SAMPLES, data_dir)
        except UserError as error:
            on_note(f"{target} is left out: {' '.join(str(error).split())}")
            continue
        files |= written
        compared += found
        for each in found:
            on_note(each.line())
    if compared:
        files[PARITY] = (json.dumps([asdict(each) for each in compared], indent=1) + "\n").encode()
    facts = {
        "checkpoint": checkpoint,
        "averaged": averaged,
        "progress": find_weights(run_dir, checkpoint, on_older=lambda *_: None).progress,
        "classes": net.classes,
        "input": net.dataset.shape(net.recipe.T),
        "claims": asdict(claims),
    }
    done = len(RunFolder.open(run_dir).metrics())
    how = _trained(done, net.recipe.epochs, best=checkpoint == "best", progress=facts["progress"])
    files["README.md"] = card(net, claims, compared, how).encode(errors="backslashreplace")
    if done < net.recipe.epochs:
        on_note(f"the training was not finished: {done} of {net.recipe.epochs} epochs")
    return claims, pack.write(folder, net.net.state_dict(), files, facts)


def _trained(done: int, epochs: int, *, best: bool, progress: float) -> str:
    """How long a network was trained: "8 epochs", "epoch 3 of 8", "1 of 8 epochs, not finished".

    done: completed epochs of the run; epochs: those of its recipe.
    best: the weights are those of the most accurate epoch.
    progress: n / N of that epoch.
    """
    if best:
        return f"epoch {round(progress * epochs)} of {epochs}"
    return f"{epochs} epochs" if done >= epochs else f"{done} of {epochs} epochs, not finished"


def card(net: Trained, claims: Claims, compared: list[Parity], how_long: str) -> str:
    """The card of a pack, in Markdown.

    how_long: the network was trained, see `_trained`.
    """
    recipe = net.recipe
    count = sum(parameter.numel() for parameter in net.parameters())
    what = f"A spiking {recipe.network.name} of {count:,} parameters, trained on {recipe.data.name}"
    how = f"with T = {recipe.T} time steps (seed {recipe.seed}, {how_long})."
    lines = [
        "---",
        "library_name: rmploss",
        "tags: [spiking-neural-network, image-classification]",
        "---",
        f"# {recipe.name}",
        "",
        f"{what} {how}",
        "",
        f"| on the {recipe.tested_on} split | |",
        "|---|---:|",
        f"| accuracy | {claims.accuracy:.2f} % of {claims.samples} |",
        f"| quantization error (Eq. 9, mean over layers) | {claims.quantization_error:.4f} |",
        f"| firing rate (mean over layers) | {claims.firing_rate:.4f} |",
        "",
        "    rmploss eval THIS_FOLDER        # measures again; exit code 12 if it differs",
        "    rmploss predict THIS_FOLDER image.png",
        "",
        "```python",
        "import rmploss",
        "",
        'net = rmploss.load("THIS_FOLDER")',
        'net.predict("image.png")',
        "```",
    ]
    if compared:
        compared_on = f"compared on samples of the {recipe.tested_on} split"
        lines += ["", f"Files for other runtimes, {compared_on}:", ""]
        lines += [f"* {each.line()}" for each in compared]
    lines += ["", "manifest.json has the SHA-256 of every file. Nothing here is a pickle."]
    return "\n".join(lines) + "\n"
