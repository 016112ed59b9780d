"""The state that training changes, and how a checkpoint saves and restores it.

All randomness is derived from (seed, purpose, epoch, index): with this state a resumed run equals
an unbroken one bit for bit.
"""

import math

import torch

from rmploss.engine import checkpoint
from rmploss.engine.build import make_optimizer
from rmploss.engine.checkpoint import Counters, Loaded
from rmploss.engine.distributed import World
from rmploss.engine.environment import versions
from rmploss.engine.optimizer_state import optimizer_state, restore_optimizer
from rmploss.engine.run import RunFolder
from rmploss.engine.step import Terms
from rmploss.models import SpikingNetwork
from rmploss.recipes import Recipe


class TrainingState:
    """The training state of one run on one rank.

    net: the network.
    optimizer: over its parameters.
    scaler: of the loss, for half precision.
    counters: how far training has come.
    terms: the sums of this rank's losses in this epoch.
    best: the best test accuracy so far, in percent.
    """

    def __init__(self, recipe: Recipe, net: SpikingNetwork, world: World) -> None:
        self.recipe, self.net, self.world = recipe, net, world
        self.optimizer = make_optimizer(recipe, net)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.amp == "fp16")
        self.counters = Counters(epoch=0, step=0, batch=0)
        self.terms = Terms.zero()
        self.best = -math.inf

    def save(self, folder: RunFolder) -> None:
        """Write a checkpoint. All ranks must call this; rank 0 writes."""
        terms = self.world.all_reduce_sum(self.terms.sums)
        if not self.world.is_main:
            return
        best = [r["step"] for r in folder.metrics() if r["test_accuracy"] >= self.best]
        checkpoint.save(
            folder.path,
            model_state=self.net.state_dict(),
            optimizer_state=optimizer_state(self.optimizer, self.net),
            counters=self.counters,
            recipe_hash=folder.recipe_hash,
            versions=versions(),
            extra={"terms": terms},
            scaler_state=self.scaler.state_dict() or None,
            best=self.best,
            spare=best[:1],
        )

    def load(self, folder: RunFolder) -> Loaded:
        """Restore the newest checkpoint that verifies, and return it."""
        loaded = checkpoint.load_latest(
            folder.path, recipe_hash=folder.recipe_hash, owner=self.world.is_main
        )
        self.net.load_state_dict(loaded.model_state)
        restore_optimizer(self.optimizer, self.net, loaded.optimizer_state)
        if loaded.scaler_state:
            self.scaler.load_state_dict(dict(loaded.scaler_state))
        self.counters = loaded.counters
        self.best = -math.inf if loaded.best is None else loaded.best
        if self.world.is_main:  # the saved sums are those of all ranks
            self.terms = Terms(loaded.extra["terms"])
        return loaded
