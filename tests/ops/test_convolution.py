"""`spike_conv2d` on the CPU equals the convolution: event-driven, Winograd and dense.

Bounds are those of the arithmetic: a sum of n float32 products errs by at most n eps times the sum
of their sizes; Winograd's transforms are bounded by themselves with every sign made positive.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss import ops
from rmploss.conv import SpikeConv2d
from rmploss.errors import UserError
from rmploss.ops import backends, native
from rmploss.ops.spike_conv2d import native as kernels
from rmploss.ops.spike_conv2d import passes
from rmploss.ops.spikes.native import pack_rows
from tests.given import normal

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
EPS = torch.finfo(torch.float32).eps

SHAPES = {
    # N, C, C', H, W, kernel, stride, padding
    "paper's 3x3": (3, 64, 64, 8, 8, 3, 1, 1),
    "odd channels": (2, 70, 33, 5, 7, 3, 1, 1),
    "more than two words": (2, 130, 20, 4, 4, 3, 1, 1),
    "stride 2": (2, 64, 70, 9, 8, 3, 2, 1),
    "1x1": (2, 20, 130, 6, 5, 1, 1, 0),
    "1x1, stride 2": (2, 20, 13, 7, 7, 1, 2, 0),
    "5x5, stride 2": (2, 9, 12, 6, 6, 5, 2, 2),
    "2x2 map": (3, 128, 96, 2, 2, 3, 1, 1),
    "1x1 map": (5, 12, 12, 1, 1, 3, 1, 1),
    "few channels": (2, 3, 16, 8, 8, 3, 1, 1),
    "no padding": (2, 16, 16, 5, 5, 3, 1, 0),
    "one row": (2, 16, 16, 1, 9, 3, 1, 1),
    "many pixels": (2, 16, 17, 40, 33, 3, 1, 1),
    "7x7 stem": (1, 8, 16, 15, 15, 7, 2, 3),
    "two groups": (1, 261, 293, 4, 3, 3, 1, 1),
}


def numbers(shape: tuple[int, ...], kind: str) -> Tensor:
    """An input: spikes of some density, their averages, or real numbers."""
    N, C, _, H, W, *_ = shape
    x = normal(N, C, H, W, name=kind).float()
    if kind == "real":
        return x
    if kind == "averages":
        return (x > 0.7).float() / 4 + (x > 1.2).float() / 2
    share = {"silent": 9.0, "sparse": 1.0, "dense": -1.0, "full": -9.0}[kind]
    return (x > share).float()


CHOICES = {
    "as it chooses": {},
    "event-driven": {"EVENT_DENSITY": 2.0, "EVENT_OUTPUTS": 0},
    "winograd": {"EVENT_DENSITY": -1.0, "WINOGRAD_CHANNELS": {2: 0, 4: 0}, "WINOGRAD_TILES": 0},
}
"""What decides which kernel runs: small shapes would otherwise never meet most of them."""


@pytest.fixture(params=CHOICES.values(), ids=list(CHOICES))
def choice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel on every shape."""
    for name, value in request.param.items():
        monkeypatch.setattr(kernels, name, value)


