"""The state of an optimizer by parameter name: tensors, and numbers for a JSON manifest.

PyTorch's state dict numbers the parameters in their order of registration, so that it silently
assigns a momentum buffer to the wrong weight once a layer is added. Names prevent that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rmploss.errors import CheckpointError, Problem, UserError


@dataclass(frozen=True)
class OptimizerState:
    """The state of an optimizer.

    tensors: "<parameter>/<key>" -> tensor, for example "conv1.weight/momentum_buffer".
    numbers: the same for numbers; JSON.
    groups: the hyperparameters of each parameter group, with the names of its parameters under
        "params"; JSON.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    groups: tuple[Mapping[str, Any], ...] = ()


def optimizer_state(optimizer: Optimizer, model: nn.Module) -> OptimizerState:
    """The state of `optimizer` for the parameters of `model`; tensors are not copied.

    Raises `UserError` if the optimizer holds parameters that are not the model's, or state other
    than tensors and numbers (L-BFGS keeps lists).
    """
    names = _names(optimizer, model)
    state = {
        f"{names[parameter]}/{key}": value
        for parameter, memory in optimizer.state.items()
        for key, value in memory.items()
    }
    problems = [
        Problem(name, f"is a {type(value).__name__}", "only tensors and numbers can be resumed")
        for name, value in state.items()
        if not isinstance(value, Tensor | bool | int | float)
    ]
    if problems:
        raise UserError(f"{type(optimizer).__name__} cannot be saved", problems)
    return OptimizerState(
        {name: value for name, value in state.items() if isinstance(value, Tensor)},
        {name: value for name, value in state.items() if not isinstance(value, Tensor)},
        tuple(
            {key: _as_json(value) for key, value in group.items() if key not in _OWN_NAMES}
            | {"params": [names[parameter] for parameter in group["params"]]}
            for group in optimizer.param_groups
        ),
    )


def restore_optimizer(optimizer: Optimizer, model: nn.Module, state: OptimizerState) -> None:
    """Set the state and the hyperparameters of `optimizer`, bit for bit.

    optimizer: over the parameters of `model`; its tensors stay on their devices.
    state: from `optimizer_state`.

    Raises `CheckpointError` if the groups of `state` have other parameters.
    """
    names = _names(optimizer, model)
    groups = optimizer.param_groups
    ours = [[names[parameter] for parameter in group["params"]] for group in groups]
    _check_same(ours, [group["params"] for group in state.groups])
    number = {name: index for index, name in enumerate(name for group in ours for name in group)}

    memory: dict[int, dict[str, Any]] = {}
    for name, value in (*state.tensors.items(), *state.numbers.items()):
        parameter, _, key = name.rpartition("/")
        memory.setdefault(number[parameter], {})[key] = value
    saved_groups = [
        {key: _like(group.get(key), value) for key, value in saved.items()}
        | {key: group[key] for key in (*_OWN_NAMES, *_KERNELS) if key in group}
        | {"params": [number[name] for name in members]}
        for group, saved, members in zip(groups, state.groups, ours, strict=True)
    ]
    optimizer.load_state_dict({"state": memory, "param_groups": saved_groups})
    _undo_casts(optimizer, names, state.tensors)


# Keys of a group with parameters or, in some optimizers, their names; we save the model's names.
_OWN_NAMES = ("params", "param_names")
# Keys that choose among PyTorch's kernels of one update: those of this version, not the saved ones.
_KERNELS = ("fused", "foreach", "capturable", "differentiable")


def _names(optimizer: Optimizer, model: nn.Module) -> dict[Tensor, str]:
    """The optimizer's parameters in its order, with their names in the model."""
    known = {parameter: name for name, parameter in model.named_parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    problems = [
        Problem(f"parameter {index}", f"of shape {list(parameter.shape)} is not the model's")
        for index, parameter in enumerate(held)
        if parameter not in known
    ]
    if problems:
        raise UserError("the optimizer has parameters of another model", problems)
    return {parameter: known[parameter] for parameter in held}


def _check_same(ours: list[list[str]], saved: list[list[str]]) -> None:
    """Raise `CheckpointError` if groups differ in their parameters; their order may differ."""
    here, there = (
        {(index, name) for index, group in enumerate(groups) for name in group}
        for groups in (ours, saved)
    )
    problems = [
        Problem(name, f"is in group {index} of the {where} only")
        for where, only in (("optimizer", here - there), ("checkpoint", there - here))
        for index, name in sorted(only)
    ]
    if problems or len(ours) != len(saved):
        raise CheckpointError("the checkpoint belongs to another optimizer", problems)


def _as_json(value: Any) -> Any:
    """A hyperparameter as JSON: one-element tensors (a capturable learning rate) as numbers."""
    if isinstance(value, Tensor):
        return value.item()
    return [_as_json(part) for part in value] if isinstance(value, tuple | list) else value


def _like(current: Any, saved: Any) -> Any:
    """A hyperparameter from JSON in the type of the optimizer's current value."""
    if isinstance(current, Tensor):
        return torch.full_like(current, saved)
    return tuple(saved) if isinstance(current, tuple) else saved


def _undo_casts(
    optimizer: Optimizer, names: dict[Tensor, str], saved: Mapping[str, Tensor]
) -> None:
    """Restore the saved types: `load_state_dict` casts floating tensors to those of parameters."""
    for parameter, memory in optimizer.state.items():
        for key, value in memory.items():
            exact = saved.get(f"{names[parameter]}/{key}")
            if exact is not None and exact.dtype != value.dtype:
                memory[key] = exact.to(value.device)
