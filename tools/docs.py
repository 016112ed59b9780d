"""Write the generated parts of the documents: `python tools/docs.py`; `--check` only compares.

A generated part stands between `<!-- NAME -->` and `<!-- /NAME -->`. The maps come from the first
lines of the files (`source_map.py`), the tables from `recipes/` and from the CSV files in
`results/` and `benchmarks/` (`tables.py`). `tests/test_docs.py` runs the check.
"""

import re
import sys
from collections.abc import Callable

import source_map
import tables
from source_map import ROOT

BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "headline": tables.headline,
        "table1": tables.table1,
        "pocket": tables.pocket_results,
    },
    "docs/map.md": {
        "equations": source_map.equations,
        "map": source_map.package_map,
        "native": source_map.native_map,
    },
    "docs/readings.md": {"readings": tables.readings},
    "docs/methods.md": {"methods": tables.methods, "cards": tables.cards},
    "docs/speed.md": {"speed": tables.speed},
    "docs/decisions.md": {"index": source_map.decisions},
    "results/README.md": {"fair": tables.fair_results},
}
"""Every generated part: document, name, what makes it."""


def generated(name: str) -> tuple[str, str]:
    """A document as it is, and with every generated part made anew."""
    before = after = (ROOT / name).read_text(encoding="utf-8")
    for block, make in BLOCKS[name].items():
        after = _filled(name, after, block, make())
    return before, after


def _filled(document: str, text: str, name: str, made: str) -> str:
    block = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    text, found = block.subn(lambda match: f"{match[1]}{made}\n{match[2]}", text)
    if found != 1:
        sys.exit(f"{document} has {found} parts named {name}, not 1")
    return text


def main(check: bool) -> None:
    """Write what is out of date, or exit with its names."""
    stale = []
    for name in BLOCKS:
        before, after = generated(name)
        if before == after:
            continue
        stale.append(name)
        if not check:
            (ROOT / name).write_text(after, encoding="utf-8")
    if check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python tools/docs.py")


if __name__ == "__main__":
    main(check=sys.argv[1:] == ["--check"])
