"""The state that training changes, and how a checkpoint saves and restores it.

All randomness is derived from (seed, purpose, epoch, index): with this state a resumed run equals
an unbroken one bit for bit.
"""

import math

import torch
from torch import Tensor

from rmploss import store
from rmploss.engine import checkpoint
from rmploss.engine.averaging import WeightAverage
from rmploss.engine.build import make_optimizer
from rmploss.engine.checkpoint import Counters, Loaded
from rmploss.engine.distributed import World
from rmploss.engine.environment import versions
from rmploss.engine.loss_scale import LossScale
from rmploss.engine.optimizer_state import optimizer_state, restore_optimizer
from rmploss.engine.optimizers import prepare
from rmploss.engine.run import RunFolder
from rmploss.engine.tally import Tally, Terms
from rmploss.errors import CheckpointError, Problem
from rmploss.models import SpikingNetwork
from rmploss.recipes import Recipe

AVERAGE = "average/"
"""The first part of the names of the average's tensors in a checkpoint."""


def averaged_tensors(loaded: Loaded) -> dict[str, Tensor]:
    """The tensors of the average in a checkpoint, for `WeightAverage.load`; empty without one."""
    extra = loaded.extra.items()
    return {name.removeprefix(AVERAGE): value for name, value in extra if name.startswith(AVERAGE)}


class TrainingState:
    """The training state of one run on one rank.

    net: the network.
    optimizer: over its parameters; fused, so that one update serves eager and captured steps.
    rate: its learning rate, `[]` on the device, in all groups; the host fills it.
    scale: of the loss, for fp16; None: not scaled.
    counters: how far training has come.
    tally: the sums of this rank's losses in this epoch, and the first step that was not finite.
    best: the best test accuracy so far, in percent.
    average: of the weights; None: the recipe has none.
    """

    average: WeightAverage | None = None

    def __init__(self, recipe: Recipe, net: SpikingNetwork, world: World) -> None:
        self.recipe, self.net, self.world = recipe, net, world
        self.optimizer = make_optimizer(recipe, net)
        # The CPU's kernels read a rate of any type; those of CUDA read float32.
        kind = torch.float64 if world.device.type == "cpu" else torch.float32
        self.rate = torch.zeros((), dtype=kind, device=world.device)
        prepare(self.optimizer, self.rate)
        self.scale = LossScale(world.device) if recipe.amp == "fp16" else None
        self.counters = Counters(epoch=0, step=0, batch=0)
        self.tally = Tally(world.device)
        self.best = -math.inf

    def tensors(self) -> list[Tensor]:
        """The tensors that a step changes, except those of the network."""
        scale = [] if self.scale is None else [self.scale.scale, self.scale.steps]
        memory = [value for state in self.optimizer.state.values() for value in state.values()]
        averaged = [] if self.average is None else [*self.average.tensors().values()]
        moments = [m for m in memory if isinstance(m, Tensor)]
        return [self.tally.numbers, *scale, *moments, *averaged]

    def save(self, folder: RunFolder) -> None:
        """Write a checkpoint. All ranks must call this; rank 0 writes."""
        terms = self.world.all_reduce_sum(self.tally.sums.cpu())
        if not self.world.is_main:
            return
        store.try_twice(folder.flush)  # A checkpoint is worth its metrics: they come first.
        metrics = folder.metrics()
        best = [r["step"] for r in metrics if r.get("test_accuracy", -math.inf) >= self.best]
        checkpoint.save(
            folder.path,
            model_state=self.net.state_dict(),
            optimizer_state=optimizer_state(self.optimizer, self.net),
            counters=self.counters,
            recipe_hash=folder.recipe_hash,
            versions=versions(),
            recipe=folder.first_recipe,
            metrics=folder.metrics_hash(self.counters),
            extra={"terms": terms, **self._averaged()},
            scaler_state=None if self.scale is None else self.scale.state_dict(),
            best=self.best,
            spare=best[:1],
        )

    def _averaged(self) -> dict[str, Tensor]:
        """The tensors of the average, by their names in a checkpoint."""
        tensors = {} if self.average is None else self.average.tensors()
        return {f"{AVERAGE}{name}": tensor for name, tensor in tensors.items()}

    def load(self, folder: RunFolder) -> Loaded:
        """Restore the newest checkpoint that verifies, and return it."""
        loaded = checkpoint.load_latest(
            folder.path, recipe_hash=folder.recipe_hash, owner=self.world.is_main
        )
        try:
            self.net.load_state_dict(loaded.model_state)
            restore_optimizer(self.optimizer, self.net, loaded.optimizer_state)
            prepare(self.optimizer, self.rate)
            if self.average is not None:
                self.average.load(averaged_tensors(loaded))
            if loaded.scaler_state and self.scale is not None:
                self.scale.load_state_dict(loaded.scaler_state)
        except (RuntimeError, KeyError, TypeError) as error:
            problem = Problem(str(loaded.path), f"does not fit the network: {error}")
            raise CheckpointError("a checkpoint of another network", [problem]) from None
        self.counters = loaded.counters
        self.best = -math.inf if loaded.best is None else loaded.best
        # The saved sums are those of all ranks.
        terms = Terms(loaded.extra["terms"]) if self.world.is_main else None
        self.tally.start(loaded.counters.step, terms)
        return loaded
