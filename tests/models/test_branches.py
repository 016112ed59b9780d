"""STBP-tdBN's rule: where two branches are added, their last norms have alpha / sqrt(2)."""

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss import LIF, TDBatchNorm2d, UserError
from rmploss.models import create
from rmploss.models.resnet import BasicBlock, branch, pooled, strided
from rmploss.norm import NoNorm
from rmploss.norm_step import StepBatchNorm2d
from tests.given import normal

PROJECTIONS = {
    "resnet20": 3, "resnet19": 2, "resnet18-cifar": 3, "resnet18": 3, "resnet34": 3,
}  # fmt: skip
"""Networks with the rule, and their shortcuts that are no identities."""
BLOCKS = {"resnet20": 8, "resnet19": 8, "resnet18-cifar": 8, "resnet18": 8, "resnet34": 16}
HALF, BRANCH = 0.5, 0.5 / math.sqrt(2)
"""alpha V_th in a chain and at the end of one of two branches, for V_th = 1/2."""


def norms(name: str, **options: Any) -> tuple[list[TDBatchNorm2d], list[TDBatchNorm2d]]:
    """The norms of a narrow network at the ends of branches, and all others."""
    net = create(name, width=1 / 32, branches=True, **options)
    found = {n: m for n, m in net.named_modules() if isinstance(m, TDBatchNorm2d)}
    ends = [n for n in found if n.startswith("layer") and ("conv2" in n or "shortcut" in n)]
    return [found[n] for n in ends], [m for n, m in found.items() if n not in ends]


@pytest.mark.parametrize("name", BLOCKS)
def test_the_last_norms_of_blocks_and_their_projections_have_it(name: str) -> None:
    ends, others = norms(name)
    assert len(ends) == BLOCKS[name] + PROJECTIONS[name]
    assert [m.scale for m in ends] == pytest.approx([BRANCH] * len(ends), rel=1e-15)
    assert [m.scale for m in others] == [HALF] * len(others)
    assert len(others) == BLOCKS[name] + (3 if name == "resnet20" else 1)


def test_it_multiplies_whatever_alpha_and_threshold_there_are() -> None:
    norm = partial(TDBatchNorm2d, alpha=0.8, v_threshold=0.75, factor="gain")
    ends, others = norms("resnet19", norm=norm, stem_width=64)
    assert len(ends) == 8 + 3  # the narrow stem needs a projection, too
    for found, expected in ((ends, 0.6 / math.sqrt(2)), (others, 0.6)):
        for m in found:
            assert m.scale == 1
            # The gain is stored in float32: rounded twice.
            assert m.weight.tolist() == pytest.approx([expected] * m.channels, rel=2.0**-23)


@pytest.mark.parametrize("name", BLOCKS)
def test_without_it_all_norms_are_alike(name: str) -> None:
    found = [m for m in create(name, width=1 / 32).modules() if isinstance(m, TDBatchNorm2d)]
    assert {m.scale for m in found} == {HALF}


def normalized(y: Tensor, alpha: float) -> Tensor:
    """Eq. 6 with V_th = 1/2 of `[T B, C, H, W]`, gain 1 and offset 0."""
    return alpha * 0.5 * F.batch_norm(y, None, None, training=True)


@pytest.mark.parametrize("project", [strided, pooled])
def test_the_current_of_a_block_is_the_sum_of_its_equations(project: Any) -> None:
    torch.manual_seed(0)
    last = branch(TDBatchNorm2d)
    block = BasicBlock(
        4, 6, stride=2, shortcut=project(4, 6, 2, last), neuron=LIF, norm=TDBatchNorm2d,
        last_norm=last,
    ).double()  # fmt: skip
    seen: list[Tensor] = []
    block.lif2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    spikes = (normal(3, 2, 4, 8, 8, name="spikes") > 0).double()
    block(spikes)

    first, second, third = (m.weight for m in block.modules() if isinstance(m, nn.Conv2d))
    x = spikes.flatten(0, 1)
    inner = normalized(F.conv2d(x, first, stride=2, padding=1), 1)
    inner = LIF()(inner.unflatten(0, (3, 2))).flatten(0, 1)
    assert 0 < inner.mean() < 1
    short = F.conv2d(x[..., ::2, ::2] if project is strided else F.avg_pool2d(x, 2), third)
    root = 1 / math.sqrt(2)
    current = normalized(F.conv2d(inner, second, padding=1), root) + normalized(short, root)
    # Normalized values of order one, of some hundred sums of float64.
    torch.testing.assert_close(seen[0].flatten(0, 1), current, rtol=0, atol=1e-12)


def test_two_branches_together_have_the_spread_of_one() -> None:
    """What the rule is for: the sum of two independent currents has the deviation alpha V_th."""
    made = branch(TDBatchNorm2d)
    one, other = made(3).double(), made(3).double()
    x, y = normal(4, 8, 3, 16, 16, name="one", std=3), normal(4, 8, 3, 16, 16, name="other")
    spread = (one(x) + other(y)).std((0, 1, 3, 4))
    # The correlation of 8192 pairs has a deviation of 1/sqrt(8192), and half of it is in the root.
    bound = 5 / math.sqrt(8192) / 2
    assert spread.tolist() == pytest.approx([HALF] * 3, rel=bound)


@pytest.mark.parametrize(
    ("norm", "told"),
    [
        (NoNorm, "needs a norm with an alpha"),
        (StepBatchNorm2d, "cannot be rescaled"),
        (partial(TDBatchNorm2d, factor="none"), "cannot be rescaled"),
    ],
)
def test_a_norm_without_alpha_is_told(norm: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        create("resnet20", width=1 / 32, branches=True, norm=norm)
