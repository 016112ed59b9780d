"""What a step needs at least, so that sizes which no machine has are refused before data open.

    bytes >= 12 parameters + T B / accumulate * (membrane values of all layers) * bytes of a value

Parameters, gradients and one moment in float32; of each spiking layer, its input current is kept
for backward. The true need is higher: what passes here can still run out of memory.
"""

from collections.abc import Mapping

from rmploss.errors import Problem
from rmploss.recipes import Recipe
from rmploss.sizes import too_large

USUAL_STEPS = 4096
"""Up to so many images of a step (T times the batch) and `USUAL_WIDTH` no size is estimated."""


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
        return [Problem(where, too_large("the parameters", weights, room), "--width 1")]
    step = sum(values.values()) * (4 if recipe.amp == "off" else 2)
    sample = recipe.T * step
    if weights + sample > room:
        what = too_large("one sample", weights + sample, room)
        return [Problem(f"T = {recipe.T}", what, f"--T {max(1, (room - weights) // (2 * step))}")]
    share = recipe.batch_size // (recipe.accumulate * ranks)
    if weights + share * sample <= room:
        return []
    fits = max(1, (room - weights) // sample)
    parts = -(-recipe.batch_size // (ranks * fits))
    what = too_large("a step", weights + share * sample, room)
    fix = f"--batch-size {fits * ranks} or --accumulate {parts}"
    return [Problem(f"batch_size = {recipe.batch_size}", what, fix)]
