"""An analog layer in the place of neurons: the ANN that a hybrid training starts from.

y(t) = max(0, x(t))        no membrane, no memory, no spikes
"""

from typing import ClassVar

from torch import Tensor

from rmploss.neurons.layer import SpikingLayer


class ReLU(SpikingLayer):
    """Rectified input current `[T, B, C, ...]`, every step by itself; dimensionless.

    Its potential, to look at, is x; so its quantization error is that of its negative part, and its
    firing rate the mean activation.
    """

    unregularized: ClassVar[str | None] = (
        "an analog layer has no spikes: there is no quantization error"
    )

    def integrate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """max(0, x), and x."""
        return x.relu(), x

    def fires(self, u: Tensor) -> Tensor:
        """max(0, u)."""
        return u.relu()
