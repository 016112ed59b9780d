"""Report runs: one self-contained HTML page from their folders, and its figures as files.

read.py and predictions.py read folders, story.py and events.py write sentences, figures.py and
class_figures.py draw, figures_of.py lists what is drawn, page.py renders the page, tables.py fills
the paper's tables.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rmploss import store
from rmploss.errors import Problem, UserError

if TYPE_CHECKING:
    from rmploss.report.read import Run


def write(folders: Sequence[Path], out: Path, figures: Path | None = None) -> Path:
    """Write the report of run folders to the HTML file `out` and return its path.

    folders: of the runs.
    out: the HTML file.
    figures: a folder that gets every figure as PNG, as SVG and, its numbers, as CSV; None: no such.

    Unfinished runs are reported up to their last epoch. The same folders give the same bytes.
    Raises `UserError`, which names every folder that is not a run, and writes nothing then.
    """
    from rmploss.report.page import render  # matplotlib: `rmploss table` does not wait for it
    from rmploss.report.read import read

    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(read(folder))
        except UserError as error:
            problems += error.problems or (Problem(str(folder), error.title),)
    if problems or not runs:
        raise UserError("cannot report" if problems else "no run folders given", problems)
    store.make_folder(out.absolute().parent)
    store.write_text(out, render(runs))
    if figures is not None:
        _write_figures(runs, figures)
    return out


def _write_figures(runs: Sequence["Run"], folder: Path) -> None:
    from rmploss.report.figures_of import every
    from rmploss.report.story import group_runs

    store.make_folder(folder.absolute())
    for drawing in every(group_runs(runs)):
        for name, data in drawing.files().items():
            store.write_bytes(folder / name, data)
