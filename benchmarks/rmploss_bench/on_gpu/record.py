"""OUT/state.json: which parts are done, and what was measured on the way."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rmploss import store
from rmploss.errors import Problem, UserError

Status = Literal["done", "failed", "stopped"]
"""stopped: it did not fit the time; the next call takes it up again. The others are final."""


@dataclass
class Part:
    """What became of a part.

    status: see `Status`.
    seconds: that its processes took, in all calls.
    note: the result in a few words, or why there is none.
    """

    status: Status
    seconds: float
    note: str = ""


@dataclass
class Record:
    """The state of OUT, as in its state.json.

    path: of the file.
    parts: what became of each part that was begun, by name.
    epochs: speed (`plan.Row`) -> measured seconds of a whole epoch, test included.
    """

    path: Path
    parts: dict[str, Part] = field(default_factory=dict)
    epochs: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, out: Path) -> "Record":
        """The record of a folder; an empty one if there is none yet.

        Raises `UserError` for a file that is none.
        """
        path = out / "state.json"
        if not path.exists():
            return cls(path)
        try:
            read = json.loads(path.read_text())
            parts = {name: Part(**part) for name, part in read["parts"].items()}
            return cls(path, parts, {k: float(v) for k, v in read["epochs"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = Problem(str(path), f"cannot be read: {error}", "remove it to begin anew")
            raise UserError("not the state of an earlier call", [problem]) from None

    def finished(self, name: str) -> bool:
        """True for a part that no call takes up again."""
        return name in self.parts and self.parts[name].status != "stopped"

    def note(self, name: str, status: Status, seconds: float, note: str = "") -> None:
        """Write what became of a part."""
        before = self.parts[name].seconds if name in self.parts else 0.0
        self.parts[name] = Part(status, round(before + seconds, 1), note)
        self.write()

    def write(self) -> None:
        """Write the file, in one step."""
        found = {
            "parts": {n: asdict(part) for n, part in self.parts.items()},
            "epochs": self.epochs,
        }
        store.write_text(self.path, json.dumps(found, indent=1) + "\n")
