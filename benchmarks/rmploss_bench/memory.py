"""Peak memory of a training step above the built model, each contestant in a process of its own.

The process runs one step of a tiny network, which loads the code; builds the model and reads the
memory in use; runs a step, frees its gradients, and runs a second step. The figure is the peak of
the second step, minus the memory in use before the first and minus the optimizer's momentum. So it
counts activations, gradients, temporaries, and the blocks that an allocator keeps for reuse.

On the CPU the peak is Linux's VmHWM of /proc/self/status, reset by writing 5 to
/proc/self/clear_refs, and the memory in use is VmRSS. For every contestant glibc returns freed
blocks of 64 KiB or more at once (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_), so that freed
memory is not counted. On CUDA the peak is `torch.cuda.max_memory_allocated`.
"""

import gc
import re
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from rmploss.errors import UserError
from rmploss_bench.conditions import Conditions
from rmploss_bench.contestants import CONTESTANTS, NetRunner
from rmploss_bench.workload import make_workload

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Environment variables that the process must be started with."""


def peak(conditions: Conditions, contestant: str) -> int:
    """Peak memory of a training step in bytes; call it once, in a new process with `ENVIRONMENT`.

    Raises `UserError` for a contestant that is no network, and on a CPU outside of Linux.
    """
    _runner(conditions.but(batch=1, width=1 / 16, data_dir=""), contestant).step()
    runner = _runner(conditions, contestant)
    gc.collect()
    held = _held(conditions.device)
    runner.step()
    return peak_of_step(runner, conditions.device) - held - _kept(runner.optimizer)


def peak_of_step(runner: NetRunner, device: str) -> int:
    """The most bytes in use during a step: by the process, on CUDA by its tensors."""
    runner.forget()
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        runner.step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    # A shell writes it: only `rmploss.store` opens files for writing, and this is no file of a run.
    subprocess.run(["sh", "-c", 'echo 5 > "/proc/$PPID/clear_refs"'], check=True)
    runner.step()
    return status("VmHWM")


def _runner(conditions: Conditions, contestant: str) -> NetRunner:
    runner = CONTESTANTS[contestant](make_workload(conditions, calibrated=False), True)
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