@pytest.mark.usefixtures("choice")
@pytest.mark.parametrize("kind", ["silent", "sparse", "dense", "full", "averages", "real"])
@pytest.mark.parametrize("name", SHAPES)
def test_it_is_the_convolution(instruction_set: str, name: str, kind: str) -> None:
    shape = SHAPES[name]
    N, C, out, _, _, k, stride, padding = shape
    x = numbers(shape, kind)
    if kind in ("sparse", "real"):  # and another layout of memory
        x = x.contiguous(memory_format=torch.channels_last)
    w, b = normal(out, C, k, k, name="w").float(), normal(out, name="b").float()
    leaves = [x.requires_grad_(), w.requires_grad_(), b.requires_grad_()]
    y = ops.spike_conv2d(x, w, b, stride=stride, padding=padding, backend="cpu")
    exact_leaves = [t.detach().double().requires_grad_() for t in leaves]
    exact = F.conv2d(*exact_leaves, stride=stride, padding=padding)
    g = normal(*y.shape, name="g")
    g_x, g_w, g_b = torch.autograd.grad((y * g.float()).sum(), leaves)
    e_x, e_w, e_b = torch.autograd.grad((exact * g.float().double()).sum(), exact_leaves)

    ax, aw, ag = x.detach().double().abs(), w.detach().double().abs(), g.abs()
    size = F.conv2d(ax, aw, b.detach().double().abs(), stride, padding)
    bound = (C * k * k + 1) * EPS * size
    if (k, stride, padding) == (3, 1, 1):
        bound = bound + winograd_bound(ax, aw.transpose(0, 1).flip(2, 3), 2)
    assert_within(y, exact, bound)
    by_x, by_w, _ = torch.ops.aten.convolution_backward(
        ag, ax, aw, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [True, True, False]
    )
    pixels = N * y.shape[2] * y.shape[3]
    assert_within(g_w, e_w, pixels * EPS * by_w)
    assert_within(g_b, e_b, pixels * EPS * ag.sum((0, 2, 3)))
    bound = (out * k * k) * EPS * by_x
    if (k, stride, padding) == (3, 1, 1):
        bound = bound + winograd_bound(ag, aw, 4 if min(g.shape[2:]) >= 4 else 2)
    assert_within(g_x, e_x, bound)


def assert_within(value: Tensor, exact: Tensor, bound: Tensor) -> None:
    """Every element within its own bound."""
    error = (value.detach().double() - exact.detach()).abs()
    assert torch.all(error <= bound + 1e-30), float((error - bound).max())


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("kind", ["sparse", "full", "averages", "real"])
def test_forward_errs_about_as_little_as_torch(instruction_set: str, kind: str, size: int) -> None:
    """Errors of forward decide about spikes: F(4x4), whose error is tenfold, is for gradients."""
    shape = (4, 64, 64, size, size, 3, 1, 1)
    x, w = numbers(shape, kind), normal(64, 64, 3, 3, name="w").float()
    exact = F.conv2d(x.double(), w.double(), padding=1)
    ours = ops.spike_conv2d(x, w, padding=1, backend="cpu").double() - exact
    torchs = F.conv2d(x, w, padding=1).double() - exact
    assert ours.abs().max() <= 4 * torchs.abs().max()


def test_a_gpu_packs_for_gradients_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: object) -> tuple[Tensor, Tensor]:
        raise AssertionError("a GPU has to wait")

    monkeypatch.setattr(backends, "choose", lambda *_: ("triton", "a test"))
    monkeypatch.setattr(passes, "pack", wait)
    x, w = torch.ones(1, 8, 4, 4), torch.ones(8, 8, 3, 3)
    with torch.no_grad():
        assert torch.equal(ops.spike_conv2d(x, w), F.conv2d(x, w))
    w.requires_grad_()
    assert torch.equal(ops.spike_conv2d(x, w, look=False), F.conv2d(x, w))
    with pytest.raises(AssertionError, match="wait"):
        ops.spike_conv2d(x, w)


