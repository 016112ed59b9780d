"""`Spikes`: the output of binary neurons, as bits and, when asked for, as numbers.

A neuron kernel writes the bits in the pass in which it fires. Convolutions and shortcuts read them,
forward and backward, and so do poolings of 2x2 squares, on the CPU only without gradient; a dropout
or a sum reads the numbers (`dense`). Where every reader takes bits, the numbers are never written.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from rmploss.errors import Problem, UserError
from rmploss.ops.backends import choose
from rmploss.ops.layout import as_handed_out
from rmploss.ops.spikes.op import pack, pool, unpack
from rmploss.ops.tracing import is_traced

GRADIENT = ("grad", "retain_grad", "register_hook", "grad_fn", "is_leaf")
"""Attributes about the gradient: that of the place in the graph is the sum over all readers."""
WATCHED = ("retain_grad", "register_hook")
"""Those that ask for the sum: from then on no reader has a place of its own."""

REFUSED = ("requires_grad_", "detach_", "data", "set_", "resize_")
"""Attributes that would reach the dense tensor and not the bits, or only a part of the gradient."""


class Spikes:
    """The spikes of a layer, `[T, B, C, ...]`, all of them 0 or 1; dimensionless.

    dense: the tensor of 0.0 and 1.0, differentiable; it is made when it is first asked for. A
        change of it in place drops the bits: from then on the value is what the tensor holds. (A
        change that PyTorch does not count, through `.data` or NumPy, is not noticed.)
    shape, dtype, device, ndim, requires_grad: those of the dense tensor.

    Used as a tensor (`spikes + x`, `spikes.mean()`, `torch.nn.functional.avg_pool2d(spikes, 2)`) it
    stands for its dense tensor.
    """

    def __init__(
        self,
        backend: str,
        edge: Tensor,
        bits: tuple[Tensor, Tensor] | None,
        shortcut: Tensor | None = None,
        means: Tensor | None = None,
        *,
        is_dense: bool,
    ) -> None:
        """A value from what the operation returned (`LIFOutputs`).

        backend: whose kernels pack and unpack.
        edge: the spikes' place in the graph of autograd.
        bits: the words `[T R, words]` and the number of spikes `[]`; None: packed when needed.
        shortcut, means: places of their own in the graph for a residual and for a pooling of 2x2
            squares (`lif.inputs.Places`); None: they read at the edge.
        is_dense: whether the edge holds the numbers, too.
        """
        self._backend = backend
        self._edge = edge
        self._bits = bits
        self._dense = edge if is_dense else None
        self._version = _version(edge) if is_dense else 0
        self._is_lent = False
        self._shortcut = shortcut
        self._means = means
        self._is_forked = False

    @staticmethod
    def found_in(x: Any) -> Any:
        """`Spikes` for a tensor `[T, B, C, ...]` of 0 and 1 alone, if looking is free; else x."""
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 3 or not x.numel():
            return x
        name, _ = choose("auto", x.device, x.dtype)
        if name != "cpu" or is_traced(x):
            return x
        bits = pack(name, x)
        if int(bits[1]) < 0:
            return x
        found = Spikes(name, x, bits, is_dense=True)
        found._is_lent = True  # the caller has x, and may change it
        return found

    def maximum(self, y: Tensor) -> "Spikes":
        """The value for y `[T, B, C, ...]`, whose elements are maxima of these spikes."""
        maxima = Spikes(self._backend, y, None, is_dense=True)
        maxima._is_lent = True
        return maxima

    @property
    def dense(self) -> Tensor:
        """The spikes as a tensor, which the caller may change in place."""
        self._is_lent = True
        return self.read()

    def read(self) -> Tensor:
        """The spikes as a tensor that is not changed in place."""
        if self._dense is None:
            assert self._bits is not None
            # With its place in the graph, whatever mode it is first asked for in.
            with torch.inference_mode(self._edge.is_inference()), torch.enable_grad():
                self._dense = as_handed_out(unpack(self._backend, self._bits[0], self._edge))
            self._version = _version(self._dense)
        return self._dense

    def as_bits(self) -> tuple[Tensor, Tensor | None]:
        """A place in the graph and the words `[T R, words]`; or the dense tensor and None.

        There are no bits (any more) if the dense tensor was, or may have been, changed in place;
        and without a gradient, numbers that are there need not be packed.
        """
        if self._bits is not None and not self._is_lent:
            if self._shortcut is None:
                return self._edge, self._bits[0]
            self._is_forked = True
            return self._shortcut, self._bits[0]
        if self._bits is None and self._dense is not None and not torch.is_grad_enabled():
            return self._dense, None
        bits = self.bits
        return (self.read(), None) if bits is None else (self._edge, bits[0])

    def pooled(self) -> Tensor | None:
        """The means over 2x2 squares `[T, B, C, H / 2, W / 2]`, of the bits.

        None where numbers are to be pooled: the bits have no place for it in the graph that they
        are in, or the dense tensor may have been changed in place.
        """
        if self._bits is None or self._is_lent or is_traced(self._edge):
            return None
        place = self._means
        if place is None:
            place = self._halved()
        else:
            self._is_forked = True
        return None if place is None else pool(self._backend, self._bits[0], place)

    def _halved(self) -> Tensor | None:
        """A tensor of the shape of the means, of spikes on a CPU that have no gradient."""
        edge, (*leading, H, W) = self._edge, self.shape
        fits = edge.ndim == 5 and H % 2 == W % 2 == 0 and self._backend == "cpu"
        if not fits or edge.requires_grad:
            return None
        return edge.new_empty(()).expand(*leading, H // 2, W // 2)

    @property
    def bits(self) -> tuple[Tensor, Tensor] | None:
        """The words `[T R, words]` and the number of spikes `[]`; None after a change in place."""
        if not self.is_unchanged:
            self._bits = None
            return None
        if self._bits is None:
            self._bits = pack(self._backend, self.read())
        return self._bits

    @property
    def is_unchanged(self) -> bool:
        """False if the dense tensor was, or may have been, changed in place."""
        dense = self._dense
        if dense is None or not self._is_lent:
            return True
        if is_traced(dense) or dense.is_inference():  # no version counts the changes
            return False
        return dense._version == self._version

    @property
    def is_dense(self) -> bool:
        """True if the edge holds the numbers."""
        return self._dense is self._edge

    @property
    def edge(self) -> Tensor:
        """A tensor of the spikes' shape and place in the graph; its numbers need not be there."""
        return self._edge

    @property
    def shape(self) -> torch.Size:
        """The shape of the dense tensor, `[T, B, C, ...]`."""
        return self._edge.shape

    @property
    def dtype(self) -> torch.dtype:
        """The type of the dense tensor."""
        return self._edge.dtype

    @property
    def device(self) -> torch.device:
        """The device of the spikes."""
        return self._edge.device

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self._edge.ndim

    @property
    def requires_grad(self) -> bool:
        """True if the spikes have a gradient."""
        return self._edge.requires_grad

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in REFUSED:
            raise AttributeError(f"Spikes have no {name}: take spikes.dense")
        if name in WATCHED:
            self._join(name)
        return getattr(self._edge if name in GRADIENT else self.dense, name)

    def _join(self, name: str) -> None:
        """Have everything read at the edge from now on, as the sum of gradients is asked for."""
        if self._is_forked:
            problem = Problem(f"spikes.{name}", "comes after a shortcut or a pooling", "ask before")
            raise UserError("their gradients no longer meet at one place", [problem])
        self._shortcut = self._means = None

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map(dense_of, (args, kwargs or {}))
        return function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Spikes(shape={list(self.shape)}, dtype={self.dtype}, device={self.device})"

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "grad":
            self._edge.grad = value
        elif name.startswith("_"):
            super().__setattr__(name, value)
        else:
            raise AttributeError(f"Spikes have no {name} to set: set it on spikes.dense")

    def __bool__(self) -> bool:
        return bool(self.dense)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.dense[index] = dense_of(value)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        return self.dense[index]

    def __eq__(self, other: object) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.dense == dense_of(other)

    def __ne__(self, other: object) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.dense != dense_of(other)

    __hash__ = object.__hash__

    def __gt__(self, other: Any) -> Tensor:
        return self.dense > dense_of(other)

    def __lt__(self, other: Any) -> Tensor:
        return self.dense < dense_of(other)

    def __ge__(self, other: Any) -> Tensor:
        return self.dense >= dense_of(other)

    def __le__(self, other: Any) -> Tensor:
        return self.dense <= dense_of(other)

    def __pow__(self, other: Any) -> Tensor:
        return self.dense ** dense_of(other)

    def __abs__(self) -> Tensor:
        return self.dense.abs()

    def __matmul__(self, other: Any) -> Tensor:
        return self.dense @ dense_of(other)

    def __neg__(self) -> Tensor:
        return -self.dense

    def __add__(self, other: Any) -> Tensor:
        return self.dense + dense_of(other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Tensor:
        return self.dense * dense_of(other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Tensor:
        return self.dense - dense_of(other)

    def __rsub__(self, other: Any) -> Tensor:
        return dense_of(other) - self.dense

    def __truediv__(self, other: Any) -> Tensor:
        return self.dense / dense_of(other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return dense_of(other) / self.dense


def dense_of(x: Any) -> Any:
    """The dense tensor of `Spikes`; anything else as it is."""
    return x.dense if isinstance(x, Spikes) else x


def _version(x: Tensor) -> int:
    """How often x was changed in place; 0 where nothing counts it."""
    return 0 if is_traced(x) or x.is_inference() else x._version
