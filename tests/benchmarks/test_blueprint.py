"""A blueprint names every convolution and layer of neurons of its network, with their shapes."""

import pytest
import torch
from torch import Tensor, nn

from rmploss import membrane_stats, models
from rmploss.errors import UserError
from rmploss_bench.blueprint import NETWORKS, Conv, Neurons, blueprint_of, image_of, layers


@pytest.mark.parametrize("network", NETWORKS)
def test_the_parts_are_those_of_the_network(network: str) -> None:
    net = models.create(network, T=1, width=0.0625)
    found = [*layers(blueprint_of(network), net.state_dict(), image_of(network))]
    convolutions = {layer.part.name for layer in found if isinstance(layer.part, Conv)}
    named = net.named_modules()
    assert convolutions == {
        name.removesuffix(".conv") for name, module in named if isinstance(module, nn.Conv2d)
    }
    with torch.no_grad(), membrane_stats(net) as stats:
        net(torch.randn(1, *image_of(network)))
    neurons = [layer for layer in found if isinstance(layer.part, Neurons)]
    assert [layer.part.name for layer in neurons] == [entry.name for entry in stats]
    sizes = [C * H * W for C, H, W in (layer.target for layer in neurons)]
    assert sizes == [entry.elements for entry in stats]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_shapes_are_those_the_convolutions_see(network: str) -> None:
    net = models.create(network, T=1, width=0.0625)
    expected = {
        layer.part.name: layer.source
        for layer in layers(blueprint_of(network), net.state_dict(), image_of(network))
        if isinstance(layer.part, Conv)
    }
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in net.named_modules():
        if name in expected:

            def note(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                seen[name] = tuple(inputs[0].shape[-3:])

            module.register_forward_pre_hook(note)
    with torch.no_grad():
        net(torch.randn(1, *image_of(network)))
    assert {name: expected[name] for name in seen} == seen


def test_a_network_without_a_blueprint_is_refused() -> None:
    with pytest.raises(UserError, match=r'unknown "resnet21".*did you mean "resnet2'):
        blueprint_of("resnet21")
