"""The report of one or more runs: one self-contained HTML page, made from their folders alone.

    read.py                 run folders as values; runs of one recipe as a group
    story.py                what the numbers say, in words
    figures.py              histograms and curves as inline SVG
    page.py                 all of it, put into template.html.jinja
"""

from collections.abc import Sequence
from pathlib import Path

from rmploss import store
from rmploss.errors import Problem, UserError
from rmploss.report.page import render
from rmploss.report.read import Run, read_run

__all__ = ["write"]


def write(folders: Sequence[Path], out: Path) -> Path:
    """Write the report of these run folders to `out`, an HTML file, and return its path.

    Unfinished runs are told as far as they went; the same folders give the same bytes. `UserError`
    lists every folder that is not a run; then nothing is written.
    """
    runs: list[Run] = []
    problems: list[Problem] = []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:
            problems += error.problems or (Problem(str(folder), error.title),)
    if problems:
        raise UserError("cannot report", problems)
    if not runs:
        raise UserError("which run? a report needs at least one run folder")
    store.make_folder(out.absolute().parent)
    store.write_text(out, render(runs))
    return out
