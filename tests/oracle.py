"""A whole training step in NumPy, forward and backward by hand: the oracle of the torch modules.

    image, T times -> conv3x3 - tdBN - LIF
    -> conv3x3 - tdBN - LIF - conv3x3 - tdBN, plus the shortcut, - LIF
    -> mean over space -> linear -> sum over time (Eq. 4) -> cross-entropy + weight L_RMP (Eq. 11)

The shortcut is the identity, a strided 1x1 convolution with tdBN, or average pooling before an
unstrided one. Nothing is shared with the package and nothing is optimized: the image is repeated T
times at the input. Everything is float64; sequences are `[T, B, C, H, W]`.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tests import lif_oracle
from tests.lif_oracle import Array, Neuron

EPS = 1e-5
MOMENTUM = 0.1
SPACE = (3, 4)
ALL_BUT_CHANNELS = (0, 1, 3, 4)

Shortcut = Literal["identity", "strided", "pooled"]
Parameters = dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """What the step depends on besides parameters and data; weight: lambda(n) of Eq. 11."""

    T: int
    neuron: Neuron
    weight: float
    shortcut: Shortcut
    alpha: float = 1.0


@dataclass
class Step:
    """The results of one step: losses, logits `[B, K]`, gradients and new running statistics."""

    loss: float = 0.0
    cross_entropy: float = 0.0
    rmp: float = 0.0
    logits: Array = field(default_factory=lambda: np.zeros(0))
    gradients: Parameters = field(default_factory=dict)
    buffers: Parameters = field(default_factory=dict)


def conv(x: Array, w: Array, stride: int) -> Array:
    """Eq. of a zero-padded convolution: sum over kernel positions and input channels."""
    return sum(
        (
            np.einsum("tbchw,oc->tbohw", patch, w[:, :, i, j])
            for (i, j), patch in _patches(_padded(x, w), w, stride).items()
        ),
        start=np.zeros(()),
    )


def conv_backward(g: Array, x: Array, w: Array, stride: int) -> tuple[Array, Array]:
    """dL/dx and dL/dw."""
    padded, g_w = _padded(x, w), np.zeros_like(w)
    g_padded = np.zeros_like(padded)
    g_patches = _patches(g_padded, w, stride)
    for (i, j), patch in _patches(padded, w, stride).items():
        g_w[:, :, i, j] = np.einsum("tbohw,tbchw->oc", g, patch)
        g_patches[i, j] += np.einsum("tbohw,oc->tbchw", g, w[:, :, i, j])
    pad = w.shape[-1] // 2
    inner = slice(pad, -pad or None)
    return g_padded[..., inner, inner], g_w


def _padded(x: Array, w: Array) -> Array:
    pad = w.shape[-1] // 2
    return np.pad(x, [(0, 0)] * 3 + [(pad, pad)] * 2)


def _patches(padded: Array, w: Array, stride: int) -> dict[tuple[int, int], Array]:
    """Views of what each position of the kernel sees."""
    k = w.shape[-1]
    h, v = (size - k + 1 for size in padded.shape[-2:])
    return {
        (i, j): padded[..., i : i + h : stride, j : j + v : stride]
        for i in range(k)
        for j in range(k)
    }


def norm(x: Array, gain: Array, bias: Array, factor: float) -> tuple[Array, Array, Array]:
    """Eqs. 6-7: y, and x_hat and 1 / sqrt(var + eps) for the way back."""
    mean = x.mean(ALL_BUT_CHANNELS, keepdims=True)
    root = 1 / np.sqrt(((x - mean) ** 2).mean(ALL_BUT_CHANNELS, keepdims=True) + EPS)
    x_hat = (x - mean) * root
    return _spread(gain) * factor * x_hat + _spread(bias), x_hat, root


def norm_backward(
    g: Array, x_hat: Array, root: Array, gain: Array, factor: float
) -> tuple[Array, Array, Array]:
    """dL/dx, dL/dgain and dL/dbias."""
    g_hat = g * _spread(gain) * factor
    mean = g_hat.mean(ALL_BUT_CHANNELS, keepdims=True)
    along = (g_hat * x_hat).mean(ALL_BUT_CHANNELS, keepdims=True)
    g_gain = (g * factor * x_hat).sum(ALL_BUT_CHANNELS)
    return root * (g_hat - mean - x_hat * along), g_gain, g.sum(ALL_BUT_CHANNELS)


def _spread(per_channel: Array) -> Array:
    return per_channel.reshape(1, 1, -1, 1, 1)


@dataclass
class ConvNorm:
    """Convolution and tdBN under one name, with what its backward needs."""

    name: str
    stride: int
    options: StepOptions
    parameters: Parameters
    step: Step

    def forward(self, x: Array) -> Array:
        self.x = x
        y = conv(x, self._take("conv.weight"), self.stride)
        out, self.x_hat, self.root = norm(
            y, self._take("norm.weight"), self._take("norm.bias"), self._factor()
        )
        for kind, start, value in (
            ("mean", 0, y.mean(ALL_BUT_CHANNELS)),
            ("var", 1, y.var(ALL_BUT_CHANNELS, ddof=1)),
        ):
            running = (1 - MOMENTUM) * start + MOMENTUM * value
            self.step.buffers[f"{self.name}.norm.running_{kind}"] = running
        return out

    def backward(self, g: Array) -> Array:
        g_y, g_gain, g_bias = norm_backward(
            g, self.x_hat, self.root, self._take("norm.weight"), self._factor()
        )
        g_x, g_w = conv_backward(g_y, self.x, self._take("conv.weight"), self.stride)
        for part, value in (("conv.weight", g_w), ("norm.weight", g_gain), ("norm.bias", g_bias)):
            self.step.gradients[f"{self.name}.{part}"] = value
        return g_x

    def _take(self, part: str) -> Array:
        return self.parameters[f"{self.name}.{part}"]

    def _factor(self) -> float:
        return self.options.alpha * self.options.neuron.v_threshold


@dataclass
class Spiking:
    """A layer of neurons; `share` is dL/d(mean of q over this layer)."""

    neuron: Neuron
    share: float

    def forward(self, x: Array) -> Array:
        rest = np.full(x.shape[1:], self.neuron.v_reset or 0.0)
        self.trace = lif_oracle.forward(x, rest, self.neuron)
        self.error = float(self.trace.moments[2].sum()) / x.size
        return self.trace.o

    def backward(self, g: Array) -> Array:
        g_moments = np.zeros_like(self.trace.moments)
        g_moments[2] = self.share / g.size
        last = np.zeros(g.shape[1:])
        return lif_oracle.backward(self.trace, self.neuron, g, g_moments, last)[0]


def pool(x: Array) -> Array:
    """The mean of every 2x2 window."""
    t, b, c, h, w = x.shape
    return x.reshape(t, b, c, h // 2, 2, w // 2, 2).mean((4, 6))


def training_step(
    parameters: Parameters, images: Array, labels: Array, options: StepOptions
) -> Step:
    """One forward and backward from fresh running statistics; images `[B, C, H, W]`."""
    step = Step()
    stride = 1 if options.shortcut == "identity" else 2
    share = options.weight / 3

    def layer(name: str, stride: int = 1) -> ConvNorm:
        return ConvNorm(name, stride, options, parameters, step)

    stem, inner, outer = layer("conv1"), layer("block.conv1", stride), layer("block.conv2")
    lif, lif1, lif2 = (Spiking(options.neuron, share) for _ in range(3))
    strided = layer("block.shortcut", stride)
    pooled = layer("block.shortcut.1")

    s = lif.forward(stem.forward(np.stack([images] * options.T)))
    current = outer.forward(lif1.forward(inner.forward(s)))
    if options.shortcut == "identity":
        current = current + s
    elif options.shortcut == "strided":
        current = current + strided.forward(s)
    else:
        current = current + pooled.forward(pool(s))
    out = lif2.forward(current)

    features = out.mean(SPACE)
    w, bias = parameters["head.layer.weight"], parameters["head.layer.bias"]
    step.logits = (features @ w.T + bias).sum(0)
    shifted = step.logits - step.logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    step.cross_entropy = float(-log_p[rows, labels].mean())
    step.rmp = (lif.error + lif1.error + lif2.error) / 3
    step.loss = step.cross_entropy + options.weight * step.rmp

    g_logits = np.exp(log_p)
    g_logits[rows, labels] -= 1
    g_logits /= len(labels)
    step.gradients["head.layer.weight"] = np.einsum("bk,tbc->kc", g_logits, features)
    step.gradients["head.layer.bias"] = options.T * g_logits.sum(0)
    g_out = np.broadcast_to((g_logits @ w)[None, :, :, None, None], out.shape)
    g_out = g_out / (out.shape[3] * out.shape[4])
    g_current = lif2.backward(g_out)
    g_s = inner.backward(lif1.backward(outer.backward(g_current)))
    if options.shortcut == "identity":
        g_s = g_s + g_current
    elif options.shortcut == "strided":
        g_s = g_s + strided.backward(g_current)
    else:
        spread = pooled.backward(g_current).repeat(2, axis=3).repeat(2, axis=4)
        g_s = g_s + spread / 4
    stem.backward(lif.backward(g_s))
    return step
