"""Joint A-SNN's convolution: one pair of factors for the ANN and the SNN, singular values for each.

    K[i, j] = U[i, j] diag(sigma) V[i, j]        for every position (i, j) of a k x k kernel

U `[k k, C', r]`, sigma `[k k, r]`, V `[k k, r, C]` with r = min(C, C'). They start as the singular
value decomposition of an ordinary kernel and are free after that: nothing keeps U, V orthogonal.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rmploss import ops
from rmploss.conv import SpikeConv2d
from rmploss.errors import Problem, UserError


class Factors(nn.Module):
    """U and V of a kernel, and the singular values that a convolution starts with."""

    start: Tensor

    def __init__(self, weight: Tensor) -> None:
        """weight: the kernel `[C', C, k, k]`."""
        super().__init__()
        U, sigma, V = torch.linalg.svd(positions(weight.detach()), full_matrices=False)
        self.U, self.V = nn.Parameter(U.contiguous()), nn.Parameter(V.contiguous())
        self.register_buffer("start", sigma, persistent=False)

    def kernel(self, sigma: Tensor, size: tuple[int, int]) -> Tensor:
        """U diag(sigma) V as a kernel `[C', C, k, k]`; sigma: `[k k, r]`."""
        kernels = (self.U * sigma.unsqueeze(1)) @ self.V
        return kernels.permute(1, 2, 0).unflatten(-1, size)


def positions(weight: Tensor) -> Tensor:
    """A kernel `[C', C, k, k]` as a matrix `[C', C]` for each position, `[k k, C', C]`."""
    return weight.flatten(2).permute(2, 0, 1)


class FactorizedConv2d(nn.Module):
    """A convolution `[N, C, H, W]` with the kernel U diag(sigma) V.

    conv: the ordinary convolution in whose place it is put; factors: None for factors of its own,
    or those of another one, which this one then shares without owning: a parameter has one name.
    """

    def __init__(self, conv: nn.Conv2d, factors: Factors | None = None) -> None:
        super().__init__()
        _check(conv)
        self.own = Factors(conv.weight) if factors is None else None
        self._known = (self.own or factors,)  # in a tuple, so that it is no submodule
        self.sigma = nn.Parameter(self.factors.start.clone())
        self.bias = conv.bias
        (height, width), (stride, _) = conv.kernel_size, conv.stride
        self.kernel_size, self.stride, self.padding = (height, width), stride, conv.padding

    @property
    def factors(self) -> Factors:
        """U and V."""
        (factors,) = self._known
        assert factors is not None
        return factors

    @property
    def weight(self) -> Tensor:
        """The kernel `[C', C, k, k]`, differentiable."""
        return self.factors.kernel(self.sigma, self.kernel_size)

    def forward(self, input: Tensor | ops.Spikes) -> Tensor:
        """The convolution `[N, C', H', W']`; input: as in `SpikeConv2d`."""
        return ops.as_handed_out(self.convolve(input))

    def convolve(self, input: Tensor | ops.Spikes, look: bool = True) -> Tensor:
        """As in `SpikeConv2d`."""
        options: Any = {"stride": self.stride, "padding": int(self.padding[0]), "look": look}
        return ops.spike_conv2d(input, self.weight, self.bias, **options)

    def multiplied_out(self) -> SpikeConv2d:
        """The ordinary convolution with this kernel, exactly."""
        weight = self.weight.detach()
        conv = SpikeConv2d(
            weight.shape[1], weight.shape[0], self.kernel_size, stride=self.stride,
            padding=int(self.padding[0]), bias=self.bias is not None,
            device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        with torch.no_grad():
            conv.weight.copy_(weight)
            if self.bias is not None and conv.bias is not None:
                conv.bias.copy_(self.bias)
        return conv.train(self.training)


def _check(conv: nn.Conv2d) -> None:
    """Raise `UserError` for a convolution that `ops.spike_conv2d` does not compute."""
    wanted = {
        "stride": (conv.stride[0],) * 2,
        "padding": conv.padding if isinstance(conv.padding, str) else (conv.padding[0],) * 2,
        "dilation": (1, 1),
        "groups": 1,
        "padding_mode": "zeros",
    }
    problems = [
        Problem(f"{name} = {getattr(conv, name)!r}", "is not factorized", f"{name}={value!r}")
        for name, value in wanted.items()
        if getattr(conv, name) != value
    ]
    if isinstance(conv.padding, str):
        problems.append(Problem(f"padding = {conv.padding!r}", "is not factorized", "a number"))
    if problems:
        raise UserError("a convolution that is not factorized", problems)
