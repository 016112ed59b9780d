"""Peak memory of a training step above the built model, each contestant in a process of its own.

The process makes one step of a tiny network, which loads code; builds the model and notes what is
held; makes a step, lets its gradients go, and makes a second one. The figure is the peak of that
second step, less what was held by the built model and less what the optimizer keeps (momentum). So
it counts activations, gradients, temporaries, and whatever an allocator keeps for later.

On the CPU the peak is the kernel's: VmHWM of /proc/self/status, reset by writing 5 into
/proc/self/clear_refs (Linux only); what is held is VmRSS. glibc gives freed blocks of 64 KiB or
more back at once (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_, for all contestants alike), so
that what was freed is not counted. On CUDA it is `torch.cuda.max_memory_allocated`.
"""

import gc
import re
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from rmploss.errors import UserError
from rmploss_bench.case import Setting, case
from rmploss_bench.contestants import CONTESTANTS, NetRunner

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Of the process, before it starts."""


def peak(made: Setting, contestant: str) -> int:
    """Bytes; to be called once, in a fresh process with `ENVIRONMENT`."""
    _runner(made.but(batch=1, width=1 / 16, data_dir=""), contestant).step()
    runner = _runner(made, contestant)
    gc.collect()
    held = _held(made.device)
    runner.step()
    return peak_of_step(runner, made.device) - held - _kept(runner.optimizer)


def peak_of_step(runner: NetRunner, device: str) -> int:
    """The largest number of bytes that the process (on CUDA: its tensors) held during a step."""
    runner.forget()
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        runner.step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    # A shell writes it: in rmploss only `store` opens files for writing, and this is none of its.
    subprocess.run(["sh", "-c", 'echo 5 > "/proc/$PPID/clear_refs"'], check=True)
    runner.step()
    return status("VmHWM")


def _runner(made: Setting, contestant: str) -> NetRunner:
    runner = CONTESTANTS[contestant](case(made, calibrated=False), True)
    if not isinstance(runner, NetRunner):
        raise UserError(f"{contestant} has no memory to measure")
    return runner


def _held(device: str) -> int:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device)
    if not sys.platform.startswith("linux"):
        raise UserError("the peak memory of a process can only be measured on Linux")
    return status("VmRSS")


def _kept(optimizer: torch.optim.Optimizer) -> int:
    values = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found, field
    return int(found[1]) * 1024
