"""Report runs: one self-contained HTML page from their folders.

read.py reads folders, story.py writes sentences, figures.py draws SVG, page.py renders the page,
tables.py fills the paper's tables.
"""

from collections.abc import Sequence
from pathlib import Path

from rmploss import store
from rmploss.errors import Problem, UserError


def write(folders: Sequence[Path], out: Path) -> Path:
    """Write the report of run folders to the HTML file `out` and return its path.

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
    return out
