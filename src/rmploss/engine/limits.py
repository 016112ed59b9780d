"""What a step needs at least, so that sizes which no machine has are told before data are opened.

    bytes >= 12 parameters + T B / accumulate * (membrane values of all layers) * bytes of a value

Parameters, gradients and one moment in float32; of each spiking layer, its input current is kept
for backward. The true need is higher: what passes here can still run out of memory.
"""

import os
from collections.abc import Mapping

import torch

from rmploss.errors import Problem
from rmploss.recipes import Recipe

MOST_STEPS = 4096
"""More time steps than this are a slip: networks of this family take 1 to 100."""
USUAL_STEPS, USUAL_WIDTH = 4096, 4.0
"""Up to so many images of a step (T times the batch) and such a width no size is estimated."""
GIB = 2**30


def memory() -> int:
    """The bytes of the largest memory of this machine: the host's, or that of a CUDA device."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        sizes += [torch.cuda.get_device_properties(i).total_memory for i in range(count)]
    return max(sizes)


def size_problems(
    recipe: Recipe, parameters: int, values: Mapping[str, int], ranks: int, room: int
) -> list[Problem]:
    """The problem of a network or a batch that does not fit; empty if it may fit.

    recipe: with T, batch_size and accumulate.
    parameters: of the network.
    values: the membrane values of each spiking layer, of one sample in one time step.
    ranks: that share a batch.
    room: bytes of the memory.
    """
    weights = 12 * parameters
    if weights > room:
        where = f"network.width = {recipe.network.options.get('width', 1.0)}"
        return [Problem(where, _too_large("the parameters", weights, room), "--width 1")]
    step = sum(values.values()) * (4 if recipe.amp == "off" else 2)
    sample = recipe.T * step
    if weights + sample > room:
        what = _too_large("one sample", weights + sample, room)
        return [Problem(f"T = {recipe.T}", what, f"--T {max(1, (room - weights) // (2 * step))}")]
    share = recipe.batch_size // (recipe.accumulate * ranks)
    if weights + share * sample <= room:
        return []
    fits = max(1, (room - weights) // sample)
    parts = -(-recipe.batch_size // (ranks * fits))
    what = _too_large("a step", weights + share * sample, room)
    fix = f"--batch-size {fits * ranks} or --accumulate {parts}"
    return [Problem(f"batch_size = {recipe.batch_size}", what, fix)]


def step_problems(recipe: Recipe) -> list[Problem]:
    """The problem of a number of time steps with which not even a trial can be made."""
    if recipe.T <= MOST_STEPS:
        return []
    what = f"more than {MOST_STEPS} time steps: a network keeps every one of them for backward"
    return [Problem(f"T = {recipe.T}", what, "the paper: 1 to 10")]


def _too_large(what: str, need: int, room: int) -> str:
    return f"{what} needs at least {need / GIB:.3g} GiB, this machine has {room / GIB:.3g}"
