"""Write the generated parts of the documents: `python tools/docs.py`; `--check` only compares.

A generated part stands between `<!-- NAME -->` and `<!-- /NAME -->`. The maps come from the first
lines of the files (`source_map.py`) and of their functions (`paper.py`), the tables from `recipes/`
and from the CSV files in `results/` and `benchmarks/` (`tables.py`), the starts of recipes from
docs/alive.csv (`alive.py`), what learnt 256 images from docs/overfit.csv (`overfit.py`), what other
runtimes computed from docs/roundtrips.csv (`roundtrips.py`), the faults from what was recorded of
them (`reliability.py`).
`tests/test_docs.py` runs the check.
"""

import re
import sys
from collections.abc import Callable

import alive
import best
import overfit
import paper
import reliability
import robustness
import roundtrips
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
    "docs/paper.md": paper.blocks(),
    "docs/readings.md": {"readings": tables.readings, "decay": tables.decay_readings},
    "docs/methods.md": {"methods": tables.methods, "cards": tables.cards},
    "docs/speed.md": {"speed": tables.speed},
    "docs/reliability.md": {
        "trials": reliability.trials,
        "recorded": reliability.recorded,
        "faults": reliability.faults_table,
        "mutations": reliability.mutations,
    },
    "docs/deploy.md": {"roundtrips": roundtrips.table},
    "docs/alive.md": {"asleep": alive.reasons, "alive": alive.table},
    "docs/overfit.md": {"overfit": overfit.table, "unlearnt": overfit.reasons},
    "docs/decisions.md": {"index": source_map.decisions},
    "docs/fair-best.md": {
        "part": best.taking_part,
        "steps": best.steps,
        "own": best.own_numbers,
        "best": best.results,
        "tried": best.tried,
    },
    "docs/robustness.md": {
        "robustness": robustness.table,
        "differences": robustness.differences,
    },
    "results/README.md": {"fair": tables.fair_results, "effect": tables.fair_effect},
}
"""Document -> name of a generated part -> the function that generates it."""


def generated(name: str) -> tuple[str, str]:
    """The present text of a document, and the text with all parts generated again."""
    before = after = (ROOT / name).read_text(encoding="utf-8")
    for block, make in BLOCKS[name].items():
        after = _replace(name, after, block, make())
    return before, after


def _replace(document: str, text: str, name: str, new: str) -> str:
    block = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    text, count = block.subn(lambda match: f"{match[1]}{new}\n{match[2]}", text)
    if count != 1:
        sys.exit(f"{document} has {count} parts named {name}, not 1")
    return text


def main(check: bool) -> None:
    """Write the documents that are out of date; with `check`, exit with their names."""
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
