"""RMP-Loss of tensors that anybody's neuron gave (Eqs. 8-10): for any library and own loops.

    q(u)  = |o - u / (2 V_th)|^p                    (8, 9), in the unit in which V_th is 1/2
    L_RMP = mean of q(u) over all elements          (10), of one layer

A neuron of threshold V_th computes what one of threshold 1/2 computes whose input current is
divided by 2 V_th: the same spikes, and a membrane u / (2 V_th). Eq. 8 is written for the latter.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rmploss.arguments import checked, collect
from rmploss.errors import Problem, UserError
from rmploss.ops import at_least_single
from rmploss.ops.lif.moments import MomentSpec, distance

ADVICE = {
    "threshold": "v_threshold=1.0",
    "v_th": "v_threshold=1.0",
    "k": "k * rmp_loss(...): the weight lambda(n) is not part of it; RMPLoss has it",
    "": "only u_pre and spikes have a place, the others names: p=..., v_threshold=...",
}
"""What to type instead of arguments that are often wrong."""


@checked(**ADVICE)
def rmp_loss(
    u_pre: Tensor | Sequence[Tensor],
    spikes: Tensor | Sequence[Tensor],
    *,
    p: float = 2.0,
    v_threshold: float | Tensor = 0.5,
    detach_target: bool = True,
) -> Tensor:
    """L_RMP of one layer (Eqs. 8-10), a scalar: the mean of |o - u|^p over time, batch and space.

    u_pre: the membrane before the reset, any shape, usually `[T, B, C, ...]`; or a list of steps,
        each `[B, C, ...]`. Its gradient, through time too, is that of the tensors given.
    spikes: the spikes of these membranes, 0 and 1, of the same shape or a list of as many steps.
    p: exponent of Eq. 9, positive.
    v_threshold: V_th, where the neuron fires, in the unit of u_pre: a positive number, or a tensor
        that broadcasts with one step (a learnt threshold gets its gradient).
    detach_target: see `MomentSpec`.

    All values are dimensionless. Of several layers the paper takes the mean. Raises `UserError`
    for shapes and types that do not fit, and for a u_pre without gradient where gradients are
    enabled: the term would train nothing. To look only: inside `torch.no_grad()`.
    """
    problems: list[Problem] = []
    collect(problems, lambda: MomentSpec(p=p))
    if not isinstance(v_threshold, Tensor) and not 0 < v_threshold < float("inf"):
        problems.append(Problem(f"v_threshold = {v_threshold!r}", "must be positive", "0.5"))
    u = collect(problems, lambda: _stacked("u_pre", u_pre))
    o = collect(problems, lambda: _stacked("spikes", spikes))
    if u is not None and o is not None and u.shape != o.shape:
        what = f"has shape {list(o.shape)}, u_pre {list(u.shape)}"
        problems.append(Problem("spikes", what, "the spikes of these very membranes"))
    if u is not None and isinstance(v_threshold, Tensor) and not _fits(v_threshold, u):
        what = f"is {v_threshold.dtype} {list(v_threshold.shape)}: no number per neuron of a step"
        problems.append(Problem("v_threshold", what, "a number, or [C, 1, 1]"))
    if u is not None and torch.is_grad_enabled() and not u.requires_grad:
        what = "has no gradient: it was detached, or made in torch.no_grad()"
        problems.append(Problem("u_pre", what, "the membrane itself; to look: torch.no_grad()"))
    if problems or u is None or o is None:
        raise UserError("no RMP-Loss of these tensors", problems)
    target = o.detach() if detach_target else o
    return distance(target.to(u.dtype), u / (2 * v_threshold), p).mean()


def _fits(v_threshold: Tensor, u: Tensor) -> bool:
    """True for real numbers that broadcast with u and do not widen it."""
    shapes = zip(reversed(v_threshold.shape), reversed(u.shape), strict=False)
    return (
        v_threshold.is_floating_point()
        and v_threshold.layout is torch.strided
        and v_threshold.ndim <= u.ndim
        and all(own in (1, other) for own, other in shapes)
    )


def _stacked(name: str, given: Tensor | Sequence[Tensor]) -> Tensor:
    """A tensor, or the steps of a list as one, float32 at least; `UserError` if it is neither."""
    steps = list(given) if isinstance(given, Sequence) else [given]
    fix = "a tensor [T, B, C, ...], or a list of steps [B, C, ...]"
    if not steps or not all(isinstance(step, Tensor) for step in steps):
        raise UserError("", [Problem(name, "is no tensor, and no list of tensors", fix)])
    shapes = {tuple(step.shape) for step in steps}
    if len(shapes) > 1:
        what = f"has steps of several shapes: {', '.join(map(str, sorted(shapes)))}"
        raise UserError("", [Problem(name, what, fix)])
    x = given if isinstance(given, Tensor) else torch.stack(steps)
    if not x.is_floating_point() or not x.numel() or x.layout is not torch.strided:
        what = f"is {x.dtype} {list(x.shape)}: no dense floating-point numbers, or none at all"
        raise UserError("", [Problem(name, what, f"{name}.float()")])
    return at_least_single(x)
