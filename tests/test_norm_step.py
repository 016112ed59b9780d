"""Batch normalization step by step: PyTorch's own at every step, in training and in evaluation."""

import pytest
import torch
from torch import Tensor, nn

from rmploss import LIF, UserError
from rmploss.lifecycle import fold
from rmploss.models.layers import ConvNorm, conv3x3
from rmploss.norm_step import StepBatchNorm2d
from tests.given import normal

SHAPE = (4, 3, 5, 2, 6)


def exact(got: Tensor | None, want: Tensor | None) -> None:
    """Equal up to sums of 36 float64 numbers of order one: some hundred roundings of 1.1e-16."""
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)


def pair() -> tuple[StepBatchNorm2d, nn.BatchNorm2d]:
    """Ours and PyTorch's with the same gain and offset."""
    ours, theirs = StepBatchNorm2d(5).double(), nn.BatchNorm2d(5).double()
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(1 + 0.3 * normal(5, name="gain"))
            norm.bias.copy_(normal(5, name="offset"))
    return ours, theirs


def test_it_is_batch_normalization_called_at_every_step() -> None:
    (ours, theirs), x = pair(), normal(*SHAPE).requires_grad_()
    y = x.detach().clone().requires_grad_()
    one, other = ours(x), torch.stack([theirs(y_t) for y_t in y])
    exact(one, other)
    upstream = normal(*SHAPE, name="upstream")
    one.backward(upstream)
    other.backward(upstream)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-12, atol=1e-12)
    exact(ours.bias.grad, theirs.bias.grad)
    # Four updates, one after the other.
    exact(ours.running_mean, theirs.running_mean)
    exact(ours.running_var, theirs.running_var)
    ours.eval()
    theirs.eval()
    z = normal(*SHAPE, name="test")
    exact(ours(z), torch.stack([theirs(z_t) for z_t in z]))


def test_every_step_has_mean_zero_and_not_all_of_them_together() -> None:
    x = normal(*SHAPE) + torch.arange(4.0).view(4, 1, 1, 1, 1)
    y = StepBatchNorm2d(5).double()(x)
    exact(y.mean((1, 3, 4)), torch.zeros(4, 5).double())


def test_equal_steps_count_once() -> None:
    (ours, theirs), x = pair(), normal(1, *SHAPE[1:])
    exact(ours(x, 7)[0], theirs(x[0]))
    exact(ours.running_mean, theirs.running_mean)
    exact(ours.running_var, theirs.running_var)


def test_neurons_get_each_step_by_itself() -> None:
    stage, neuron = conv3x3(2, 24, StepBatchNorm2d).double(), LIF()
    x = (normal(3, 2, 2, 6, 6) > 0).double()
    y = stage.conv(x.flatten(0, 1)).unflatten(0, (3, 2))
    theirs = nn.BatchNorm2d(24).double()
    expected = LIF()(torch.stack([theirs(y_t) for y_t in y]))
    assert torch.equal(stage.fire(x, neuron), expected)
    with pytest.raises(UserError, match=r"lif\(norm\(x\)\), not lif\(x, norm=norm\)"):
        neuron(y, norm=stage.norm)


def test_it_folds_into_the_convolution() -> None:
    stage, x = conv3x3(2, 24, StepBatchNorm2d).double(), normal(3, 2, 2, 6, 6)
    stage(x)
    expected = stage.eval()(x)
    folded = fold(stage)
    assert isinstance(folded, ConvNorm)
    assert folded.norm is None
    torch.testing.assert_close(folded(x), expected, rtol=1e-12, atol=1e-12)
