"""Weights for a start, by name and shape: of a run, or of a checkpoint of another library.

A name of torchvision or SpikingJelly becomes ours by `RULES`: `layer2.0.bn1.weight` is our
`layer2.0.conv1.norm.weight`. Every tensor that is taken, new or unused is listed; what does not fit
is an error, except the head of another number of classes, which stays new. Values are copied as
they are: behind a plain batch norm a current is 1 / (alpha V_th) times that of tdBN (Eqs. 6-7).
"""

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rmploss.engine import checkpoint
from rmploss.engine.run import RunFolder
from rmploss.errors import Problem, UserError
from rmploss.models import SpikingNetwork

HEAD = "head."
"""The first part of the names of the last layer's tensors."""
MOST_SHOWN = 12
"""The largest number of tensors in one message."""
RULES = (
    (r"^(module\.|model\.|net\.|backbone\.)+", ""),
    (r"(^|\.)bn(\d+)\.", r"\1conv\2.norm."),
    (r"(^|\.)conv(\d+)\.(weight|bias)$", r"\1conv\2.conv.\3"),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"^fc\.", "head.layer."),
)
"""From names of torchvision and SpikingJelly to ours, one after the other."""
WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "net")
"""The entries under which checkpoints of training scripts keep the weights."""


@dataclass(frozen=True)
class Weights:
    """Tensors for a start, and where they came from.

    tensors: by name.
    record: of the source, for events.jsonl; its "sha256" is that of the file.
    """

    tensors: Mapping[str, Tensor]
    record: Mapping[str, Any]


def read_weights(source: Path) -> Weights:
    """The weights of a run folder, or of a .safetensors, .pt or .pth file.

    Of a .pt file tensors alone are read (`weights_only`): it cannot run code. Raises `UserError`
    for what holds no weights.
    """
    if source.is_dir() or not source.exists():
        return _of_run(source)
    data = source.read_bytes()
    try:
        if source.suffix == ".safetensors":
            found: Any = safetensors.torch.load(data)
        else:
            found = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise _no_weights(source, str(error).strip().partition("\n")[0]) from error
    except safetensors.SafetensorError as error:
        raise _no_weights(source, str(error)) from error
    for name in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise _no_weights(source, f"holds a {type(found).__name__}, not tensors by name")
    record = {"file": str(source), "sha256": hashlib.sha256(data).hexdigest()}
    return Weights(dict(found), record)


def _of_run(run: Path) -> Weights:
    folder = RunFolder.open(run)
    loaded = checkpoint.load_latest(run, recipe_hash=folder.recipe_hash)
    manifest = json.loads((loaded.path / checkpoint.MANIFEST).read_bytes())
    record = {
        "run": str(run),
        "recipe": folder.recipe().name,
        "altered": True,  # `table` compares no published number
        "epoch": loaded.counters.epoch,
        "step": loaded.counters.step,
        "sha256": manifest["files"][checkpoint.STATE]["sha256"],
    }
    return Weights(loaded.model_state, record)


def _no_weights(source: Path, why: str) -> UserError:
    fix = "a run folder, or a file of torch.save(net.state_dict(), ...) or of safetensors"
    return UserError("no weights to start from", [Problem(str(source), why, fix)])


def translate(name: str) -> str:
    """A name of theirs as ours; ours stay."""
    for pattern, ours in RULES:
        name = re.sub(pattern, ours, name)
    return name


def take(
    net: SpikingNetwork, tensors: Mapping[str, Tensor], *, partial: bool
) -> dict[str, list[str]]:
    """Copy weights into a network; returns the names that were "taken", stay "new", are "unused".

    net: changed in place, or not at all.
    tensors: of `read_weights`.
    partial: allow tensors that do not fit and tensors that are left out.

    Raises `UserError` with every tensor that does not fit, unless it is of the head.
    """
    ours = net.state_dict()
    theirs = {name if name in ours else translate(name): t for name, t in tensors.items()}
    theirs = {name: t for name, t in theirs.items() if not name.endswith("num_batches_tracked")}
    fits = {name: t for name, t in theirs.items() if name in ours and t.shape == ours[name].shape}
    new = [name for name in ours if name not in fits]
    unused = [name for name in theirs if name not in fits]
    problems = [
        Problem(name, _why(name, ours, theirs))
        for name in dict.fromkeys((*new, *unused))
        if not (name.startswith(HEAD) and name in theirs)
    ]
    if not fits:
        partial = False
    if problems and not partial:
        more = len(problems) - MOST_SHOWN
        rest = [Problem("...", f"and {more} more")] if more > 0 else []
        fix = Problem("start.partial", "is false", "--set start.partial=true takes what fits")
        title = f"{len(fits)} of {len(ours)} tensors fit, the others do not"
        raise UserError(title, [*problems[:MOST_SHOWN], *rest, *([fix] if fits else [])])
    with torch.no_grad():
        for name, tensor in fits.items():
            ours[name].copy_(tensor)
    return {"taken": list(fits), "new": new, "unused": unused}


def times_as_wide(net: SpikingNetwork, tensors: Mapping[str, Tensor]) -> float:
    """How many times as wide as `net` the network of the weights is; 1 if that explains nothing.

    Every tensor that does not fit, the head aside, then has as many times the channels.
    """
    ours = net.state_dict()
    theirs = {name if name in ours else translate(name): t for name, t in tensors.items()}
    pairs = [
        (t.shape, ours[name].shape)
        for name, t in theirs.items()
        if name in ours and t.ndim and t.shape != ours[name].shape and not name.startswith(HEAD)
    ]
    ratios = {there[0] / here[0] for there, here in pairs if here[0] and len(there) == len(here)}
    return ratios.pop() if len(ratios) == 1 else 1.0


def _why(name: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    if name not in theirs:
        return f"{list(ours[name].shape)} is not in the source"
    if name not in ours:
        return "is in the source alone"
    return f"is {list(theirs[name].shape)} in the source, {list(ours[name].shape)} here"
