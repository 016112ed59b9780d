"""tdBN: Eqs. 6-7 literally with their gradients, running statistics, repeated steps, folding."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from rmploss.errors import UserError
from rmploss.norm import NORMS, TDBatchNorm2d, fold
from tests.given import normal

SHAPE = (3, 4, 2, 5, 5)
OVER = (0, 1, 3, 4)
Factor = Literal["outside", "gain", "none"]


def tdbn(
    *, factor: Factor = "outside", alpha: float = 1.0, v_threshold: float = 0.5
) -> TDBatchNorm2d:
    """A float64 norm of two channels with parameters that are not the initial ones."""
    norm = TDBatchNorm2d(2, factor=factor, alpha=alpha, v_threshold=v_threshold).double()
    with torch.no_grad():
        norm.weight.copy_(norm.weight * torch.tensor([1.3, 0.7], dtype=torch.float64))
        norm.bias.copy_(torch.tensor([0.2, -0.1], dtype=torch.float64))
        norm.running_mean.copy_(normal(2, name="running mean"))
        norm.running_var.copy_(normal(2, name="running var").square() + 0.5)
    return norm


def equations(x: Tensor, norm: TDBatchNorm2d, factor: float) -> Tensor:
    """Eqs. 6 and 7 as they are printed."""
    mean = x.mean(OVER, keepdim=True)
    variance = (x - mean).square().mean(OVER, keepdim=True)
    x_bar = factor * (x - mean) / torch.sqrt(variance + norm.eps)
    channels = (1, 1, -1, 1, 1)
    return norm.weight.view(channels) * x_bar + norm.bias.view(channels)


def gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a fixed random functional of y."""
    return torch.autograd.grad((y * normal(*y.shape, name="upstream")).sum(), inputs)


