"""`rmploss demo`: train on bundled digits without and with RMP-Loss, and write a report."""

import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from rmploss import recipes
from rmploss.errors import Problem, UserError


@dataclass(frozen=True)
class Demo:
    """Train a small network on bundled digits without and with RMP-Loss, and compare them.

    Needs no data and no GPU. Ends with a report of both runs.

    $ rmploss demo --open
    $ rmploss demo --pack packs/digits
    """

    runs_dir: Path = Path("runs")
    """The folder for run folders."""
    seed: int = 0
    """The seed of both runs."""
    open: bool = False
    """Open the report in a browser."""
    pack: Path | None = None
    """Pack the network with RMP-Loss into this folder, as `rmploss pack` does."""

    def run(self) -> int:
        """Train twice, print the comparison, write the report."""
        from rmploss import report
        from rmploss.cli.pack import Pack
        from rmploss.cli.terminal import Bar, listener
        from rmploss.engine.execution import Execution
        from rmploss.engine.run import RunFolder
        from rmploss.engine.run_summary import summarize
        from rmploss.engine.train import train

        began = time.monotonic()
        if self.pack and self.pack.exists():
            raise UserError("the folder of the pack exists", [Problem(str(self.pack), "is there")])
        shown = listener(json_lines=False)
        execution = Execution(command=("rmploss", "demo", "--seed", str(self.seed)))
        try:
            names = ("digits", "digits-rmp")
            pair = [recipes.get(name).but(seed=self.seed) for name in names]
            folders = [train(recipe, self.runs_dir, execution, shown) for recipe in pair]
        finally:
            if isinstance(shown, Bar):
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
