"""One step of training: the body of the paper's Algorithm 1, over tensors that stay in place.

    L = L_CE + lambda(n) L_RMP;    g = dL/dw;    g <- g min(1, c / |g|);    w <- optimizer(w, g)
    a <- a + c(n) (w - a), the average of the weights (`averaging.py`)

The same function runs eagerly on every device and, on CUDA, as a captured graph (`capture.py`).
So it reads nothing on the host: what changes from step to step (batch, rate, lambda(n)) is a tensor
that the host fills before it, and what is looked at (`tally.py`) is a tensor that it reads later.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rmploss.engine.batches import micro_batches
from rmploss.engine.distributed import World
from rmploss.engine.flat import flat, parts
from rmploss.engine.precision import Precision, precision
from rmploss.engine.tally import Terms
from rmploss.engine.training_state import TrainingState
from rmploss.errors import Problem, UserError
from rmploss.lifecycle import constrain
from rmploss.objectives import Loss, Objective
from rmploss.objectives.losses import CrossEntropy
from rmploss.objectives.weighting import terms_of, weighted
from rmploss.ops.constants import filled, vector
from rmploss.recipes import Recipe
from rmploss.stats import MembraneStats, membrane_stats

CROSS_ENTROPY = CrossEntropy()


def forward_backward(
    net: nn.Module,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    *,
    weights: Sequence[float | Tensor],
    loss: Loss = CROSS_ENTROPY,
    precision: Precision = nullcontext,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Terms:
    """Lines 3-8 of Algorithm 1: forward, the two losses, backward into the parameters' `grad`.

    net: a `SpikingNetwork`, or one inside `DistributedDataParallel`.
    objective: the regularizer.
    images: `[B, C, H, W]` or `[T, B, C, H, W]`.
    labels: `[B]`.
    weights: lambda(n) of every term of the objective (`weights_of`): numbers or 0-d tensors.
    loss: the classification loss.
    precision: returns the autocast context of the forward.
    scale: applied to the total before backward (loss scaling, the share of a micro-batch).
    """
    spec = objective.spec
    with precision(), membrane_stats(spec=spec) if spec else nullcontext(MembraneStats()) as stats:
        outputs = net(images, over_time=True)
        network: Any = net.module if isinstance(net, DistributedDataParallel) else net
        logits = network.readout(outputs)  # line 4
    classification = loss(outputs, logits, labels)  # line 5
    regularizer = weighted(objective, stats, weights)  # line 6
    _require_gradient(loss, classification)
    if spec is not None:
        _require_gradient(objective, regularizer)
    total = classification + regularizer  # line 7, Eq. 11
    scale(total).backward()  # line 8
    with torch.no_grad():
        correct = (logits.argmax(1) == labels).sum(dtype=torch.float32)  # exact below 2^24
        device, count = correct.device, float(len(labels))
        one = filled(1.0, 1, torch.float32, device)[0]
        means = torch.stack([classification, regularizer.to(device), correct, one])
        return Terms(means * vector(((count, 2), (1.0, 1), (count, 1)), torch.float64, device))


def is_not_finite(x: Tensor) -> Tensor:
    """True where x is NaN or infinite: 0 times x is 0 otherwise. A bool of the shape of x."""
    return x * 0 != 0


def _require_gradient(term: object, value: Tensor) -> None:
    """Raise `UserError` for a term that is no function of the parameters: it trains nothing."""
    if value.requires_grad:
        return
    what = "has no gradient: it was computed under no_grad, or of detached values"
    problem = Problem(type(term).__name__, what, "compute it of the network's own outputs")
    raise UserError("a term of the loss would train nothing", [problem])


class TrainingStep:
    """One optimizer step on one global batch, in `accumulate` micro-batches.

    recipe: precision, micro-batches and clipping.
    net: a `SpikingNetwork`, or one inside `DistributedDataParallel`.
    loss, objective: of the recipe.
    state: optimizer, scale and tally.
    world: this process among the ranks.
    batch: returns the batch of this step, images and labels.

    weights: lambda(n) of every term, float64 `[terms]`; the host fills it.
    """

    def __init__(
        self,
        recipe: Recipe,
        net: nn.Module,
        loss: Loss,
        objective: Objective,
        state: TrainingState,
        world: World,
        batch: Callable[[], tuple[Tensor, Tensor]],
    ) -> None:
        self.recipe, self.net, self.loss, self.objective = recipe, net, loss, objective
        self.state, self.world, self.batch = state, world, batch
        self.precision = precision(recipe, world.device)
        terms = len(terms_of(objective))
        self.weights = torch.zeros(terms, dtype=torch.float64, device=world.device)
        self.parameters = list(state.net.parameters())
        self.buffers = BufferStates(state.net.buffers())

    def tensors(self) -> list[Tensor]:
        """All tensors that a step changes, except gradients."""
        return [*self.state.tensors(), *self.parameters, *self.buffers.all]

    def __call__(self) -> None:
        """Run the step. Reads no tensor on the host, and branches on none."""
        self.state.optimizer.zero_grad(set_to_none=True)  # of a capture that failed half way
        before = self.buffers.save()
        terms = self.gradients()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        scale, tally = self.state.scale, self.state.tally
        if scale is not None:
            scale.unscale(gradients)
        norm = torch.nn.utils.get_total_norm(gradients)
        # One sum of all numbers is finite only if each of them is.
        total = terms.sums.sum()
        bad = overflow = is_not_finite(norm + total)
        if scale is not None:
            bad = overflow & (is_not_finite(total) | ~scale.probing())
        stopped = tally.add(terms, self.world.any_rank_of(bad))
        if self.recipe.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.recipe.clip_norm, norm)
        skip = stopped | overflow
        self._update(skip)  # line 9
        if scale is not None:
            scale.update(overflow)
        constrain(self.state.net)
        self.buffers.restore(before, stopped, None if scale is None else skip)
        if self.state.average is not None:
            self.state.average.update(skip)
        self.state.optimizer.zero_grad(set_to_none=True)

    def gradients(self) -> Terms:
        """Lines 3-8 of Algorithm 1 for every micro-batch; the mean gradients are in `grad`."""
        count, scale = self.recipe.accumulate, self.state.scale
        sums = []

        def share(loss: Tensor) -> Tensor:
            loss = loss if scale is None else loss * scale.scale
            return loss if count == 1 else loss / count

        for index, (x, y) in enumerate(micro_batches(*self.batch(), count)):
            with nullcontext() if index == count - 1 else self._without_sync():
                terms = forward_backward(
                    self.net,
                    self.objective,
                    x,
                    y,
                    weights=self.weights.unbind(),
                    loss=self.loss,
                    precision=self.precision,
                    scale=share,
                )
                sums.append(terms.sums)
        return Terms(sums[0] if count == 1 else torch.stack(sums).sum(0))

    def _update(self, skip: Tensor) -> None:
        """The optimizer's step; where `skip` (a bool, `[]`) is true, it changes nothing.

        Gradients are not multiplied by 0 for this: 0 times NaN is NaN.
        """
        optimizer: Any = self.state.optimizer
        optimizer.found_inf = skip.float()  # the fused kernels read it, on the device
        optimizer.step()

    def _without_sync(self) -> AbstractContextManager[object]:
        net = self.net
        return net.no_sync() if isinstance(net, DistributedDataParallel) else nullcontext()


class BufferStates:
    """Buffers of a network (running statistics), to undo a forward that was not finite.

    all: the buffers.
    """

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        self.all = [buffer for buffer in buffers if buffer.numel()]
        types = {buffer.dtype for buffer in self.all}
        self._kinds = [[b for b in self.all if b.dtype == kind] for kind in sorted(types, key=str)]

    def save(self) -> list[Tensor]:
        """Copies of all buffers, one flat tensor per type."""
        return [flat(kind) for kind in self._kinds]

    def restore(
        self,
        saved: Sequence[Tensor],
        where: Tensor,
        unless_finite: Tensor | None = None,
    ) -> None:
        """Set the buffers back to `saved`, in place: all of them or none.

        where: a bool `[]`; it is done where this is true.
        unless_finite: a bool `[]`; where it is true, it is done if a buffer is not finite.
        """
        after = self.save()
        if unless_finite is not None:
            sums = [x.sum(dtype=torch.float64) for x in after if x.is_floating_point()]
            if sums:  # finite only if each number is
                where = where | (unless_finite & is_not_finite(torch.stack(sums).sum()))
        for kind, old, new in zip(self._kinds, saved, after, strict=True):
            states = parts(torch.where(where, old, new), kind)
            torch._foreach_copy_(kind, states)  # pyright: ignore[reportPrivateImportUsage]
