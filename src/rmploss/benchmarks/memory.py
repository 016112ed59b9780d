"""Peak memory of one training step above the built model, each contestant in a process of its own.

The process builds the model and makes one step, which allocates what stays (momentum, the kernels'
own buffers); lets its gradients go; and makes a second step. The figure is the peak of the second
step less what was held just before it. So it counts activations, gradients and temporaries.

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

from rmploss.benchmarks.case import Setting, case
from rmploss.benchmarks.contestants import CONTESTANTS, NetRunner
from rmploss.errors import UserError

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Of the process, before it starts."""


def peak(made: Setting, contestant: str) -> int:
    """Bytes; to be called once, in a fresh process with `ENVIRONMENT`."""
    runner = CONTESTANTS[contestant](case(made), True)
    if not isinstance(runner, NetRunner):
        raise UserError(f"{contestant} has no memory to measure")
    runner.step()
    runner.forget()
    gc.collect()
    if made.device.startswith("cuda"):
        return _of_cuda(runner, made.device)
    return _of_process(runner)


def _of_cuda(runner: NetRunner, device: str) -> int:
    torch.cuda.synchronize(device)
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    runner.step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - held


def _of_process(runner: NetRunner) -> int:
    if not sys.platform.startswith("linux"):
        raise UserError("the peak memory of a process can only be measured on Linux")
    held = status("VmRSS")
    # A shell writes it: in rmploss only `store` opens files for writing, and this is none of its.
    subprocess.run(["sh", "-c", 'echo 5 > "/proc/$PPID/clear_refs"'], check=True)
    runner.step()
    return status("VmHWM") - held


def status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found, field
    return int(found[1]) * 1024
