"""Peak memory of a training step above the built model, each contestant in a process of its own.

The process runs one step of a tiny network, which loads the code; builds the model and reads the
memory in use; then runs steps. Two figures, both without the model and its optimizer's momentum:

    memory               the peak of the second step, whose gradients were freed before it: its
                         activations, gradients and temporaries. A captured step has its peak
                         while it is captured: a replay allocates nothing.
    memory with warm-up  only on CUDA: the most that the allocator took from the device, from the
                         built model to the third step: warm-up, the workspaces that cuDNN's
                         autotuner tries, the capture and its graph's pool, fragmentation

On the CPU the peak is Linux's VmHWM of /proc/self/status, reset by writing 5 to
/proc/self/clear_refs, and the memory in use is VmRSS; blocks that the allocator keeps for reuse
count. For every contestant glibc returns freed blocks of 64 KiB or more at once
(MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_), so that freed memory is not counted. On CUDA they
are `torch.cuda.max_memory_allocated` and, with warm-up, `torch.cuda.max_memory_reserved`.
"""

import gc
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rmploss.engine.capture import CudaGraphs, Function
from rmploss.errors import UserError
from rmploss_bench.capture import Captured
from rmploss_bench.conditions import Conditions
from rmploss_bench.contestants import contestant
from rmploss_bench.runners import NetRunner
from rmploss_bench.workload import make_workload

STEP, WHOLE = "memory (bytes)", "memory with warm-up (bytes)"
"""What is measured, as rows name it."""
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Environment variables that the process must be started with."""


def peaks(conditions: Conditions, name: str) -> dict[str, int]:
    """The figures of a contestant in bytes; call it once, in a new process with `ENVIRONMENT`.

    conditions: of the measurement.
    name: of the contestant.
    Raises `UserError` for a contestant that is no network, and on a CPU outside of Linux.
    """
    tiny = conditions.but(batch=1, width=1 / 16, data_dir="")
    contestant(name)(make_workload(tiny, calibrated=False), True).step()
    runner = contestant(name).uncaptured(make_workload(conditions, calibrated=False), True)
    if not isinstance(runner, NetRunner):
        raise UserError(f"{name} has no memory to measure")
    gc.collect()
    if conditions.on_cuda:
        return _cuda_peaks(runner, conditions, captured=contestant(name).captured)
    held = _held()
    runner.step()
    return {STEP: peak_of_step(runner, conditions.device) - held}


def _cuda_peaks(runner: NetRunner, conditions: Conditions, *, captured: bool) -> dict[str, int]:
    device = conditions.device
    torch.cuda.empty_cache()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    taken, held = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    if captured:
        most, peak = _captured_peaks(runner, conditions)
    else:
        runner.step()
        most = torch.cuda.max_memory_reserved(device)
        peak = peak_of_step(runner, device)
        runner.step()
    most = max(most, torch.cuda.max_memory_reserved(device))
    return {STEP: peak - held, WHOLE: most - taken}


def _captured_peaks(runner: NetRunner, conditions: Conditions) -> tuple[int, int]:
    """The most bytes reserved until the capture begins, and the most allocated while it runs."""
    device, most = conditions.device, 0
    graphs = CudaGraphs(torch.device(device))

    def counted(function: Function, tensors: Sequence[Tensor]) -> Function:
        nonlocal most
        graphs.warm_up(function, tensors)
        runner.forget()
        torch.cuda.synchronize(device)
        most = torch.cuda.max_memory_reserved(device)
        torch.cuda.reset_peak_memory_stats(device)
        return graphs.capture(function)

    graph = Captured(runner, conditions, True, counted)
    peak = torch.cuda.max_memory_allocated(device)
    for _ in range(3):
        graph.step()
    torch.cuda.synchronize(device)
    return most, peak


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


def _held() -> int:
    if not sys.platform.startswith("linux"):
        raise UserError("the peak memory of a process can only be measured on Linux")
    return status("VmRSS")


def status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found, field
    return int(found[1]) * 1024
