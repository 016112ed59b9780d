"""Self-distillation over time (Ding et al., NeurIPS 2025): one step of the network teaches another.

    p(t)  = softmax(a O(t) / tau),  a = T where the read-out is the sum of the steps, else 1
    c(t)  = max_k softmax(O(t))_k                       the confidence of step t, of each sample
    s, w  = argmax_t c(t), argmin_t c(t)                the strong and the weak step
    Strong2Weak:  weight mean_b KL(p(s) || p(w)),  p(s) without gradient
    Weak2Strong:  weight mean_b KL(p(w) || p(s)),  p(w) without gradient

Nothing is added to the network, and nothing remains in inference. From the abstract, and from notes
on the paper ("Synergy between the Strong and the Weak: Spiking Neural Networks are Inherently
Self-Distillers", arXiv 2510.07924); open to us: weight and tau; whether the confidence is that of
the most likely class (our default) or of the label; and whether the steps are chosen for each
sample (ours: then the loss of a batch is the mean of its parts) or for the batch.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.objectives.inputs import require_outputs, told_classes
from rmploss.ops import at_least_single


class SelfDistillation:
    """The term above; dimensionless.

    teacher: the "weak" step teaches the strong one (Weak2Strong), or the "strong" one the weak.
    weight: of the term.
    temperature: tau, for outputs of the size of the logits.
    readout: of the network: under the "sum" the outputs of a step are about 1/T of the logits, and
        are multiplied by T; under the "mean" they are of their size.
    confidence: the probability of the most likely class ("top"), or of the label ("label").

    Raises `UserError`.
    """

    needs: ClassVar[str] = "outputs"

    @checked()
    def __init__(
        self,
        *,
        teacher: Literal["weak", "strong"] = "weak",
        weight: float = 1.0,
        temperature: float = 2.0,
        confidence: Literal["top", "label"] = "top",
        readout: Literal["mean", "sum"] = "mean",
    ) -> None:
        problems = []
        if teacher not in ("weak", "strong"):
            problems.append(Problem(f"teacher = {teacher!r}", "must be weak or strong", "weak"))
        if not 0 <= weight < float("inf"):
            problems.append(Problem(f"weight = {weight!r}", "must be >= 0", "1"))
        if not 0 < temperature < float("inf"):
            problems.append(Problem(f"temperature = {temperature!r}", "must be positive", "2"))
        if confidence not in ("top", "label"):
            problems.append(Problem(f"confidence = {confidence!r}", "must be top or label", "top"))
        if readout not in ("mean", "sum"):
            problems.append(Problem(f"readout = {readout!r}", "must be mean or sum", "mean"))
        if problems:
            raise UserError("bad self-distillation", problems)
        self.teacher, self.weight = teacher, weight
        self.temperature, self.confidence, self.readout = temperature, confidence, readout

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted divergence, a scalar.

        outputs: O `[T, B, K]`.
        logits: not used.
        labels: `[B]`; read for the confidence of the label.
        """
        require_outputs(outputs, labels)
        outputs = at_least_single(outputs)
        c = self.confidences(outputs.detach(), labels)
        strong, weak = (_select(outputs, steps) for steps in (c.argmax(0), c.argmin(0)))
        teacher, student = (weak, strong) if self.teacher == "weak" else (strong, weak)
        scale = len(outputs) if self.readout == "sum" else 1
        return self.weight * self.divergence(scale * teacher.detach(), scale * student)

    def confidences(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """c, of every step and sample, `[T, B]`."""
        probabilities = outputs.softmax(2)
        if self.confidence == "top":
            return probabilities.amax(2)
        chosen = labels.long().expand(len(outputs), -1).unsqueeze(2)
        with told_classes(labels, outputs.shape[2]):
            return probabilities.gather(2, chosen).squeeze(2)

    def divergence(self, teacher: Tensor, student: Tensor) -> Tensor:
        """The mean over samples of KL(softmax(teacher / tau) || softmax(student / tau)).

        teacher, student: `[B, K]`.
        """
        log_p, log_q = ((z / self.temperature).log_softmax(1) for z in (teacher, student))
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _select(outputs: Tensor, steps: Tensor) -> Tensor:
    """The outputs `[B, K]` of one step of each sample.

    outputs: `[T, B, K]`.
    steps: `[B]`, the step of each sample.
    """
    where = steps.view(1, -1, 1).expand(1, -1, outputs.shape[2])
    return torch.gather(outputs, 0, where).squeeze(0)
