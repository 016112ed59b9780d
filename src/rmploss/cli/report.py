"""`rmploss report`: write one HTML page about run folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from rmploss.errors import DamagedRunError, UserError


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about one run, or about several side by side.

    $ rmploss report runs/NAME
    $ rmploss report runs/WITHOUT runs/WITH --out comparison.html --figures figures

    If files of a run are damaged, the page and an error name them; the exit code is then 9.
    """

    run_dirs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN ...", help_behavior_hint="")]
    """The run folders."""
    out: Annotated[
        Path | None,
        arg(metavar="FILE", help_behavior_hint="(default: report.html in the (last) run folder)"),
    ] = None
    """The HTML file to write."""
    figures: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """A folder for every figure as PNG, as SVG, and its numbers as CSV."""

    def run(self) -> int:
        """Write the page and print its path; raises `DamagedRunError` for damaged files."""
        from rmploss import report
        from rmploss.report.read import damaged

        if not self.run_dirs:
            raise UserError("no run folder was named; for example: rmploss report runs/NAME")
        out = self.out or self.run_dirs[-1] / "report.html"
        print(report.write(self.run_dirs, out, self.figures))
        if self.figures is not None:
            print(self.figures)
        problems = damaged(self.run_dirs)
        if problems:
            raise DamagedRunError("this report is of damaged runs", problems)
        return 0
