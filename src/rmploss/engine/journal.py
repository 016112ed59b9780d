"""A file of lines that outlasts a disk that is full for a while: the lines wait in memory."""

from pathlib import Path

from rmploss import store
from rmploss.engine.files import read_regular
from rmploss.errors import StoreError


class Journal:
    """A file to which lines are appended, one by one; each survives a loss of power.

    A line that the disk refuses for a reason that can pass waits in memory, with all that follow.
    The next line, or `flush`, writes them. They go to a new file that replaces the old one, because
    an fsync that failed must not be repeated on the same file.

    path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []
        self._sound = 0  # the bytes of the file before the first line that waits

    @property
    def waiting(self) -> int:
        """The number of lines that are not on the disk yet."""
        return len(self._waiting)

    def read(self) -> bytes:
        """The content of the file, as if no line had to wait; empty if there is none."""
        data = read_regular(self.path) if self.path.exists() else b""
        if not self._waiting:
            return data
        return data[: self._sound] + "".join(f"{line}\n" for line in self._waiting).encode()

    def append(self, line: str) -> None:
        """Write a line, or let it wait; `StoreError` if the disk refuses it for good."""
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            if self._waiting:
                self._waiting.append(line)
                self.flush()
            else:
                store.append_line(self.path, line)
        except StoreError as error:
            if not store.can_pass(error):
                raise
            if not self._waiting:
                self._sound, self._waiting = size, [line]

    def flush(self) -> None:
        """Write the lines that wait; `StoreError` if the disk still refuses them."""
        if self._waiting:
            store.write_bytes(self.path, self.read())
            self._waiting = []
