"""Classification and auxiliary losses: their formulas element by element, and differences."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmploss import UserError
from rmploss.objectives import AUXILIARIES, LOSSES, Loss
from rmploss.objectives.auxiliary import EveryStep, Several, WithAuxiliary
from rmploss.objectives.losses import TET, CrossEntropy, MeanSquaredError
from rmploss.objectives.self_distillation import SelfDistillation
from rmploss.objectives.van_rossum import VanRossum
from tests.given import labels, normal

T, B, K = 3, 4, 5
Array = NDArray[np.float64]
LABELS = labels(B, K)
CASES = {
    "ce": CrossEntropy(),
    "tet": TET(),
    "tet 0": TET(weight=0.0),
    "tet 1": TET(weight=1.0, target=0.3),
    "mse": MeanSquaredError(),
    "mse per step": MeanSquaredError(per_step=True),
    "ce smooth": CrossEntropy(smoothing=0.2),
    "tet smooth": TET(smoothing=0.2),
    "mse smooth": MeanSquaredError(smoothing=0.2),
    "van rossum smooth": VanRossum(smoothing=0.2),
    "every step": EveryStep(weight=0.3, smoothing=0.2),
    "weak2strong": SelfDistillation(weight=0.7, temperature=1.5),
    "strong2weak": SelfDistillation(teacher="strong", confidence="label"),
    "several": WithAuxiliary(CrossEntropy(), Several()),
}


def softmax(z: Array) -> Array:
    """The probabilities of logits."""
    return np.array([math.exp(value) / sum(math.exp(other) for other in z) for value in z])


def cross_entropy(z: Array, y: int, smoothing: float = 0.0) -> float:
    """-log of the softmax at y, and with smoothing a share of it at every class."""
    logs = [math.log(p) for p in softmax(z)]
    return -(1 - smoothing) * logs[y] - smoothing * sum(logs) / len(logs)


def mean_of_steps(o: Array, y: list[int], smoothing: float) -> float:
    """1/(T B) sum_t,b of the cross-entropy."""
    return sum(cross_entropy(o[t, b], y[b], smoothing) for t in range(T) for b in range(B)) / T / B


def divergence(o: Array, teacher: list[int], student: list[int], tau: float) -> float:
    """The mean over samples of KL(p(teacher) || p(student)); the steps of each sample are given."""
    total = 0.0
    for b in range(B):
        p, q = softmax(o[teacher[b], b] / tau), softmax(o[student[b], b] / tau)
        total += sum(a * math.log(a / c) for a, c in zip(p, q, strict=True))
    return total / B


def strong_and_weak(o: Array, y: list[int], label: bool) -> tuple[list[int], list[int]]:
    """The most and the least confident step of each sample."""
    c = [[softmax(o[t, b])[y[b]] if label else max(softmax(o[t, b])) for t in range(T)]
         for b in range(B)]  # fmt: skip
    return [row.index(max(row)) for row in c], [row.index(min(row)) for row in c]


def formula(name: str, o: Array, y: list[int]) -> float:
    """Each loss of the outputs `[T][B][K]`, where the read-out is the mean over time."""
    mean, smoothing = o.mean(0), 0.2 if name.endswith("smooth") else 0.0
    if name.startswith("ce"):
        return sum(cross_entropy(mean[b], y[b], smoothing) for b in range(B)) / B
    if name.startswith("tet"):
        weights = {"tet 0": (0.0, 1.0), "tet 1": (1.0, 0.3)}
        weight, target = weights.get(name, (0.05, 1.0))
        pull = sum((value - target) ** 2 for value in o.flatten()) / (T * B * K)
        return (1 - weight) * mean_of_steps(o, y, smoothing) + weight * pull
    if name == "every step":
        return 0.3 * mean_of_steps(o, y, 0.2)
    if name == "weak2strong":
        strong, weak = strong_and_weak(o, y, label=False)
        return 0.7 * divergence(o, weak, strong, 1.5)
    if name == "strong2weak":
        strong, weak = strong_and_weak(o, y, label=True)
        return divergence(o, strong, weak, 2.0)
    if name == "several":
        strong, weak = strong_and_weak(o, y, label=False)
        terms = 0.1 * mean_of_steps(o, y, 0.0) + divergence(o, weak, strong, 2.0)
        return formula("ce", o, y) + terms
    soft = [[(1 - smoothing) * (c == y[b]) + smoothing / K for c in range(K)] for b in range(B)]
    if name == "van rossum smooth":
        d = VanRossum().target(T).tolist()
        return sum(
            (o[t, b, c] - d[t] * soft[b][c]) ** 2
            for t in range(T) for b in range(B) for c in range(K)
        ) / (2 * B)  # fmt: skip
    steps = o if name == "mse per step" else [mean]
    squares = [(step[b, c] - soft[b][c]) ** 2 for step in steps for b in range(B) for c in range(K)]
    return sum(squares) / len(squares)


@pytest.mark.parametrize("name", CASES)
def test_it_is_its_formula(name: str) -> None:
    o = normal(T, B, K)
    got = CASES[name](o, o.mean(0), LABELS).item()
    # Sums of sixty numbers of order one, and an exponential and a logarithm.
    assert got == pytest.approx(formula(name, o.numpy(), LABELS.tolist()), rel=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_its_gradient_is_a_finite_difference(name: str) -> None:
    loss = CASES[name]

    def value(o: Tensor) -> Tensor:
        return loss(o, o.mean(0), LABELS)

    if name in ("weak2strong", "strong2weak", "several"):
        return  # the teacher has no gradient: below
    assert torch.autograd.gradcheck(value, normal(T, B, K).requires_grad_())


@pytest.mark.parametrize("confidence", ["top", "label"])
@pytest.mark.parametrize("teacher", ["weak", "strong"])
def test_the_student_alone_has_a_gradient(teacher: str, confidence: str) -> None:
    o = normal(T, B, K)
    options = {"teacher": teacher, "weight": 0.7, "temperature": 1.5, "confidence": confidence}
    loss = AUXILIARIES.make("self_distillation", **options)
    strong, weak = strong_and_weak(o.numpy(), LABELS.tolist(), confidence == "label")
    taught, teaches = (strong, weak) if teacher == "weak" else (weak, strong)
    each = range(B)
    assert all(s != w for s, w in zip(strong, weak, strict=True))

    def frozen(student: Tensor) -> Tensor:
        return 0.7 * loss.divergence(o[teaches, each], student)

    student = o[taught, each].requires_grad_()
    assert torch.autograd.gradcheck(frozen, student)
    (expected,) = torch.autograd.grad(frozen(student), student)
    (found,) = torch.autograd.grad(
        loss(leaf := o.clone().requires_grad_(), o.mean(0), LABELS), leaf
    )
    torch.testing.assert_close(found[taught, each], expected, rtol=1e-13, atol=1e-16)
    found[taught, each] = 0
    assert not found.any()


def test_equal_steps_teach_nothing() -> None:
    o = normal(1, B, K).expand(T, B, K).clone().requires_grad_()
    loss = SelfDistillation()(o, o.mean(0), LABELS)
    loss.backward()
    assert o.grad is not None
    assert loss.item() == pytest.approx(0, abs=1e-15)
    torch.testing.assert_close(o.grad, torch.zeros_like(o), rtol=0, atol=1e-15)


@pytest.mark.parametrize("steps", [2, 8])
def test_under_a_summed_read_out_the_steps_are_of_the_size_of_the_logits(steps: int) -> None:
    o = normal(steps, B, K)
    summed = SelfDistillation(temperature=1.5, readout="sum")(o, o.sum(0), LABELS)
    plain = SelfDistillation(temperature=1.5 / steps)(o, o.sum(0), LABELS)
    torch.testing.assert_close(summed, plain, rtol=1e-13, atol=0)
    assert summed > SelfDistillation(temperature=1.5)(o, o.sum(0), LABELS)


def test_no_auxiliary_loss_is_zero() -> None:
    o = normal(T, B, K)
    assert AUXILIARIES.make("none")(o, o.mean(0), LABELS).item() == 0


def test_smoothing_of_nothing_changes_nothing() -> None:
    o = normal(T, B, K)
    for name in ("ce", "tet", "mse", "van_rossum"):
        plain, smooth = LOSSES.make(name), LOSSES.make(name, smoothing=0.0)
        assert torch.equal(plain(o, o.mean(0), LABELS), smooth(o, o.mean(0), LABELS))


@pytest.mark.parametrize("name", CASES)
def test_the_mean_over_shares_is_the_loss_of_the_batch(name: str) -> None:
    loss, o = CASES[name], normal(T, B, K)
    halves = [o[:, :2], o[:, 2:]]
    terms = [loss(h, h.mean(0), y) for h, y in zip(halves, LABELS.split(2), strict=True)]
    whole = loss(o, o.mean(0), LABELS)
    torch.testing.assert_close(torch.stack(terms).mean(), whole, rtol=1e-14, atol=0)


def test_tet_of_one_step_is_cross_entropy() -> None:
    o = normal(1, B, K)
    torch.testing.assert_close(
        TET(weight=0.0)(o, o[0], LABELS), CrossEntropy()(o, o[0], LABELS), rtol=1e-15, atol=0
    )


def test_the_squared_errors_differ_by_the_variance_over_time() -> None:
    # mean (o - y)^2 = (mean o - y)^2 + var o: the two readings of PLIF.
    o = normal(T, B, K)
    mean, every = (CASES[name](o, o.mean(0), LABELS) for name in ("mse", "mse per step"))
    spread = o.var(0, correction=0).mean()
    torch.testing.assert_close(every, mean + spread, rtol=1e-14, atol=0)


@pytest.mark.parametrize("loss", CASES.values(), ids=CASES)
def test_half_precision_is_widened(loss: Loss) -> None:
    o = normal(T, B, K).half()
    assert loss(o, o.mean(0), LABELS).dtype == torch.float32
    assert loss.needs == "outputs"


@pytest.mark.parametrize("label", [-1, K, -100])  # -100: PyTorch leaves it out unless told
@pytest.mark.parametrize(
    "loss",
    [
        *(LOSSES.make(name) for name in sorted(LOSSES.keys() - {"joint"})),
        EveryStep(),
        SelfDistillation(confidence="label"),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_a_label_that_is_no_class_is_told(loss: Loss, label: int) -> None:
    outputs = torch.zeros(T, B, K)
    with pytest.raises(UserError, match=f"labels from {label} to {label}: not all"):
        loss(outputs, outputs.mean(0), torch.full((B,), label))


def test_probabilities_of_any_type_leave_the_type_of_the_loss() -> None:
    logits = normal(B, K).float()
    soft = torch.full((B, K), 1 / K, dtype=torch.float64)
    assert CrossEntropy()(logits[None], logits, soft).dtype == torch.float32


def test_labels_of_bytes_are_class_numbers() -> None:
    outputs, labels = torch.from_numpy(normal(T, B, K).numpy()), LABELS.to(torch.uint8)
    for loss in CASES.values():
        if isinstance(loss, SelfDistillation | EveryStep):
            assert loss(outputs, outputs.mean(0), labels) == loss(outputs, outputs.mean(0), LABELS)


def test_wrong_options_are_reported() -> None:
    for weight in (-0.1, 1.5, math.nan):
        with pytest.raises(UserError, match=r"weight(?s:.*)must lie in \[0, 1\]"):
            TET(weight=weight)
    for make in (CrossEntropy, TET, MeanSquaredError, VanRossum, EveryStep):
        for smoothing in (-0.1, 1.0, math.nan):
            with pytest.raises(UserError, match=r"smoothing(?s:.*)must lie in \[0, 1\)"):
                make(smoothing=smoothing)
    with pytest.raises(UserError, match="weight = -1"):
        EveryStep(weight=-1)
    for names in (("every_step",), ("every_step", "none"), ("every_step", "every_step")):
        with pytest.raises(UserError, match="two or more different auxiliary losses"):
            Several(names=names)
    with pytest.raises(UserError) as caught:
        SelfDistillation(
            teacher="ann",  # pyright: ignore[reportArgumentType]
            weight=-1.0,
            temperature=0.0,
            confidence="low",  # pyright: ignore[reportArgumentType]
            readout="max",  # pyright: ignore[reportArgumentType]
        )
    assert [p.where for p in caught.value.problems] == [
        "teacher = 'ann'", "weight = -1.0", "temperature = 0.0", "confidence = 'low'",
        "readout = 'max'",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"loss\.wieght"):
        LOSSES.make("tet", wieght=0.1)
