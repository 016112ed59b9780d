"""Print the fair comparison with every system at its best, for `rmploss table fair-best`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rmploss.cli.columns import print_rows
from rmploss.cli.wrapping import say, width_of

if TYPE_CHECKING:
    from rmploss.report.fair_best import BestLine

STACKED = ((0,), (1, 2, 3), (4, 5), (6, 7, 8), (9, 10))
"""Method, fair over chosen over change, best over q, what RMP-Loss does, tries over seeds."""


def print_best(folder: Path, pocket: bool, as_json: bool) -> bool:
    """Print the rows in a folder of results, and say whether there are any.

    folder: of the file of rows.
    pocket: those of pocket size.
    as_json: one JSON object per system.
    """
    from rmploss.recipes.fair_best import FULL, POCKET
    from rmploss.report.fair_best import conditions, lines

    protocol = POCKET if pocket else FULL
    found = lines(protocol, folder)
    if as_json:
        for line in found:
            print(json.dumps(asdict(line)))
        return any(line.setting for line in found)
    size = ", pocket size: not comparable with the paper" * pocket
    say(f"Fair comparison, every system at its best{size}", 2)
    for sentence in conditions(protocol):
        say(sentence, 2)
    say("accuracy in %: fair, in the fair setting; chosen, in that of the best try", 2)
    say("both of the last epoch; best: of the best epoch in the chosen setting", 2)
    say("change: of chosen against fair, and by RMP-Loss; q: quantization error", 2)
    say("mean ± standard deviation over the seeds", 2)
    print_rows(_rows(found, protocol.tries), STACKED, width_of(sys.stdout))
    chosen = [line for line in found if line.setting]
    if chosen:
        print("\nchosen settings, and their accuracy on the held-out images")
    for line in chosen:
        say(f"{line.method}: {line.setting} ({line.validation} %)", 2)
    return bool(chosen)


def _rows(found: Sequence["BestLine"], budget: int) -> list[tuple[str, ...]]:
    heads = ("method", "fair", "chosen", "change", "best", "q")
    heads += ("+ RMP-Loss", "change", "of q", "tries", "seeds")
    rows: list[tuple[str, ...]] = [heads]
    for o in found:
        known = (o.fair, o.last, o.change, o.best, o.error) if o.setting else ("not run", *[""] * 4)
        added = (o.with_rmp, o.rmp_change, o.rmp_error_change)
        rows.append((o.method, *known, *added, f"{o.tries} of {budget}", str(o.seeds)))
    return rows
