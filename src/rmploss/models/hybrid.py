"""Hybrid training (Rathi and Roy 2020): a spiking network starts from an ANN of the same weights.

1. The weights are copied.
2. Layer by layer, in running order: the threshold of a layer becomes the largest, over the time
   steps, of a percentile (99.7) of its input current over one batch. The layers before it run as
   integrate-and-fire neurons (leak 1) with the thresholds just found.
3. All thresholds that were found are multiplied by `scale`: they are far too high for few steps.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from rmploss.errors import Problem, UserError
from rmploss.lifecycle import evaluating
from rmploss.models.network import SpikingNetwork
from rmploss.neurons.diet import Diet
from rmploss.stats import name_layers


def hybrid_start(
    net: SpikingNetwork,
    ann_state: Mapping[str, Tensor],
    batch: Tensor,
    *,
    percentile: float = 99.7,
    scale: float = 0.3,
    steps: int = 100,
    layers: tuple[str, ...] = ("*",),
) -> dict[str, float]:
    """Give `net` the weights of an ANN and thresholds to go with them; returns the thresholds.

    net: with `Diet` neurons; ann_state: the state of the same network with other neurons; batch:
    images `[B, C, H, W]`, or sequences `[T, B, C, H, W]`, which bring their own steps; layers:
    patterns of the names of the neurons to calibrate, the others keep their threshold. Raises
    `UserError` for an ANN of another shape, and for a layer that no current reaches; then the
    weights are the ANN's, and the thresholds what they were.
    """
    copy_weights(net, ann_state)
    name_layers(net)
    neurons = [m for m in net.modules() if isinstance(m, Diet)]
    largest: dict[str, float] = {}
    with torch.no_grad(), integrating(net, neurons):
        for neuron in _in_running_order(net, neurons, batch):
            if any(fnmatchcase(neuron.layer_name, pattern) for pattern in layers):
                found = max(_currents(net, neurons, neuron, batch, percentile, steps))
                if not found > 0:
                    where = f"{neuron.layer_name}: percentile {percentile} = {found:.3g}"
                    problem = Problem(where, "must be positive", "train the ANN, or ask for more")
                    raise UserError("a layer cannot be calibrated", [problem])
                neuron.threshold.fill_(found)
                largest[neuron.layer_name] = found
    if not largest:
        names = ", ".join(neuron.layer_name for neuron in neurons) or "none"
        raise UserError(f"no diet neurons match layers={layers} (there are: {names})")
    with torch.no_grad():
        for neuron in neurons:
            if neuron.layer_name in largest:
                neuron.threshold.fill_(largest[neuron.layer_name] * scale)
    return {name: found * scale for name, found in largest.items()}


def copy_weights(net: nn.Module, ann_state: Mapping[str, Tensor]) -> None:
    """Copy everything but the parameters of the neurons; `UserError` unless all of it is there."""
    own = {
        f"{name}.{key}"
        for name, module in net.named_modules()
        if isinstance(module, Diet)
        for key, _ in module.named_parameters()
    }
    wanted = {key: value for key, value in net.state_dict().items() if key not in own}
    problems = [
        Problem(key, f"has shape {list(value.shape)}, in the ANN {_shape(ann_state.get(key))}")
        for key, value in wanted.items()
        if _shape(ann_state.get(key)) != str(list(value.shape))
    ]
    problems += [Problem(key, "is in the ANN only") for key in ann_state if key not in wanted]
    if problems:
        raise UserError("the ANN is not of this network", problems)
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(ann_state[key])


@contextmanager
def integrating(net: nn.Module, neurons: list[Diet]) -> Iterator[None]:
    """Inside the block the network is in evaluation mode, and its neurons have no leak and carry
    their membranes from call to call; behind it all is as it was, thresholds included.
    """
    before = [
        (neuron.leak.detach().clone(), neuron.threshold.detach().clone(), neuron.carry_state)
        for neuron in neurons
    ]
    try:
        for neuron in neurons:
            neuron.leak.fill_(1.0)
            neuron.carry_state = True
        with evaluating(net):
            yield
    finally:
        for neuron, (leak, threshold, carry) in zip(neurons, before, strict=True):
            neuron.leak.copy_(leak)
            neuron.threshold.copy_(threshold)
            neuron.carry_state = carry
            neuron.reset_state()


def quantile(x: Tensor, percentile: float) -> float:
    """The value of rank 1 + round(percentile / 100 (n - 1)) of the n values of x, from below."""
    rank = 1 + round(percentile / 100 * (x.numel() - 1))
    return x.flatten().kthvalue(rank).values.item()


class _Reached(Exception):  # noqa: N818  no error: the rest of the network has no part in it
    """The layer has its input current."""


def _currents(
    net: nn.Module, neurons: list[Diet], neuron: Diet, batch: Tensor, percentile: float, steps: int
) -> Iterator[float]:
    """The percentile of the input current of one layer, step by step."""
    seen: list[float] = []

    def look(_: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append(quantile(inputs[0], percentile))
        raise _Reached

    for each in neurons:
        each.reset_state()
    # A hook also makes `ConvNorm.fire` hand over norm and shortcut as part of the current.
    hook = neuron.register_forward_pre_hook(look)
    frames = batch.unsqueeze(0).expand(steps, *batch.shape) if batch.ndim == 4 else batch
    try:
        for frame in frames:
            try:
                net(frame.unsqueeze(0))
            except _Reached:
                yield seen.pop()
    finally:
        hook.remove()


def _in_running_order(net: nn.Module, neurons: list[Diet], batch: Tensor) -> list[Diet]:
    order: list[Diet] = []

    def note(neuron: nn.Module, _: object) -> None:
        assert isinstance(neuron, Diet)
        order.append(neuron)

    hooks = [neuron.register_forward_pre_hook(note) for neuron in neurons]
    try:
        net(batch[:1].unsqueeze(0) if batch.ndim == 4 else batch[:1, :1])
    finally:
        for hook in hooks:
            hook.remove()
    for neuron in neurons:
        neuron.reset_state()
    return order


def _shape(value: Tensor | None) -> str:
    return "missing" if value is None else str(list(value.shape))