TRANSFORMS = {
    2: (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (
        [
            [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}  # fmt: skip
"""B^T, G and A^T of F(m x m, 3 x 3) (Lavin and Gray 2016)."""


def winograd_bound(g: Tensor, w: Tensor, m: int) -> Tensor:
    """The rounding error of the input gradient, whatever the signs.

    (C' + 30) eps |A| (|G||w||G| |B||g||B|) |A|, with every matrix made positive.
    30: the additions of the three transforms, each twice (rows and columns).
    """
    B, G, A = (torch.tensor(t, dtype=torch.float64).abs() for t in TRANSFORMS[m])
    H, W = g.shape[2:]
    down, across = -(-H // m) * m, -(-W // m) * m
    d = F.pad(g, (1, across - W + 1, 1, down - H + 1)).unfold(2, m + 2, m).unfold(3, m + 2, m)
    U = torch.einsum("ai,ocij,bj->ocab", G, w.flip(2, 3), G)
    V = torch.einsum("ai,nohwij,bj->nohwab", B, d, B)
    Z = torch.einsum("ocab,nohwab->nchwab", U, V)
    y = torch.einsum("ia,nchwab,jb->nchiwj", A, Z, A)
    whole = y.reshape(y.shape[0], y.shape[1], down, across)[:, :, :H, :W]
    return (g.shape[1] + 30) * EPS * whole


@pytest.mark.parametrize("m", [2, 4])
def test_the_transforms_of_the_bound_compute_a_convolution(m: int) -> None:
    B, G, A = (torch.tensor(t, dtype=torch.float64) for t in TRANSFORMS[m])
    d, w = normal(m + 2, m + 2), normal(3, 3, name="w")
    y = A @ ((G @ w @ G.T) * (B @ d @ B.T)) @ A.T
    exact = F.conv2d(d.view(1, 1, m + 2, m + 2), w.view(1, 1, 3, 3))[0, 0]
    torch.testing.assert_close(y, exact, rtol=1e-12, atol=1e-12)


def test_a_spike_that_is_not_one_is_not_taken_for_one() -> None:
    x = (normal(2, 64, 4, 4) > 1).float()
    w = normal(32, 64, 3, 3).float()
    rows = x.movedim(1, -1).reshape(-1, 64)
    assert pack_rows(rows)[1] == int(x.sum())
    for value in (0.5, -1.0, 2.0, 1 + EPS, float("nan")):
        odd = x.clone()
        odd[1, 63, 3, 3] = value
        assert pack_rows(odd.movedim(1, -1).reshape(-1, 64))[1] == -1
        y = ops.spike_conv2d(odd, w, padding=1, backend="cpu")
        torch.testing.assert_close(
            y, F.conv2d(odd, w, padding=1), rtol=1e-4, atol=1e-4, equal_nan=True
        )


def test_a_module_like_any_other() -> None:
    conv = SpikeConv2d(16, 24, 3, padding=1, bias=False)
    plain = torch.nn.Conv2d(16, 24, 3, padding=1, bias=False)
    plain.load_state_dict(conv.state_dict())
    x = (normal(2, 16, 6, 6) > 1).float()
    torch.testing.assert_close(conv(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 2}, {"dilation": 2}, {"stride": (1, 2)}, {"padding": (0, 1)},
        {"padding": "same"}, {"padding_mode": "circular", "padding": 1},
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_kernel_runs_as_in_the_parent(options: dict[str, object]) -> None:
    conv = SpikeConv2d(16, 24, 3, **options)  # pyright: ignore[reportArgumentType]
    plain = torch.nn.Conv2d(16, 24, 3, **options)  # pyright: ignore[reportArgumentType]
    plain.load_state_dict(conv.state_dict())
    x = (normal(2, 16, 7, 6) > 1).float()
    torch.testing.assert_close(conv(x), plain(x), rtol=0, atol=0)


def test_the_type_is_autocasts_and_float64_is_torchs_own() -> None:
    x, w = (normal(2, 16, 4, 4) > 1).float(), normal(16, 16, 3, 3).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ops.spike_conv2d(x, w, padding=1).dtype == torch.bfloat16
    y = ops.spike_conv2d(x.double(), w.double(), padding=1)
    assert torch.equal(y, F.conv2d(x.double(), w.double(), padding=1))


def test_a_sequence_is_told_to_be_flattened() -> None:
    with pytest.raises(UserError, match=r"flatten\(0, 1\)"):
        SpikeConv2d(3, 4, 3)(torch.ones(2, 1, 3, 5, 5))
