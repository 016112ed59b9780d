"""The loss of Joint A-SNN against its formula in loops; teachers get no gradient."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rmploss import UserError
from rmploss.objectives.joint import Branch, Branches, JointLoss
from tests.given import labels, normal

B, K, C = 5, 3, 4
ALPHA, BETA, TAU = 0.3, 0.02, 2.5
Array = NDArray[np.float64]


def log_softmax(row: Array) -> Array:
    return row - math.log(sum(math.exp(v) for v in row))


def literally(parts: list[Array], y: Array, fixed: Array) -> float:
    """parts: logits `[4, B, K]`, features `[4, B, C]`; fixed: the teachers, logits of the ANN."""
    ann, snn, f_ann, f_snn = parts
    total = 0.0
    for i in range(4):
        for b in range(B):
            for logits in (ann[i, b], snn[i, b]):
                total -= (1 - ALPHA) * log_softmax(logits)[y[b]] / B
            pairs = [(snn[i, b], fixed[i, b])]
            if i < 3:
                pairs.append((ann[i, b], fixed[3, b]))
            for student, teacher in pairs:
                p, q = np.exp(log_softmax(teacher / TAU)), log_softmax(student / TAU)
                total -= ALPHA * TAU**2 * float(sum(p * q)) / B
            for c in range(C):
                s, a = f_snn[i, b, c], f_ann[i, b, c]
                total += BETA * (s - a) ** 2 if s > 0 or a > 0 else 0.0
    return float(total)


def given() -> tuple[list[torch.Tensor], Branches]:
    shapes = {"ann": K, "snn": K, "f_ann": C, "f_snn": C}
    parts = [normal(4, B, n, name=name).requires_grad_() for name, n in shapes.items()]
    ann, snn, f_ann, f_snn = parts
    ours = Branch(tuple(ann), tuple(f_ann)), Branch(tuple(snn), tuple(f_snn))
    return parts, Branches(*ours)


def test_it_is_the_formula_and_its_derivative() -> None:
    parts, outputs = given()
    y = labels(B, K)
    joint = JointLoss(alpha=ALPHA, beta=BETA, temperature=TAU, batch=B)  # then it is the sum
    loss = joint(outputs, outputs.snn.logits[-1], y)
    arrays = [part.detach().numpy().copy() for part in parts]
    teachers = arrays[0].copy()
    assert loss.item() == pytest.approx(literally(arrays, y.numpy(), teachers), rel=1e-13)
    loss.backward()
    h = 1e-5  # error h^2 |f'''| / 6 + eps / h: below 1e-9
    for index in (0, 1, 3):
        gradient = parts[index].grad
        assert gradient is not None
        for at in np.ndindex(arrays[index].shape):
            values = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[index][at] += sign * h
                values.append(literally(moved, y.numpy(), teachers))
            expected = (values[0] - values[1]) / (2 * h)
            assert gradient[at].item() == pytest.approx(expected, abs=1e-8)
    assert parts[2].grad is None  # the features of the ANN are no concern of the SNN's loss


def test_the_released_constants() -> None:
    loss = JointLoss()
    assert (loss.alpha, loss.beta, loss.temperature) == (0.1, 1e-6, 3.0)
    # Heads that know nothing: 8 (0.9) ln 2 and 7 (0.1) 9 ln 2; no feature is alive.
    zero = Branch(tuple(torch.zeros(4, 2, 2)), tuple(-torch.ones(4, 2, 3)))
    other = Branch(zero.logits, tuple(torch.zeros(4, 2, 3)))
    same = loss(Branches(zero, other), zero.logits[-1], torch.tensor([0, 1]))
    assert same.item() == pytest.approx((8 * 0.9 + 7 * 0.1 * 9) * math.log(2), rel=1e-6)
    alive = Branch(zero.logits, tuple(torch.ones(4, 2, 3)))
    more = loss(Branches(zero, alive), zero.logits[-1], torch.tensor([0, 1]))
    # (1 + 1)^2 on 4 x 3 features of every sample, 1024 times; float32 has seven digits of 9.4.
    assert (more - same).item() == pytest.approx(1e-6 * 1024 * 4 * 12, abs=2e-6)


def test_smoothing_reaches_every_head() -> None:
    _, outputs = given()
    y, last = labels(B, K), outputs.snn.logits[-1]
    # The cross-entropies are linear in the labels, and nothing else depends on them.
    plain = JointLoss()(outputs, last, y).item()
    every = [JointLoss()(outputs, last, torch.full_like(y, k)).item() for k in range(K)]
    smooth = JointLoss(smoothing=0.3)(outputs, last, y).item()
    assert smooth == pytest.approx(0.7 * plain + 0.3 * sum(every) / K, rel=1e-13)


def test_it_does_not_depend_on_how_a_batch_is_shared_out() -> None:
    _, outputs = given()
    y, joint = labels(B, K), JointLoss(beta=1.0)
    first, second, whole = (
        joint(_rows(outputs, rows), outputs.snn.logits[-1][rows], y[rows])
        for rows in (slice(0, 2), slice(2, 4), slice(0, 4))
    )
    torch.testing.assert_close((first + second) / 2, whole, rtol=1e-13, atol=0)


def _rows(outputs: Branches, rows: slice) -> Branches:
    """Both branches of some samples."""
    ann, snn = (
        Branch(tuple(x[rows] for x in branch.logits), tuple(x[rows] for x in branch.features))
        for branch in outputs
    )
    return Branches(ann, snn)


def test_wrong_options_are_reported() -> None:
    with pytest.raises(UserError) as caught:
        JointLoss(alpha=2, beta=-1, temperature=0, batch=0)
    wrong = ["alpha = 2", "beta = -1", "temperature = 0", "batch = 0"]
    assert [p.where for p in caught.value.problems] == wrong
