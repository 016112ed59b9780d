"""benchmarks/README.md names every topic and every file of rows, and its links lead somewhere."""

import re
from pathlib import Path
from typing import get_args

import rmploss_bench
from rmploss_bench.command import REPEATS, Topic
from rmploss_bench.rows import FIELDS

FOLDER = Path(rmploss_bench.__file__).parents[1]
README = (FOLDER / "README.md").read_text()


def test_its_links_lead_to_files() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert [path for path in linked if not (FOLDER / path).is_file()] == []
    rows = {path.relative_to(FOLDER).as_posix() for path in (FOLDER / "rows").iterdir()}
    assert rows
    assert rows <= set(linked)


def test_it_explains_every_topic() -> None:
    first_cells = re.findall(r"^\| `([a-z-]+)` \|", README, re.MULTILINE)
    assert {*get_args(Topic)} == REPEATS.keys()
    assert {*get_args(Topic)} <= {*first_cells}


def test_it_explains_every_column() -> None:
    assert [field for field in FIELDS if f"`{field}`" not in README] == []
