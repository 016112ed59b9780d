"""The confusion matrix against single predictions, and examples against the layer's own outputs."""

import torch
from torch import Tensor, nn

from rmploss.analysis import confusion, examples
from rmploss.models import create
from rmploss.neurons import SpikingLayer
from tests.given import normal


def network() -> nn.Module:
    torch.manual_seed(0)
    return create("convnet", in_channels=1, num_classes=3, T=4)


def batches() -> list[tuple[Tensor, Tensor]]:
    """Two batches, and one without samples."""
    x = 3 * normal(12, 1, 8, 8).float()
    label = torch.arange(12) % 3
    return [(x[:8], label[:8]), (x[:0], label[:0]), (x[8:], label[8:])]


def test_every_sample_is_counted_once_with_its_class_and_the_predicted_one() -> None:
    net = network().train()
    found = confusion(net, batches())
    assert net.training
    net.eval()
    expected: dict[tuple[int, int], int] = {}
    for x, labels in batches():
        for image, label in zip(x, labels.tolist(), strict=True):
            pair = label, int(net(image[None]).argmax())
            expected[pair] = expected.get(pair, 0) + 1
    assert {(label, guess): count for label, guess, count in found} == expected
    assert found == sorted(found)


def test_an_example_holds_where_the_first_layer_fires_in_every_step() -> None:
    net = network()
    seen: list[Tensor] = []
    first = next(module for module in net.modules() if isinstance(module, SpikingLayer))

    def see(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.append(output)

    hook = first.register_forward_hook(see)
    found = examples(net, batches())
    hook.remove()
    assert len(found) == 12
    assert not any(module._forward_hooks for module in net.modules())
    for index, example in enumerate(found[:8]):
        spikes = seen[0][:, index]
        assert torch.equal(example.spikes, (spikes.mean(1) * 255).round().to(torch.uint8))
        rates = spikes.flatten(1).mean(1).tolist()
        assert example.active[example.layer] == rates
        assert (example.frames.shape, example.label) == ((1, 8, 8), index % 3)
        assert (int(example.frames.min()), int(example.frames.max())) == (0, 255)


def test_large_inputs_are_shrunk_and_recordings_have_a_frame_per_step() -> None:
    net = create("convnet", in_channels=2, num_classes=3, T=4)
    x = normal(4, 1, 2, 80, 80).float()
    (example,) = examples(net, [(x, torch.tensor([2]))])
    assert example.frames.shape == (4, 64, 64)
    assert example.spikes.shape == (4, 32, 32)
    color = create("convnet", in_channels=3, num_classes=3, T=2)
    (example,) = examples(color, [(normal(1, 3, 8, 8).float(), torch.tensor([0]))])
    assert example.frames.shape == (1, 8, 8, 3)
