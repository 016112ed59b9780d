"""`rmploss eval`: evaluate a trained network on the test split, layer by layer."""

import json as json_module
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from rmploss.cli.common import WHOLE, DataDir, Device, Flag, RunDir, Workers, is_main
from rmploss.errors import OlderCheckpointError, Problem, UserError

if TYPE_CHECKING:
    from rmploss.engine.evaluate import Evaluation


@dataclass(frozen=True)
class Eval:
    """Evaluate a run on its test split: accuracy, quantization error and firing rate per layer.

    Of a run with `validation` it is the validation split: the training images that were held out.

    $ rmploss eval runs/NAME
    $ rmploss eval runs/NAME --checkpoint best --fold
    $ rmploss eval runs/NAME --attack 2/255 8/255 --transfer runs/OTHER

    Of a pack, too: exit code 12 if the accuracy is not the one that it claims.

    If the last checkpoint is damaged, an older one is evaluated; an error then names both, and the
    exit code is 10.
    """

    run_dir: Positional[RunDir]
    """The run folder."""
    checkpoint: Literal["last", "best"] = "last"
    """The epoch: the last or the most accurate."""
    averaged: Flag = False
    """Take the averaged weights of a recipe with `average`."""
    fold: Flag = False
    """Convert the network for inference first: norms are folded into convolutions."""
    potential: Literal["u_pre", "input"] = "u_pre"
    """Measure the quantization error of the membrane before the reset, or of the input current."""
    attack: Annotated[tuple[str, ...], arg(metavar="EPS ...", help_behavior_hint="")] = ()
    """Attack the pixels of the test images instead: noise, FGSM and PGD of these sizes."""
    transfer: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """With --attack: another run, whose PGD images are tried on this one."""
    attack_samples: Annotated[int | None, WHOLE, arg(help_behavior_hint="(default: all)")] = None
    """With --attack: a class-balanced subset of the test images."""
    data_dir: DataDir = None
    """The folder of the data sets."""
    device: Device = "auto"
    """The device to compute on."""
    workers: Workers = None
    """Processes that load samples too many for memory."""
    json: Flag = False
    """One JSON object on standard output, for programs."""

    def run(self) -> int:
        """Evaluate and print; raises `OlderCheckpointError` after an older checkpoint."""
        if self.attack:
            return self._attack()
        if self.transfer is not None or self.attack_samples is not None:
            problem = Problem("--attack", "is missing", "--attack 2/255 8/255")
            raise UserError("no size of an attack is given", [problem])
        from rmploss.engine.hub import located
        from rmploss.engine.load import evaluate_run
        from rmploss.engine.pack import Claims, is_pack, require_claims
        from rmploss.engine.run import RunFolder

        path = located(self.run_dir)
        told = _Told(self.run_dir)
        result = evaluate_run(
            self.run_dir,
            which=self.checkpoint,
            averaged=self.averaged,
            folded=self.fold,
            potential=self.potential,
            data_dir=self.data_dir,
            device=self.device,
            workers=self.workers,
            on_older=told.on_older,
            on_other_data=told.on_other_data,
        )
        if is_main():
            self._print(result, RunFolder.open(path).recipe().tested_on)
            told.raise_if_older()
            if is_pack(path):
                require_claims(path, Claims.of(result))
        return 0

    def _attack(self) -> int:
        """Attack and print; returns 0."""
        from rmploss.cli.attacks import print_attacks, sizes
        from rmploss.engine.attack import attack_run
        from rmploss.engine.hub import located
        from rmploss.engine.run import RunFolder

        others = {"--averaged": self.averaged, "--fold": self.fold}
        others |= {"--potential": self.potential != "u_pre", "--workers": self.workers is not None}
        problems = [
            Problem(flag, "has no effect on attacks") for flag, set_ in others.items() if set_
        ]
        if problems:
            raise UserError("--attack takes the trained network as it is", problems)

        told = _Told(self.run_dir)
        results = attack_run(
            self.run_dir,
            sizes(self.attack),
            source=self.transfer,
            samples=self.attack_samples,
            which=self.checkpoint,
            data_dir=self.data_dir,
            device=self.device,
            on_older=told.on_older,
            on_other_data=told.on_other_data,
        )
        split = RunFolder.open(located(self.run_dir)).recipe().tested_on
        print_attacks(self.attack, results, split, self.json)
        told.raise_if_older()
        return 0

    def _print(self, result: "Evaluation", split: str) -> None:
        if self.json:
            means = {
                "quantization_error": result.quantization_error,
                "quantization_error_of_elements": result.quantization_error_of_elements,
                "firing_rate": result.firing_rate,
            }
            print(json_module.dumps({**asdict(result), **means, "split": split}))
            return
        width = max((len(layer.name) for layer in result.layers), default=5)
        print(f"accuracy {result.accuracy:.2f} %   ({result.samples} {split} samples)")
        print(f"{'layer':<{width}}  quantization error  firing rate")
        for layer in result.layers:
            error, rate = layer.quantization_error, layer.firing_rate
            print(f"{layer.name:<{width}}  {error:18.4f}  {rate:11.4f}")
        error, rate = result.quantization_error, result.firing_rate
        print(f"{'mean':<{width}}  {error:18.4f}  {rate:11.4f}")
        every = result.quantization_error_of_elements
        print(f"mean over all membrane values: quantization error {every:.4f}")


class _Told:
    """What was told while a run was loaded.

    run_dir: the run, for the words.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = run_dir
        self.older: list[OlderCheckpointError] = []

    def on_older(self, taken: str, reasons: Sequence[Problem]) -> None:
        """An older checkpoint was taken."""
        title = f"this is {taken} of {self.run_dir}, not its last checkpoint"
        self.older.append(OlderCheckpointError(title, reasons))

    def on_other_data(self, found: Mapping[str, str]) -> None:
        """The data are others; printed at once."""
        if is_main():
            listed = "; ".join(found.values())
            print(f"note: the data are not those of the run: {listed}", file=sys.stderr)

    def raise_if_older(self) -> None:
        """Raise `OlderCheckpointError` if an older checkpoint was taken."""
        if self.older:
            raise self.older[0]
