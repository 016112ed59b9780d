"""The folder of a run: its complete record, readable with `cat` and `jq`.

recipe.json      the recipe with all options and its SHA-256, of the version that began the run
source.zip       the source of that version
metrics.jsonl    one line per epoch, or per some steps: `epoch` and `step` as in `Counters`
events.jsonl     one line per event: start, begin, fork, execute, resume, interrupted, ...
crash/           steps that were not finite (`engine.crash`)
ckpt/            checkpoints (`engine.checkpoint`); the record is complete without them
manifest.json    size and SHA-256 of all of these, once the run is finished (`engine.manifest`)
"""

from rmploss.engine.run.digest import digest
from rmploss.engine.run.folder import RunFolder
from rmploss.engine.run.lines import is_event, is_metrics, parse_line, timeless
from rmploss.engine.run.names import folder_name, require_free
from rmploss.engine.run.recipe import recipe_hash

__all__ = [
    "RunFolder",
    "digest",
    "folder_name",
    "is_event",
    "is_metrics",
    "parse_line",
    "recipe_hash",
    "require_free",
    "timeless",
]
