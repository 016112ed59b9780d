"""`rmploss eval`: evaluate a trained network on the test split, layer by layer."""

import json as json_module
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from rmploss.cli.common import DataDir, Device, RunDir, Workers, is_main
from rmploss.errors import OlderCheckpointError, Problem

if TYPE_CHECKING:
    from rmploss.engine.evaluate import Evaluation


@dataclass(frozen=True)
class Eval:
    """Evaluate a run on its test split: accuracy, quantization error and firing rate per layer.

    $ rmploss eval runs/NAME
    $ rmploss eval runs/NAME --checkpoint best --fold

    Of a pack, too: exit code 12 if the accuracy is not the one that it claims.

    If the last checkpoint is damaged, an older one is evaluated; an error then names both, and the
    exit code is 10.
    """

    run_dir: Positional[RunDir]
    """The run folder."""
    checkpoint: Literal["last", "best"] = "last"
    """The epoch: the last or the most accurate."""
    averaged: bool = False
    """Take the averaged weights of a recipe with `average`."""
    fold: bool = False
    """Convert the network for inference first: norms are folded into convolutions."""
    potential: Literal["u_pre", "input"] = "u_pre"
    """The potential in the quantization error: the membrane before the reset, or the input current,
    as in the authors' code."""
    data_dir: DataDir = None
    """The folder of the data sets."""
    device: Device = "auto"
    """The device to compute on."""
    workers: Workers = None
    """Processes that load samples too many for memory."""
    json: bool = False
    """One JSON object on standard output, for programs."""

    def run(self) -> int:
        """Evaluate and print; raises `OlderCheckpointError` after an older checkpoint."""
        from rmploss.engine.hub import located
        from rmploss.engine.load import evaluate_run
        from rmploss.engine.pack import Claims, is_pack, require_claims

        path = located(self.run_dir)
        older: list[OlderCheckpointError] = []

        def on_older(taken: str, reasons: Sequence[Problem]) -> None:
            title = f"this is {taken} of {self.run_dir}, not its last checkpoint"
            older.append(OlderCheckpointError(title, reasons))

        def on_other_data(found: Mapping[str, str]) -> None:
            if is_main():
                listed = "; ".join(found.values())
                print(f"note: the test data are not those of the run: {listed}", file=sys.stderr)

        result = evaluate_run(
            self.run_dir,
            which=self.checkpoint,
            averaged=self.averaged,
            folded=self.fold,
            potential=self.potential,
            data_dir=self.data_dir,
            device=self.device,
            workers=self.workers,
            on_older=on_older,
            on_other_data=on_other_data,
        )
        if is_main():
            self._print(result)
            if older:
                raise older[0]
            if is_pack(path):
                require_claims(path, Claims.of(result))
        return 0

    def _print(self, result: "Evaluation") -> None:
        if self.json:
            means = {
                "quantization_error": result.quantization_error,
                "quantization_error_of_elements": result.quantization_error_of_elements,
                "firing_rate": result.firing_rate,
            }
            print(json_module.dumps({**asdict(result), **means}))
            return
        width = max((len(layer.name) for layer in result.layers), default=5)
        print(f"accuracy {result.accuracy:.2f} %   ({result.samples} test samples)")
        print(f"{'layer':<{width}}  quantization error  firing rate")
        for layer in result.layers:
            error, rate = layer.quantization_error, layer.firing_rate
            print(f"{layer.name:<{width}}  {error:18.4f}  {rate:11.4f}")
        error, rate = result.quantization_error, result.firing_rate
        print(f"{'mean':<{width}}  {error:18.4f}  {rate:11.4f}")
        every = result.quantization_error_of_elements
        print(f"mean over all membrane values: quantization error {every:.4f}")
