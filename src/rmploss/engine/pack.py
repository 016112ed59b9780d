"""A pack: a trained network as one flat folder to give away, without checkpoints and pickles.

model.safetensors   the weights of one epoch
recipe.json         as in the run folder; likewise metrics.jsonl, result.json, membrane.json, ...
pack.json           which weights, the classes, and what is claimed
README.md           the card
manifest.json       size and SHA-256 of each file, written last
model.onnx, model-step.onnx, model.nir, parity.json    where the network can be written as such

`rmploss eval PACK` measures again what pack.json claims.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from rmploss import store
from rmploss.engine import manifest
from rmploss.engine.checkpoint import DamagedError, seal
from rmploss.engine.environment import versions
from rmploss.engine.evaluate import Evaluation
from rmploss.engine.files import read_regular
from rmploss.errors import ClaimError, DamagedRunError, Problem, UserError

FORMAT = 1
PACK, WEIGHTS = "pack.json", "model.safetensors"
SHARE = 0.001
"""The share of test samples that another machine may answer differently: sums in another order
round differently, and a membrane next to its threshold then fires or does not."""


@dataclass(frozen=True)
class Claims:
    """What a pack says of its network on the test split.

    accuracy: in percent.
    samples: of the test split.
    quantization_error, firing_rate: means over the layers, dimensionless.
    """

    accuracy: float
    samples: int
    quantization_error: float
    firing_rate: float

    @classmethod
    def of(cls, found: Evaluation) -> "Claims":
        """The claims that an evaluation supports."""
        return cls(found.accuracy, found.samples, found.quantization_error, found.firing_rate)


def is_pack(path: Path) -> bool:
    """True if a folder is a pack, sound or not."""
    return (path / PACK).is_file()


def write(
    path: Path, weights: Mapping[str, Tensor], files: Mapping[str, bytes], facts: Mapping[str, Any]
) -> str:
    """Write a pack; returns the SHA-256 of its manifest, which vouches for all files.

    path: of the folder, which must not exist.
    weights: the network's state.
    files: the other files by name.
    facts: for pack.json: "claims", "classes", "checkpoint", ...
    """
    if path.exists():
        problem = Problem(str(path), "is there", "another --out, or remove it")
        raise UserError("the folder of the pack exists", [problem])
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    content = {
        WEIGHTS: safetensors.torch.save(own),
        **files,
        PACK: (json.dumps({"format": FORMAT, **facts}, indent=1) + "\n").encode(),
    }
    listed = {name: manifest.described(data) for name, data in content.items()}
    sealed = seal(
        {"format": manifest.FORMAT, "versions": versions(), "digest": "", "files": listed}
    )
    store.make_folder(path.parent)
    store.write_folder(path, {**content, manifest.MANIFEST: sealed})
    return hashlib.sha256(sealed).hexdigest()


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and pack.json, after all hashes were compared; `DamagedRunError` names bad files."""
    try:
        listed = manifest.read(path)
    except DamagedError as error:
        problem = Problem(str(path / manifest.MANIFEST), str(error), "get the pack again")
        raise DamagedRunError("the pack cannot be trusted", [problem]) from None
    damages = [damage.problem(path) for damage in manifest.damages(path, listed)]
    if damages:
        raise DamagedRunError("the pack is damaged", damages)
    try:
        facts = json.loads(read_regular(path / PACK))
        weights = safetensors.torch.load(read_regular(path / WEIGHTS))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']!r}; this version reads {FORMAT}")
    except (ValueError, KeyError, TypeError, OSError, safetensors.SafetensorError) as error:
        problem = Problem(str(path), str(error), "a newer rmploss may read it")
        raise DamagedRunError("the pack holds no network of this format", [problem]) from None
    return weights, facts


def claims_of(path: Path) -> Claims:
    """What a pack claims."""
    return Claims(**read(path)[1]["claims"])


def require_claims(path: Path, measured: Claims) -> None:
    """Raise `ClaimError` unless a pack's accuracy is the measured one, but for `SHARE`."""
    claimed = claims_of(path)
    apart = abs(claimed.accuracy - measured.accuracy) / 100 * measured.samples
    allowed = max(1.0, SHARE * measured.samples)
    if claimed.samples == measured.samples and apart <= allowed + 1e-9:
        return
    words = ("{accuracy:.2f} % of {samples}".format_map(asdict(c)) for c in (claimed, measured))
    what = "claimed {}, measured {}".format(*words)
    fix = f"at most {allowed:.0f} samples may differ: is it the same data, the same version?"
    raise ClaimError("the pack does not do what it claims", [Problem(str(path), what, fix)])
