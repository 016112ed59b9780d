"""A NIR file in a reader of nir 1.0.4, which has an environment of its own (`nir_1_0_4.sh`).

compare(...)                                        starts the rest of this file there:
python tools/nir_1_0_4.py FILE.nir GIVEN.pt READER      prints a `Parity` as JSON
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmploss.export import nir_readers
from rmploss.export.graph import Graph
from rmploss.export.parity import Parity, Reference, Spikes, frames
from rmploss.export.parity import compare as compared
from rmploss.export.to_nir import DT, name_of

ROOT = Path(__file__).parent.parent
FOLDER = Path(os.environ.get("RMPLOSS_NIR_1_0_4", ROOT / "build" / "nir-1.0.4"))
"""Where the environment is."""
READERS = ("nir", "norse", "sinabs", "rockpool")


def is_there() -> bool:
    """Whether the environment was made."""
    return (FOLDER / "nir").is_dir()


def compare(
    content: bytes, graph: Graph, given: Reference, reader: str, folder: Path, name: str
) -> Parity:
    """Run a file in a reader of nir 1.0.4, in a process of its own.

    content: the file, written for nir 1.0.4.
    graph, given: the network, and its answers.
    reader: a name in `READERS`.
    folder: where the files of the process are put.
    name: of the file.
    """
    path, answers = folder / name, folder / f"{name}.pt"
    path.write_bytes(content)
    kept = {
        "x": frames(graph, given.x).contiguous(),
        "logits": given.logits,
        "spikes": {name_of(node.name): given.spikes[node.name] for node in graph.neurons},
        "mean": graph.readout == "mean",
    }
    torch.save(kept, answers)
    paths = [str(FOLDER.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, __file__, str(path), str(answers), reader],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Parity(**json.loads(done.stdout.splitlines()[-1]))


def _read(path: Path, answers: Path, reader: str) -> Parity:
    """What the process does: read, run, compare."""
    import nir

    if version("nir") != "1.0.4":
        raise SystemExit(f"this is nir {version('nir')} of {nir.__file__}")
    kept: dict[str, Any] = torch.load(answers, weights_only=True)
    given = Reference(kept["x"], kept["logits"], kept["spikes"])

    def run() -> tuple[Tensor, Spikes]:
        file: Any = path  # nir's own type is of strings
        graph = nir.read(file)
        if reader == "rockpool":
            from rockpool.nn.modules.torch.nir import (  # pyright: ignore[reportMissingImports]
                from_nir,
            )

            from_nir(graph)
            raise NotImplementedError("read, and not run: its neurons subtract, ours reset to 0")
        outputs, spikes = nir_readers.run(reader, graph, kept["x"], DT)
        return outputs.mean(0) if kept["mean"] else outputs.sum(0), spikes

    package = nir_readers.READERS[reader][0] if reader in nir_readers.READERS else reader
    runtime = f"{package} {version(package)}" + ("" if package == "nir" else ", nir 1.0.4")
    return compared(path.name, runtime, given, run)


if __name__ == "__main__":
    print(json.dumps(asdict(_read(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))))
