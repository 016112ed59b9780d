"""`rmploss demo`: train on bundled digits without and with RMP-Loss, and write a report."""

import shlex
import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from rmploss import recipes
from rmploss.cli.common import Flag
from rmploss.errors import InterruptedRunError, Problem, UserError

if TYPE_CHECKING:
    from rmploss.engine.listener import Listener


@dataclass(frozen=True)
class Demo:
    """Train a small network on bundled digits without and with RMP-Loss, and compare them.

    Needs no data and no GPU. Ends with a report of both runs. One that was interrupted goes on.

    $ rmploss demo --open
    $ rmploss demo --pack packs/digits
    """

    runs_dir: Annotated[Path, arg(metavar="DIR")] = Path("runs")
    """The folder for run folders."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """The seed of both runs."""
    open: Flag = False
    """Open the report in a browser."""
    pack: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Pack the network with RMP-Loss into this folder, as `rmploss pack` does."""

    def run(self) -> int:
        """Train twice, print the comparison, write the report."""
        from rmploss import report
        from rmploss.cli.pack import Pack
        from rmploss.cli.terminal import listener
        from rmploss.engine.run import RunFolder
        from rmploss.engine.run_summary import summarize

        began = time.monotonic()
        if self.pack and self.pack.exists():
            raise UserError("the folder of the pack exists", [Problem(str(self.pack), "is there")])
        shown = listener(json_lines=False, waits_for="preparing the demo")
        try:
            folders = self._train(shown)
        except InterruptedRunError as stop:
            again = f"rmploss demo --seed {self.seed} --runs-dir {shlex.quote(str(self.runs_dir))}"
            again += f" --pack {shlex.quote(str(self.pack))}" if self.pack else ""
            both = f"{stop.command}\nor, with the comparison: {again}"
            raise InterruptedRunError(stop.stopped, both) from None
        finally:
            shown.close()
        print(f"{'':<18}accuracy   quantization error   firing rate")
        for title, folder in zip(("without RMP-Loss", "with RMP-Loss"), folders, strict=True):
            done = summarize(RunFolder.open(folder).metrics())
            accuracy, error = done["last_accuracy"], done["quantization_error"]
            print(f"{title:<18}{accuracy:6.2f} %{error:19.4f}{done['firing_rate']:15.4f}")
        page = report.write(folders, self.runs_dir / "demo.html")
        print(f"report: {page}   ({time.monotonic() - began:.0f} s)")
        if self.pack:
            Pack(folders[1], out=self.pack).run()
        if self.open:
            webbrowser.open(page.resolve().as_uri())
        return 0

    def _train(self, shown: "Listener") -> list[Path]:
        """Both runs; those of an interrupted demo go on."""
        from rmploss.engine.execution import Execution
        from rmploss.engine.go_on import is_finished, newest
        from rmploss.engine.train import resume, train

        execution = Execution(command=("rmploss", "demo", "--seed", str(self.seed)))
        pair = [recipes.get(name).but(seed=self.seed) for name in ("digits", "digits-rmp")]
        there = [newest(self.runs_dir, recipe) for recipe in pair]
        if all(path is not None and is_finished(path) for path in there):
            there = [None, None]  # a demo that is finished: another one begins
        return [
            train(recipe, self.runs_dir, execution, shown)
            if path is None
            else resume(path, execution, shown)
            for recipe, path in zip(pair, there, strict=True)
        ]
