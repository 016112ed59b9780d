"""The report of runs: one self-contained HTML page, made from their folders alone.

read.py: folders as values; story.py: numbers in words; figures.py: inline SVG; page.py: the page.
"""

from collections.abc import Sequence
from pathlib import Path

from rmploss import store
from rmploss.errors import Problem, UserError


def write(folders: Sequence[Path], out: Path) -> Path:
    """Write the report of these run folders to the HTML file `out`, whose path is returned.

    Runs that are not finished are told as far as they went. The same folders give the same bytes.
    `UserError` names every folder that is not a run; then nothing is written.
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
        raise UserError("cannot report" if problems else "which run folders?", problems)
    store.make_folder(out.absolute().parent)
    store.write_text(out, render(runs))
    return out
