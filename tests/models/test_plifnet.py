"""PLIFNet against a literal forward, step by step, with PyTorch's own norm at every step."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss import membrane_stats
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork, create
from rmploss.models.dropout import Dropout
from rmploss.neurons.plif import PLIF
from rmploss.norm_step import StepBatchNorm2d
from tests.given import normal
from tests.neurons.test_plif import literal as neurons

STEPS, BATCH, CLASSES = 3, 2, 3
STAGES = {"plifnet": (3, 3), "plifnet-dvs": (1, 1, 1, 1)}
SIZE = {"plifnet": 8, "plifnet-dvs": 32}


def tiny(name: str, **options: Any) -> SpikingNetwork:
    """A narrow one in float64 whose layers all fire."""
    usual = {"dropout": 0.0, "width": 1 / 32, "image_size": SIZE[name], "in_channels": 2}
    net = create(name, **{"T": STEPS, "num_classes": CLASSES, **usual, **options}).double()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            numbers = normal(*parameter.shape, name=key)
            if key.endswith(".w"):
                parameter.copy_(0.5 * numbers)
            elif key.endswith("norm.weight"):
                parameter.copy_(1.5 + 0.3 * numbers)
            elif key.endswith("norm.bias"):
                parameter.copy_(0.8 + 0.1 * numbers)
            else:
                parameter.copy_(numbers if parameter.ndim == 2 else 0.3 * numbers)
    return net


def literal(name: str, p: dict[str, Tensor], norms: dict[str, nn.BatchNorm2d], x: Tensor) -> Tensor:
    """The rates of the classes; x: an image `[B, C, H, W]` or a sequence."""
    static = x.ndim == 4
    for stage, convolutions in enumerate(STAGES[name], start=1):
        for index in range(1, convolutions + 1):
            place = f"layers.conv{stage}_{index}"
            weight, norm = p[f"{place}.conv.weight"], norms[place]
            if static:  # the first one, once
                x = norm(F.conv2d(x, weight, padding=1)).expand(STEPS, -1, -1, -1, -1)
                static = False
            else:
                x = torch.stack([norm(F.conv2d(x_t, weight, padding=1)) for x_t in x])
            x, _ = neurons(x, p[f"layers.lif{stage}_{index}.w"])
        x = torch.stack([F.max_pool2d(x_t, 2) for x_t in x])
    for index in (1, 2):
        x, _ = neurons(x.flatten(2) @ p[f"fc{index}.layer.weight"].T, p[f"lif{index}.w"])
    votes = [x[..., 10 * c : 10 * c + 10].sum(-1) / 10 for c in range(CLASSES)]
    return torch.stack(votes, -1).mean(0)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("static", [True, False])
def test_it_is_the_published_network(name: str, static: bool) -> None:
    net = tiny(name)
    p = {n: v.detach().clone().requires_grad_() for n, v in net.named_parameters()}
    ours = {
        n.removesuffix(".norm"): m for n, m in net.named_modules() if isinstance(m, StepBatchNorm2d)
    }
    norms = {n: nn.BatchNorm2d(m.channels).double() for n, m in ours.items()}
    for place, norm in norms.items():
        norm.weight = nn.Parameter(p[f"{place}.norm.weight"].detach())
        norm.bias = nn.Parameter(p[f"{place}.norm.bias"].detach())
    size = (BATCH, 2, SIZE[name], SIZE[name])
    x = normal(*size) if static else normal(STEPS, *size)
    upstream = normal(BATCH, CLASSES, name="upstream")

    with membrane_stats(net) as stats:
        rates = net(x)
    assert min(entry.firing_rate.item() for entry in stats) > 0
    expected = literal(name, p, norms, x)
    # Rates are tenths of thirds: a spike that rounding moved would show as 1/30.
    torch.testing.assert_close(rates, expected, rtol=0, atol=1e-14)
    rates.backward(upstream)
    expected.backward(upstream)
    found = dict(net.named_parameters())
    for key in p:
        place, _, kind = key.rpartition(".norm.")
        want = getattr(norms[place], kind).grad if place else p[key].grad
        got = found[key].grad
        assert got is not None
        assert want is not None
        assert want.abs().max() > 0, key
        # Sums over a thousand places and all steps, through up to eight layers.
        bound = 1e-11 * (1 + want.abs().max().item())
        torch.testing.assert_close(got, want, rtol=0, atol=bound)
    for place, norm in norms.items():
        for key in ("running_mean", "running_var"):
            got, want = getattr(ours[place], key), getattr(norm, key)
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", STAGES)
def test_it_folds_exactly(name: str) -> None:
    net, x = tiny(name), normal(BATCH, 2, SIZE[name], SIZE[name])
    net(x)
    expected = net.eval()(x)
    folded = fold(net)
    assert not any(isinstance(m, StepBatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(x), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("name", "places"), [("plifnet", 1), ("plifnet-dvs", 2)])
def test_dropout_has_one_mask_for_all_steps(
    name: str, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    draw = Dropout.forward
    monkeypatch.setattr(Dropout, "forward", lambda self, x: seen.append(self) or draw(self, x))
    net = tiny(name, dropout=0.5)
    net(normal(BATCH, 2, SIZE[name], SIZE[name]))
    assert len(seen) == places
    assert all(drop.one_mask and drop.p == 0.5 for drop in seen)


@pytest.mark.parametrize("name", STAGES)
def test_its_parts_by_default(name: str) -> None:
    with torch.device("meta"):
        net = create(name)
    neurons = [m for m in net.modules() if isinstance(m, PLIF)]
    norms = [m for m in net.modules() if isinstance(m, StepBatchNorm2d)]
    convolutions = sum(STAGES[name])
    assert (len(neurons), len(norms)) == (convolutions + 2, convolutions)
    assert {"plifnet": 8, "plifnet-dvs": 20}[name] == net.T
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
    assert [(m.out_features, m.bias) for m in linear] == [(2048, None), (100, None)]
