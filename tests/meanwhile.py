"""Another writer that comes while a file is written: what it writes must not be lost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from rmploss import _disk
from rmploss._disk import Operation


@contextmanager
def meanwhile(write: Callable[[], None]) -> Iterator[None]:
    """Inside the block, start `write` just before the first file is made, after all reading.

    It has time to end there, if no lock holds it back; the block ends when it has.
    """
    other = Thread(target=write)

    def start(operation: Operation) -> None:
        if operation.name == "create":
            _disk.hooks.remove(start)
            other.start()
            other.join(0.3)

    _disk.hooks.append(start)
    yield
    other.join()
