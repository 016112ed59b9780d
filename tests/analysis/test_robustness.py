"""Attacks on networks whose gradients are known: signs, bounds, and what points to masking."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss.analysis.robustness import (
    STEP,
    Robustness,
    attacked,
    clipped,
    fgsm,
    input_gradient,
    pgd,
    robustness,
)
from rmploss.errors import UserError
from rmploss.models.convnet import ConvNet
from rmploss.neurons import LIF
from rmploss.norm import TDBatchNorm2d

N, SHAPE = 12, (1, 3, 3)


class Linear(nn.Module):
    """logits = W x of the pixels, float64."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def x() -> Tensor:
    drawn = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn.view(-1)[:4] = torch.tensor([0.0, 1.0, 0.01, 0.99])
    return drawn


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(N) % 2


def test_the_gradient_of_a_linear_network_is_known(
    weight: Tensor, x: Tensor, labels: Tensor
) -> None:
    """dL/dx = W^T (softmax(W x) - y), of every image by itself."""
    model = Linear(weight)
    expected = (model(x).softmax(1) - F.one_hot(labels, 2)).detach() @ weight
    got = input_gradient(model, x, labels)
    torch.testing.assert_close(got.flatten(1), expected, rtol=1e-12, atol=1e-14)
    alone = torch.cat([input_gradient(model, x[i : i + 1], labels[i : i + 1]) for i in range(N)])
    torch.testing.assert_close(got, alone, rtol=1e-12, atol=1e-14)
    assert not x.requires_grad


def test_fgsm_moves_every_pixel_against_its_class(
    weight: Tensor, x: Tensor, labels: Tensor
) -> None:
    """Of two classes the sign is that of the other class's weights less those of the right one."""
    away = (weight[1 - labels] - weight[labels]).sign().view(N, *SHAPE)
    expected = (x + 0.1 * away).clamp(0, 1)
    assert torch.equal(fgsm(Linear(weight), x, labels, 0.1), expected)


def test_pgd_on_a_linear_network_reaches_the_corner_of_fgsm(
    weight: Tensor, x: Tensor, labels: Tensor
) -> None:
    model, eps = Linear(weight), 0.1
    opposite = clipped(x - eps * input_gradient(model, x, labels).sign(), x, eps)
    steps = round(2 / STEP)
    reached = pgd(model, x, labels, eps, begin=opposite, steps=steps)
    torch.testing.assert_close(reached, fgsm(model, x, labels, eps), rtol=0, atol=1e-15)
    short = pgd(model, x, labels, eps, begin=opposite, steps=steps - 1)
    assert not torch.allclose(short, reached)


@pytest.mark.parametrize("eps", [2 / 255, 0.3])
def test_images_stay_within_eps_and_the_range_of_pixels(
    eps: float, weight: Tensor, x: Tensor, labels: Tensor
) -> None:
    model = Linear(weight)
    far = clipped(x + 5 * torch.randn_like(x), x, eps)
    for image in (far, fgsm(model, x, labels, eps), pgd(model, x, labels, eps, begin=far)):
        assert float((image - x).abs().max()) <= eps + 1e-15
        assert float(image.min()) >= 0
        assert float(image.max()) <= 1


def test_the_results_of_a_linear_network_are_counted(
    weight: Tensor, x: Tensor, labels: Tensor
) -> None:
    model = Linear(weight)
    other = Linear(-weight)
    results = robustness(model, [(x[:5], labels[:5]), (x[5:], labels[5:])], [0.05, 0.4])
    for result, eps in zip(results, (0.05, 0.4), strict=True):
        right = [model(image).argmax(1) == labels for image in (x, fgsm(model, x, labels, eps))]
        clean, attack = (100 * float(r.double().mean()) for r in right)
        assert (result.eps, result.samples) == (eps, N)
        assert (result.clean, result.fgsm) == pytest.approx((clean, attack))
        assert result.pgd <= result.fgsm <= result.noise
        assert result.transfer is None
        assert result.masked == ()
    # What fools the opposite network helps this one: nothing is transferred.
    (helped,) = robustness(model, [(x, labels)], [0.4], source=other)
    assert helped.transfer is not None
    assert helped.transfer > helped.clean


