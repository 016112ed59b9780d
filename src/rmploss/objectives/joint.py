"""The loss of Joint A-SNN (Guo et al. 2023): distillation from the ANN's heads to the SNN's.

    L = (1 - alpha) sum over 8 heads of CE
      + alpha tau^2 [ sum_{i<4} S(ann_i <- ann_4) + sum_i S(snn_i <- ann_i) ]
      + beta batch sum_i mean_b sum_c (f_snn - f_ann)^2 1[f_snn > 0 or f_ann > 0]
    S(student <- teacher) = -mean_b sum_c softmax(teacher / tau) log softmax(student / tau)

Four heads per branch, the last one final. Teachers and the features of the ANN carry no gradient.
"""

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.objectives.inputs import cross_entropy, require_logits
from rmploss.objectives.smoothing import smoothing_problems
from rmploss.ops import at_least_single


class Branch(NamedTuple):
    """The outputs of one network: of each head logits `[B, K]` and features; the last is final."""

    logits: tuple[Tensor, ...]
    features: tuple[Tensor, ...]


class Branches(NamedTuple):
    """The outputs of a joint network in training mode."""

    ann: Branch
    snn: Branch


class JointLoss:
    """The loss above; dimensionless.

    alpha: the weight of distillation, in [0, 1].
    beta: the weight of the features.
    temperature: tau.
    batch: a factor of the feature term. The authors' code sums the features over a batch, so that
        their weight depends on its split into ranks and micro-batches; 1024, the published batch
        size, gives that sum for 1024 samples with any split.
    smoothing: of the labels of all heads, in [0, 1) (smoothing.py).

    Raises `UserError`.
    """

    needs: ClassVar[str] = "branches"

    @checked()
    def __init__(
        self,
        *,
        alpha: float = 0.1,
        beta: float = 1e-6,
        temperature: float = 3.0,
        batch: float = 1024.0,
        smoothing: float = 0.0,
    ) -> None:
        problems = []
        if not 0 <= alpha <= 1:
            problems.append(Problem(f"alpha = {alpha!r}", "must lie in [0, 1]", "released: 0.1"))
        if not 0 <= beta < float("inf"):
            problems.append(Problem(f"beta = {beta!r}", "must be >= 0", "released: 1e-6"))
        if not 0 < temperature < float("inf"):
            where = f"temperature = {temperature!r}"
            problems.append(Problem(where, "must be positive", "released: 3"))
        if not 0 < batch < float("inf"):
            problems.append(Problem(f"batch = {batch!r}", "must be positive", "released: 1024"))
        problems += smoothing_problems(smoothing)
        if problems:
            raise UserError("bad joint loss", problems)
        self.smoothing = smoothing
        self.alpha, self.beta, self.temperature, self.batch = alpha, beta, temperature, batch

    def __call__(self, outputs: Branches, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of both branches, a scalar.

        outputs: of the joint network in training mode.
        logits: not used: `outputs` holds them.
        labels: `[B]`.
        """
        if not isinstance(outputs, Branches):
            what = "must be the `Branches` of a joint network in training mode"
            problem = Problem(f"outputs = a {type(outputs).__name__}", what, "net.train()")
            raise UserError("no joint loss of these outputs", [problem])
        for head in (*outputs.ann.logits, *outputs.snn.logits):
            require_logits(head, labels)
        ann, snn = (tuple(map(at_least_single, branch.logits)) for branch in outputs)
        classified = sum(cross_entropy(head, labels, self.smoothing) for head in (*ann, *snn))
        distilled = sum(self.distill(head, ann[-1]) for head in ann[:-1])
        distilled += sum(self.distill(s, a) for s, a in zip(snn, ann, strict=True))
        features = (outputs.snn.features, outputs.ann.features)
        distance = self.batch * sum(map(feature_distance, *features))
        share = self.alpha * self.temperature**2
        return torch.as_tensor(
            (1 - self.alpha) * classified + share * distilled + self.beta * distance
        )

    def distill(self, student: Tensor, teacher: Tensor) -> Tensor:
        """S(student <- teacher) of logits `[B, K]`, a scalar."""
        target = (teacher.detach() / self.temperature).softmax(1)
        return F.cross_entropy(student / self.temperature, target)


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over samples of sum_c (f_snn - f_ann)^2 where either is positive; both `[B, C]`."""
    student, teacher = at_least_single(student), at_least_single(teacher).detach()
    alive = (student > 0) | (teacher > 0)
    return ((student - teacher).square() * alive).sum() / len(student)
