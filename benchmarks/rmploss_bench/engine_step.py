"""The step of `rmploss train` itself, with RMP-Loss: losses, checks, clipping, fused optimizer.

The contestants of `ours.py` do what the peers do; this one does what a run does. It reads the
workload's batch; data and augmentation are in the topic `train`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rmploss import recipes
from rmploss.engine.build import make_loss, make_objective
from rmploss.engine.distributed import World
from rmploss.engine.step import TrainingStep
from rmploss.engine.training_state import TrainingState
from rmploss.models import SpikingNetwork
from rmploss.objectives.weighting import weights_of
from rmploss_bench.blueprint import classes_of
from rmploss_bench.ours import PROGRESS
from rmploss_bench.runners import LR, NetRunner, Runner, copied
from rmploss_bench.workload import Workload


class EngineRunner(NetRunner):
    """`engine.step.TrainingStep` of the paper's recipe, on the workload's batch."""

    def __init__(self, workload: Workload, net: SpikingNetwork) -> None:
        super().__init__(workload, net)
        conditions = workload.conditions
        data = "imagenet" if classes_of(conditions.network) > 10 else "cifar10"
        recipe = recipes.get(f"{data}-{conditions.network}-rmp").but(
            T=conditions.T,
            batch_size=conditions.batch,
            amp="bf16" if conditions.precision == "bf16" else "off",
        )
        world = World(0, 1, 0, workload.images.device)
        objective = make_objective(recipe)
        self.training = TrainingState(recipe, net, world)
        self.training.rate.fill_(LR)
        self.optimizer = self.training.optimizer
        self.decay = float(self.optimizer.param_groups[0]["weight_decay"])
        self.engine = TrainingStep(
            recipe, net, make_loss(recipe), objective, self.training, world, self._batch
        )
        weights = torch.tensor(weights_of(objective, PROGRESS), dtype=torch.float64)
        self.engine.weights.copy_(weights)

    def step(self) -> None:
        """One training step."""
        self.engine()

    def outcome(self, act: Callable[[], object]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, loss and gradients; these from the update, for the step frees them.

        g = (w - w') / rate - decay w,    at a rate of 1 and without momentum yet
        """
        parameters = [*self.net.parameters()]
        before = [parameter.detach().clone() for parameter in parameters]
        logits = self.logits().detach()
        self.training.tally.clear()
        self.training.rate.fill_(1.0)
        act()
        self.training.rate.fill_(LR)
        loss, regularizer, _, count = self.training.tally.sums.unbind()
        pairs = zip(before, parameters, strict=True)
        updates = [w - after.detach() - self.decay * w for w, after in pairs]
        gradients = torch.cat([update.flatten() for update in updates])
        return logits, (loss + regularizer) / count, gradients

    def state(self) -> list[Tensor]:
        """All tensors that a step changes."""
        return self.engine.tensors()

    def _batch(self) -> tuple[Tensor, Tensor]:
        return self.workload.images, self.workload.labels


def make_engine_step(workload: Workload, train: bool) -> Runner:
    """The engine's step; `train` makes no difference, it has no evaluation."""
    net = copied(workload).train()
    assert isinstance(net, SpikingNetwork)
    return EngineRunner(workload, net)
