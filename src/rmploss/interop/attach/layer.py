"""An attached layer: it runs in the place of a module's forward and records the membrane.

    u' = (u_pre - rest) / (2 (V_th - rest))            the unit of Eq. 8: threshold 1/2, rest 0

A neuron is linear between its spikes, so u' is the membrane of the same neuron, with the same
spikes, whose input current is divided by 2 (V_th - rest).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from rmploss.errors import Problem, UserError
from rmploss.ops import at_least_single
from rmploss.ops.lif.moments import membrane_moments
from rmploss.stats import MembraneStats, data_parallel, open_stats

ADDED = ("forward", "layer_name", "_replicate_for_data_parallel")
"""The attributes that an attached module has of its own."""


class Levels(NamedTuple):
    """Two potentials of a neuron, in the unit of its library; dimensionless.

    rest: to which the leak pulls the membrane.
    threshold: at which it fires.
    """

    rest: float | Tensor
    threshold: float | Tensor

    def unit(self) -> float | Tensor:
        """2 (V_th - rest): the potential, above rest, that is 1 in Eq. 8."""
        return 2 * (self.threshold - self.rest)

    def relative(self, u: Tensor) -> Tensor:
        """u', a membrane in the unit of Eq. 8, of the shape of u."""
        above = u if isinstance(self.rest, float) and self.rest == 0 else u - self.rest
        return above / self.unit()

    def problems(self, rest: str, threshold: str) -> list[Problem]:
        """A threshold that does not lie above rest; the names are those of the fields."""
        if bool(torch.as_tensor(self.threshold > self.rest).all()):
            return []
        what = f"must lie above {rest} = {shown(self.rest)}"
        return [Problem(f"{threshold} = {shown(self.threshold)}", what)]


class ForeignLayer:
    """A spiking layer of another library, attached: `module.forward` is this object.

    A subclass says where its library has the membrane before the reset: it defines `levels` and
    `observe`, and `slow` and `run_fast` if the neuron of this package can run in its place.

    module: the layer.
    """

    unregularized: ClassVar[str | None] = None
    v_threshold = 0.5
    place = ""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module
        self.is_allowed = False
        self.replaced: dict[str, Any] = {}

    def levels(self) -> Levels:
        """Rest and threshold of the module as it is now."""
        raise NotImplementedError

    def observe(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns; calls `see` once for every time step."""
        raise NotImplementedError

    def slow(self) -> str:
        """Why the neuron of this package cannot run in its place, with the field; "": it can."""
        raise NotImplementedError

    def run_fast(self, x: Tensor, stats: MembraneStats | None) -> Tensor:
        """What the module returns, from the neuron of this package."""
        raise NotImplementedError

    def reason(self) -> str:
        """Why the layer is observed; "" if the neuron of this package runs in its place."""
        return self.slow() or ("" if self.is_allowed else "attach(net, fast=False)")

    @property
    def layer_name(self) -> str:
        """The name of the layer in its network, which `membrane_stats(net)` sets."""
        return self.module.layer_name

    @property
    def training(self) -> bool:
        """Whether the module is in training mode."""
        return self.module.training

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns; its moments go into an open `membrane_stats`."""
        stats = open_stats()
        if len(args) == 1 and not kwargs and self._is_fast(args[0]):
            return self.run_fast(args[0], stats)
        if stats is None:
            return self.inner(*args, **kwargs)
        self.steps = 0
        out = self.observe(*args, **kwargs)
        if not self.steps:
            problem = Problem(self.layer_name, "ran without showing its membrane")
            raise UserError(f"{type(self.module).__name__} cannot be observed", [problem])
        return out

    def _is_fast(self, x: Any) -> bool:
        if not self.is_allowed or not isinstance(x, Tensor) or x.ndim < 3 or not x.numel():
            return False
        return x.dtype in (torch.float32, torch.float64) and not self.slow()

    def inner(self, *args: Any, **kwargs: Any) -> Any:
        """The forward of the module itself."""
        forward = self.replaced.get("forward")
        if forward is not None:
            return forward(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)

    def see(self, u: Tensor, spikes: Tensor) -> None:
        """Record one time step, differentiably.

        u: the membrane before the reset `[B, C, ...]`, in the unit of the library; `[B]` is one
            channel.
        spikes: same shape.
        """
        stats = open_stats()
        assert stats is not None
        if stats.spec.potential != "u_pre":
            what = f'has no potential = "{stats.spec.potential}": its membrane alone is observed'
            raise UserError("no such moments", [Problem(self.layer_name, what, '"u_pre"')])
        self.steps += 1
        u = self.levels().relative(at_least_single(u))
        spikes = spikes.to(u.dtype)
        if u.ndim == 1:
            u, spikes = u.unsqueeze(1), spikes.unsqueeze(1)
        moments = membrane_moments(u, spikes, spikes, stats.spec)
        if stats.spec.per_step:
            moments = moments.unsqueeze(0)
        stats.extend(self, moments, u.numel() // u.shape[1])

    def install(self, name: str, fast: bool) -> None:
        """Put this object in the place of the module's forward, or of an earlier one like it.

        name: of the module in its network.
        fast: whether the neuron of this package may run.
        """
        own = vars(self.module)
        if isinstance(own.get("forward"), ForeignLayer):
            own["forward"].remove()
        self.is_allowed = fast
        self.replaced = {key: own[key] for key in ADDED if key in own}
        own["forward"], own["layer_name"] = self, name
        own["_replicate_for_data_parallel"] = refuse_replicas

    def remove(self) -> None:
        """Give the module its own forward back. `UserError` if another one has been put over it."""
        own = vars(self.module)
        current = own.get("forward")
        if current is None or (current is not self and isinstance(current, ForeignLayer)):
            return  # detached before, or attached anew
        if current is not self:
            what, fix = "was replaced after attach", "take that away first, then detach()"
            raise UserError("cannot detach", [Problem(f"{self.layer_name}.forward", what, fix)])
        for key in ADDED:
            del own[key]
        own.update(self.replaced)


def refuse_replicas() -> NoReturn:
    """Raise the error for `torch.nn.DataParallel`."""
    raise data_parallel()


@contextmanager
def replaced(module: nn.Module, name: str, value: Any) -> Iterator[None]:
    """Give a module another attribute inside the block, and its own one back afterwards."""
    own = vars(module)
    had = name in own
    before = own.get(name)
    own[name] = value
    try:
        yield
    finally:
        if had:
            own[name] = before
        else:
            del own[name]


def library_class(module: nn.Module, package: str) -> type:
    """The first class of a library that a module is of: its own, or that it is derived from."""
    return next(
        kind for kind in type(module).__mro__ if kind.__module__.partition(".")[0] == package
    )


def shown(value: Any) -> str:
    """A constant in a message: a tensor of one value as a number."""
    if isinstance(value, Tensor):
        return (
            f"{value.detach().item():.6g}"
            if value.numel() == 1
            else f"a tensor {list(value.shape)}"
        )
    return repr(value) if isinstance(value, float | int | str | bool | None) else name_of(value)


def name_of(value: Any) -> str:
    """The name of a function or class, or of an object's class."""
    return getattr(value, "__name__", type(value).__name__)
