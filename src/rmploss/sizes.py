"""Sizes that no machine has, told before memory is asked for."""

import os

import torch

from rmploss.errors import Problem

MOST_STEPS = 4096
"""More time steps than this are a slip: networks of this family take 1 to 100."""
USUAL_WIDTH = 4.0
"""Networks of up to this width are made without an estimate of their size."""
USUAL_VALUES = 2**28
"""Parameters of up to so many values, 1 GiB in float32, are made without a look at the memory."""
GIB = 2**30


def memory() -> int:
    """The bytes of the largest memory of this machine: the host's, or that of a CUDA device."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        sizes += [torch.cuda.get_device_properties(i).total_memory for i in range(count)]
    return max(sizes)


def too_large(what: str, need: int, room: int) -> str:
    """The words for more bytes than there are.

    what: what is so large.
    need, room: bytes.
    """
    return f"{what}: at least {need / GIB:.3g} GiB, this machine has {room / GIB:.3g}"


def is_meta(device: object = None) -> bool:
    """True if tensors made here, or on that device, have no memory."""
    return torch.device(device or torch.get_default_device()).type == "meta"  # pyright: ignore


def room_problems(where: str, values: int, fix: str, what: str = "the parameters") -> list[Problem]:
    """The problem of parameters that no memory here holds; empty if they may fit.

    where: the argument that decides their number.
    values: how many there are, in float32.
    fix: what to type instead.
    what: is so large, if it is not parameters.
    """
    if values <= USUAL_VALUES or is_meta() or 4 * values <= (room := memory()):
        return []
    return [Problem(where, too_large(what, 4 * values, room), fix)]


def step_problems(T: int) -> list[Problem]:
    """The problem of a number of time steps with which not even a trial can be made."""
    if T <= MOST_STEPS:
        return []
    what = f"more than {MOST_STEPS} time steps: a network keeps every one of them for backward"
    return [Problem(f"T = {T}", what, "the paper: 1 to 10")]
