"""Print a table at the width of the terminal; where it is too wide, columns share a place."""

import textwrap
from collections.abc import Sequence

from rich.text import Text

LEAST_NAME = 12
"""The columns that the name of a recipe keeps; it is broken at its hyphens."""


def print_rows(rows: list[tuple[str, ...]], stacked: Sequence[tuple[int, ...]], width: int) -> None:
    """Print rows, the first of which are the heads, within `width` columns if that can be.

    stacked: the columns that share one where the whole table is too wide, one below the other.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        for row in rows:
            print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table as Grid

    cells = [["\n".join(row[column] for column in group) for group in stacked] for row in rows]
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    others = [max(len(line) for row in cells for line in row[i].splitlines() or [""])
              for i in range(1, len(stacked))]  # fmt: skip
    first = max(width - sum(others) - 2 * len(others) - 2, LEAST_NAME)
    for column, head in enumerate(cells[0]):
        grid.add_column(Text(head), no_wrap=column > 0, overflow="fold")
    for name, *numbers in cells[1:]:
        broken = "\n".join(textwrap.fill(line, first) for line in name.splitlines())
        grid.add_row(Text(broken), *(Text(cell.rstrip("\n")) for cell in numbers))
    Console(width=width, highlight=False).print(grid)