def test_what_does_not_depend_on_the_size_is_computed_once(
    weight: Tensor, x: Tensor, labels: Tensor
) -> None:
    """Of each batch: one clean forward and one gradient at the clean images for all sizes."""
    clean: list[bool] = []

    class Counts(Linear):
        def forward(self, x: Tensor) -> Tensor:
            if torch.equal(x.detach(), images):
                clean.append(x.requires_grad)
            return super().forward(x)

    images = x
    model = Counts(weight)
    sizes = [0.05, 0.1, 0.2]
    results = robustness(model, [(x, labels)], sizes, steps=1)
    assert clean == [False, True]
    alone = [robustness(model, [(x, labels)], [size], steps=1)[0] for size in sizes]
    assert results == alone


def test_the_standard_error_is_the_largest_of_any_accuracy() -> None:
    """sqrt(p (100 - p) / n), in percent, is largest at p = 50."""
    for n in (30, 100, 10_000):
        result = Robustness(0.1, n, 90, 80, 50, 20, None, 0)
        largest = max(math.sqrt(p * (100 - p) / n) for p in range(101))
        assert result.standard_error == pytest.approx(largest)


def test_noise_changes_every_pixel_by_eps_and_repeats_by_its_seed() -> None:
    seen: list[Tensor] = []

    class Sees(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return x.flatten(1)[:, :2]

    x = torch.full((4, *SHAPE), 0.5)
    runs = []
    for seed in (0, 0, 1):
        seen.clear()
        robustness(Sees(), [(x, torch.zeros(4, dtype=torch.int64))], [0.25], seed=seed)
        (noisy,) = [s for s in seen if (s - x).abs().eq(0.25).all() and (s > x).any()][:1]
        runs.append(noisy)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert 0.2 < float((runs[0] > x).double().mean()) < 0.8


class Flat(nn.Module):
    """A network without gradients: it rounds its pixels, as a mask would."""

    def forward(self, x: Tensor) -> Tensor:
        level = (x.flatten(1).mean(1, keepdim=True) > 0.5).to(x)
        return torch.cat([level, 1 - level], 1) + 0 * x.flatten(1)[:, :2]


def test_a_network_without_gradients_is_told(x: Tensor, labels: Tensor) -> None:
    steep = Linear(torch.stack([torch.ones(9), -torch.ones(9)]).double())
    right = Flat()(x).argmax(1)
    (result,) = robustness(Flat(), [(x, right)], [0.5], source=steep)
    assert (result.clean, result.fgsm, result.without_gradient) == (100, 100, 100)
    assert result.transfer is not None
    assert result.transfer < result.pgd
    said = " ".join(result.masked)
    assert "another network" in said
    assert "100.0 % of the images have no gradient" in said


class Detached(Flat):
    """The same without a graph: nothing says that it depends on its pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class Broken(Flat):
    """The same with logits, or only gradients, that are not numbers."""

    def __init__(self, *, logits: bool) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        zero = (0 * x.flatten(1)[:, :2]).abs()
        return super().forward(x) + (zero / 0 if self.logits else zero.sqrt())


def test_logits_that_depend_on_no_pixel_have_no_gradient(x: Tensor) -> None:
    (result,) = robustness(Detached(), [(x, Detached()(x).argmax(1))], [0.5])
    assert (result.clean, result.fgsm, result.without_gradient) == (100, 100, 100)


def test_what_is_not_finite_is_not_robust(x: Tensor) -> None:
    (result,) = robustness(Broken(logits=True), [(x, torch.zeros(len(x)).long())], [0.5])
    assert (result.clean, result.noise, result.fgsm, result.pgd) == (0, 0, 0, 0)
    (result,) = robustness(Broken(logits=False), [(x, Flat()(x).argmax(1))], [0.5])
    assert (result.clean, result.without_gradient) == (100, 100)


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ((80, 50, 20), ()),
        ((30, 50, 20), ("noise does more harm than FGSM",)),
        ((80, 10, 25), ("FGSM does more harm than PGD",)),
        ((50, 50, 50), ()),
    ],
)
def test_what_points_to_masked_gradients(
    accuracies: tuple[float, float, float], said: tuple[str, ...]
) -> None:
    assert Robustness(0.1, 100, 90, *accuracies, None, 0).masked == said


def test_a_difference_counts_beyond_two_standard_errors() -> None:
    """At 50 % the standard error of a difference of n images is sqrt(2) 50 / sqrt(n) points.

    Of 10,000 images 0.707 points: 1.40 are within two of them, 1.42 are beyond.
    """
    noise = ("noise does more harm than FGSM",)
    other = ("images of another network do more harm than PGD",)
    for points, told in ((1.40, False), (1.42, True)):
        low, high = 50 - points / 2, 50 + points / 2
        first = Robustness(0.1, 10_000, 90, low, high, 10, None, 0)
        assert first.masked == (noise if told else ())
        last = Robustness(0.1, 10_000, 90, 80, 70, high, low, 0)
        assert last.masked == (other if told else ())


def test_attacks_are_compared_in_pairs_not_only_with_the_next_weaker_one() -> None:
    """Of 1,000 images two standard errors are 4.4 points: 3.5 twice are within, 7 are not."""
    result = Robustness(0.1, 1000, 90, 40.0, 43.5, 47.0, None, 0)
    assert result.masked == ("noise does more harm than PGD",)


def test_a_single_image_says_nothing() -> None:
    assert Robustness(0.1, 1, 100, 0, 100, 0, None, 0).masked == ()
    assert Robustness(0.1, 1, 100, 100, 100, 100, 0, 0).masked == ()
    assert Robustness(0.1, 100, 90, 50, 51, 20, None, 0).masked == ()
    assert Robustness(0.1, 100, 90, 30, 30, 31, 30, 0).masked == ()


def spiking() -> ConvNet:
    return ConvNet(in_channels=1, num_classes=2, T=2, width=0.125, neuron=LIF, norm=TDBatchNorm2d)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_spiking_network_is_left_as_it_was(images: Tensor) -> None:
    net = spiking().train()
    net.head.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    needing = [p.requires_grad for p in net.parameters()]
    with attacked(net):
        assert not net.training
        assert not any(p.requires_grad for p in net.parameters())
    robustness(net, [(images, torch.arange(8) % 2)], [0.1], source=net, steps=2)
    assert net.training
    assert [p.requires_grad for p in net.parameters()] == needing
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_gradient_of_a_spiking_network_is_that_of_its_surrogate(images: Tensor) -> None:
    net = spiking().eval()
    labels = torch.arange(8) % 2
    with attacked(net):
        gradient = input_gradient(net, images, labels)
    x = images.clone().requires_grad_()
    F.cross_entropy(net(x), labels, reduction="sum").backward()
    assert x.grad is not None
    torch.testing.assert_close(gradient, x.grad)
    assert bool(gradient.any())


@pytest.mark.parametrize(
    ("eps", "steps", "said"),
    [
        ([0.0], 1, "0.0"),
        ([1.5], 1, "1.5"),
        ([1e-300], 1, "1e-300"),
        ([], 1, "no size"),
        ([0.1, 0.1], 1, "twice"),
        ([0.1], 0, "steps = 0"),
    ],
)
def test_what_cannot_be_attacked(eps: list[float], steps: int, said: str, images: Tensor) -> None:
    with pytest.raises(UserError) as caught:
        robustness(spiking(), [(images, torch.arange(8) % 2)], eps, steps=steps)
    assert said in str(caught.value)


def test_without_images_nothing_is_measured() -> None:
    with pytest.raises(UserError, match="no image"):
        robustness(spiking(), [], [0.1])


def test_every_module_is_left_in_the_mode_it_was_in() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2), nn.BatchNorm1d(2))
    net[2].eval()  # a frozen norm of a network in training
    with attacked(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == [True, True, True, False]
