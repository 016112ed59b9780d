"""Memory that native kernels keep: bounded, handed out by size, safe to fork."""

import gc
import random
import subprocess
import sys

import pytest
import torch

from rmploss.ops import native
from rmploss.ops.spikes.native import unpack_rows

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
GRAIN = 2**16
"""Sizes are rounded up to whole ones (native/memory.cpp)."""


def test_memory_is_kept_and_given_back() -> None:
    bits = torch.zeros(64 * 1024, 1, dtype=torch.int64)
    gc.collect()
    before, _, _ = native.memory()
    x = unpack_rows(bits, 64, torch.float32)
    assert native.memory()[0] - before >= x.numel() * 4
    address = x.data_ptr()
    view = x[5:]
    del x
    assert native.memory()[0] > before  # the view still needs it
    del view
    assert native.memory()[0] == before
    again = unpack_rows(bits, 64, torch.float32)
    assert again.data_ptr() == address  # the same memory, no page fault
    del again
    assert native.release_memory() > 0
    assert native.memory()[1] == 0


def block(size: int) -> torch.Tensor:
    """A tensor over a block of about that many bytes."""
    return native.empty(torch.zeros(1), size // 4)


def test_what_is_kept_does_not_add_to_the_peak() -> None:
    gc.collect()
    native.release_memory()
    chance, held = random.Random(1), []
    for _ in range(400):
        if held and chance.random() < 0.5:
            held.pop(chance.randrange(len(held)))
        else:
            held.append(block(int(2 ** chance.uniform(18.1, 22))))
        in_use, kept, peak = native.memory()
        assert in_use >= sum(x.numel() * 4 for x in held)
        assert in_use + kept <= peak
    held.clear()
    native.release_memory()


def test_a_request_gets_no_much_larger_block() -> None:
    gc.collect()
    native.release_memory()
    large = [block(2**24), block(2**23)]
    del large
    for size in (2**20, 2**22, 2**23 - 2**20, 2**24 - 2**21):
        before = native.memory()[0]
        x = block(size)
        assert size <= native.memory()[0] - before <= (size + GRAIN) * 17 / 16
        del x
    native.release_memory()


FORKS = """
import os, signal, threading
import torch
from rmploss.ops import native
from rmploss.ops.lif.native import statistics
y, stop = torch.zeros(1, 1, 1), False

def work():  # scratch memory is taken and given without the interpreter's lock
    while not stop:
        statistics(y)

threads = [threading.Thread(target=work) for _ in range(3)]
[thread.start() for thread in threads]
for _ in range(200):
    child = os.fork()
    if not child:
        signal.alarm(20)  # kills a child that waits for a lock for ever
        native.empty(y, 10**6)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        stop = True
        raise SystemExit("a child hangs")
stop = True
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")
def test_a_fork_while_others_take_and_give() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_out_of_memory_is_an_error_and_not_the_end() -> None:
    with pytest.raises(MemoryError):
        native.empty(torch.zeros(1), 2**50)
