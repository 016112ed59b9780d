"""`rmploss pack`: a trained network as one folder to give away."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from rmploss.cli.common import DataDir, Flag, RunDir
from rmploss.cli.wrapping import say


@dataclass(frozen=True)
class Pack:
    """Pack a trained network: weights, recipe, record, card, ONNX and NIR where they can hold it.

    $ rmploss pack runs/NAME
    $ rmploss pack runs/NAME --checkpoint best --out packs/mine

    The accuracy that the pack claims is measured now, on the test split; `rmploss eval PACK`
    measures it again. No file is a pickle, and the manifest has the SHA-256 of each.
    """

    run_dir: Positional[RunDir]
    """The run folder."""
    out: Annotated[
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: packs/ and the run's name)")
    ] = None
    """The folder of the pack."""
    checkpoint: Literal["last", "best"] = "last"
    """The epoch: the last or the most accurate."""
    averaged: Flag = False
    """Take the averaged weights of a recipe with `average`."""
    data_dir: DataDir = None
    """The folder of the data sets."""

    def run(self) -> int:
        """Pack and print."""
        from rmploss.export.pack_run import pack_run

        folder = self.out or Path("packs", self.run_dir.resolve().name)
        claims, sha256 = pack_run(
            self.run_dir,
            folder,
            checkpoint=self.checkpoint,
            averaged=self.averaged,
            data_dir=self.data_dir,
            on_note=lambda text: say(text, 2),
        )
        print(f"pack: {folder}   (accuracy {claims.accuracy:.2f} % of {claims.samples})")
        print(f"  measure again: rmploss eval {shlex.quote(str(folder))}")
        print("  reference, once uploaded:")
        print(f"hf:OWNER/{folder.name}@REVISION#{sha256}")  # whole, to be copied
        return 0
