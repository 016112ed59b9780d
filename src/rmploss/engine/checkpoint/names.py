"""The folders of checkpoints: their names, their order, and those set aside as damaged."""

import re
from contextlib import suppress
from pathlib import Path

from rmploss import store
from rmploss.errors import StoreError

FORMAT = 1
STATE = "state.safetensors"
MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")


def saved(folder: Path) -> list[Path]:
    """The checkpoint folders of a run folder, newest first, not yet verified."""
    found = (folder / "ckpt").glob("step-*")
    return sorted((path for path in found if _NAME.fullmatch(path.name)), key=order)[::-1]


def order(path: Path) -> tuple[int, int]:
    """The sort key of a checkpoint folder: its step, then the number of its save of that step."""
    match = _NAME.fullmatch(path.name)
    assert match
    return int(match[1]), int(match[2] or 1)


def next_name(folder: Path, step: int) -> Path:
    """The next free name of a step, numbered after its newest checkpoint, whatever was removed."""
    saves = [n for s, n in map(order, saved(folder)) if s == step]
    suffix = f"-{max(saves) + 1}" if saves else ""
    return folder / "ckpt" / f"step-{step:08d}{suffix}"


def set_aside(folder: Path, newer_than: int) -> list[str]:
    """The names of checkpoints of later steps that were once found damaged (`*.corrupt`)."""
    found = ((path.name, _NAME.match(path.name)) for path in (folder / "ckpt").glob("*.corrupt*"))
    return sorted(name for name, match in found if match and int(match[1]) > newer_than)


def step_of(name: str) -> int | None:
    """The step in the name of a checkpoint folder, or None."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def mark_damaged(path: Path) -> None:
    """Rename a damaged checkpoint to `<name>.corrupt`, with a number if that exists."""
    tails = (".corrupt", *(f".corrupt-{n}" for n in range(2, 100)))
    names = (path.with_name(path.name + tail) for tail in tails)
    free = next(name for name in names if not name.exists())
    with suppress(StoreError):  # On a read-only disk it keeps its name; it is rejected either way.
        store.rename(path, free)