@pytest.mark.parametrize(
    ("factor", "expected"), [("outside", 0.8 * 0.3), ("gain", 1.0), ("none", 1.0)]
)
def test_the_norm_is_equations_6_and_7(factor: Factor, expected: float) -> None:
    norm = tdbn(factor=factor, alpha=0.8, v_threshold=0.3)
    x = normal(*SHAPE, mean=0.7, std=2).requires_grad_()
    inputs = (x, norm.weight, norm.bias)
    got, want = norm(x), equations(x, norm, expected)
    # 300 values per channel: sums of them err by some 300 eps of values of order ten.
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)
    for one, other in zip(gradients(got, *inputs), gradients(want, *inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_the_factor_is_one_function_wherever_it_stands() -> None:
    x = normal(*SHAPE)
    outside, gain, none = (TDBatchNorm2d(2, factor=f).double() for f in ("outside", "gain", "none"))
    assert outside.weight.tolist() == none.weight.tolist() == [1, 1]
    assert gain.weight.tolist() == [0.5, 0.5]
    torch.testing.assert_close(outside(x), gain(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(outside(x), 0.5 * none(x), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("factor", ["outside", "gain"])
def test_rescaling_multiplies_alpha(factor: Factor) -> None:
    ours = TDBatchNorm2d(2, factor=factor, alpha=0.8, v_threshold=0.75).double()
    wanted = TDBatchNorm2d(2, factor=factor, alpha=0.8 * 0.25, v_threshold=0.75).double()
    ours.rescale(0.25)
    x = normal(*SHAPE, mean=0.7, std=2)
    y = ours(x)
    # A gain is stored in float32, and a quarter of it is exact.
    torch.testing.assert_close(y, wanted(x), rtol=2.0**-23, atol=0)
    assert y.std(OVER, correction=0).tolist() == pytest.approx([0.15, 0.15], rel=1e-5)
    torch.testing.assert_close(ours.eval()(x), wanted.eval()(x), rtol=2.0**-23, atol=0)
    assert ours.bias.eq(0).all()


def test_without_the_factor_there_is_no_alpha_to_rescale() -> None:
    norm = TDBatchNorm2d(2, factor="none")
    with pytest.raises(UserError, match="cannot be rescaled") as caught:
        norm.rescale(0.5)
    assert caught.value.problems[0].fix == "outside or gain"
    assert norm.gain.tolist() == [1, 1]


def test_the_normalized_value_is_spread_by_the_threshold() -> None:
    y = TDBatchNorm2d(2, alpha=1.0, v_threshold=0.5).double()(normal(*SHAPE, mean=3, std=4))
    assert y.mean(OVER).tolist() == pytest.approx([0, 0], abs=1e-13)
    assert y.std(OVER, correction=0).tolist() == pytest.approx([0.5, 0.5], rel=1e-5)


def test_running_statistics_are_unbiased_over_time_batch_and_space() -> None:
    norm = tdbn()
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    for seed in range(3):
        x = normal(*SHAPE, seed=seed, mean=0.7, std=2)
        norm(x)
        mean = 0.9 * mean + 0.1 * x.mean(OVER)
        variance = 0.9 * variance + 0.1 * x.var(OVER, correction=1)
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-13, atol=0)


def test_without_the_factor_it_is_torch_batch_norm_over_time() -> None:
    norm, other = TDBatchNorm2d(2, factor="none").double(), nn.BatchNorm3d(2).double()
    x = normal(*SHAPE)
    y = other(x.permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4)
    torch.testing.assert_close(norm(x), y, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(norm.running_mean, other.running_mean, rtol=1e-13, atol=1e-16)
    torch.testing.assert_close(norm.running_var, other.running_var, rtol=1e-13, atol=0)


def test_evaluation_uses_the_running_statistics_and_leaves_them() -> None:
    norm = tdbn().eval()
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    x = normal(*SHAPE)
    channels = (1, 1, -1, 1, 1)
    x_hat = (x - norm.running_mean.view(channels)) / torch.sqrt(
        norm.running_var.view(channels) + norm.eps
    )
    expected = norm.weight.view(channels) * 0.5 * x_hat + norm.bias.view(channels)
    torch.testing.assert_close(norm(x), expected, rtol=1e-13, atol=1e-14)
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, before[name])


@pytest.mark.parametrize("repeats", [1, 2, 7])
def test_repeats_stand_for_that_many_copies(repeats: int) -> None:
    one, many = tdbn(), tdbn()
    x = normal(1, *SHAPE[1:], mean=0.4).requires_grad_()
    short = one(x, repeats).expand(repeats, -1, -1, -1, -1)
    full = many(x.expand(repeats, -1, -1, -1, -1))
    torch.testing.assert_close(short, full, rtol=1e-12, atol=1e-13)
    for a, b in zip(
        gradients(short, x, one.weight, one.bias),
        gradients(full, x, many.weight, many.bias),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(one.running_mean, many.running_mean, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(one.running_var, many.running_var, rtol=1e-13, atol=0)


def test_two_forwards_before_one_backward() -> None:
    norm, other = tdbn(), tdbn()
    a, b = normal(*SHAPE).requires_grad_(), normal(*SHAPE, seed=1).requires_grad_()
    together = norm(a), norm(b)
    alone = [gradients(other(x), x)[0] for x in (a, b)]
    for y, x, expected in zip(together, (a, b), alone, strict=True):
        torch.testing.assert_close(gradients(y, x)[0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_keeps_float32_statistics(dtype: torch.dtype) -> None:
    norm, wide = TDBatchNorm2d(2), TDBatchNorm2d(2)
    x = normal(*SHAPE).to(dtype)
    y, expected = norm(x), wide(x.float())
    assert y.dtype == dtype
    assert norm.running_var.dtype == torch.float32
    # Statistics in float32 from the same values; only the result is rounded, to half an ulp.
    torch.testing.assert_close(y.float(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)
    torch.testing.assert_close(norm.running_var, wide.running_var, rtol=1e-5, atol=0)


@pytest.mark.parametrize("factor", ["outside", "gain", "none"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"groups": 2}])
def test_folding_is_exact_in_evaluation(
    factor: Factor, bias: bool, options: dict[str, int]
) -> None:
    conv = nn.Conv2d(4, 2, 3, padding=1, bias=bias, **options).double()  # pyright: ignore[reportArgumentType]
    norm = tdbn(factor=factor).eval()
    x = normal(3, 4, 9, 9)
    with torch.no_grad():
        conv.weight.copy_(normal(*conv.weight.shape, name="weight"))
        if conv.bias is not None:
            conv.bias.copy_(normal(2, name="bias"))
        expected = norm(conv(x).unsqueeze(0))[0]
        folded = fold(conv, norm)
        torch.testing.assert_close(folded(x), expected, rtol=1e-12, atol=1e-12)
    assert folded.weight.dtype == torch.float64
    assert folded.stride == conv.stride
    assert folded.groups == conv.groups


@pytest.mark.parametrize("eps", [1e-5, 1.1e-5, 1e-4, 3e-4, 1e-3, 0.01, 0.03])
def test_a_channel_that_hardly_changes_has_no_negative_variance(eps: float) -> None:
    """It is what rounding leaves of 1 / sqrt(var + eps), for var << eps of either sign."""
    norm = TDBatchNorm2d(64, momentum=1.0, eps=eps)
    spread = eps**0.5 * torch.logspace(-6, -1, 64).view(1, 1, -1, 1, 1)
    x = spread * normal(2, 3, 64, 4, 4).float()
    norm(x)
    assert torch.all(norm.running_var >= 0)
    # Five roundings of eps: sum, root, reciprocal, square, reciprocal.
    bound = 5 * torch.finfo(torch.float32).eps * eps
    torch.testing.assert_close(norm.running_var, x.var(OVER), rtol=1e-5, atol=bound)


def test_wrong_inputs_are_reported() -> None:
    norm = TDBatchNorm2d(3)
    for shape in [(2, 3, 4, 4), (2, 2, 4, 4, 4), (3,)]:
        with pytest.raises(UserError, match=r"\[T, B, 3, H, W\]"):
            norm(torch.zeros(shape))
    with pytest.raises(UserError, match=r"'inside'.*one of.*outside, gain or none"):
        TDBatchNorm2d(3, factor="inside")  # pyright: ignore[reportArgumentType]


def test_all_constants_out_of_range_are_reported_at_once() -> None:
    with pytest.raises(UserError) as caught:
        TDBatchNorm2d(3, alpha=-1, v_threshold=math.inf, eps=0, momentum=1.5)
    places = ["alpha = -1", "v_threshold = inf", "eps = 0", "momentum = 1.5"]
    assert [problem.where for problem in caught.value.problems] == places


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_takes_sequences_and_repeats(name: str) -> None:
    norm = NORMS.make(name, 2)
    y = norm(normal(*SHAPE).float(), 3)
    assert y.shape == SHAPE
    assert math.isfinite(y.sum().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 5, 3, 3), (2, 1, 5, 3, 3), (1, 2, 5, 3, 3)])
def test_the_memory_of_a_gradient_does_not_matter(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    norm = TDBatchNorm2d(5).to(dtype).train()
    x, g = normal(*shape).to(dtype).requires_grad_(), normal(*shape, name="g").to(dtype)
    last = g.movedim(2, -1).contiguous().movedim(-1, 2)
    (one,), (other,) = (torch.autograd.grad(norm(x), x, given) for given in (g, last))
    torch.testing.assert_close(one, other)
    assert float(one.abs().max()) > 0
