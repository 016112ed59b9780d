"""Diet-SNN's networks: their sizes, their layers, their dropout."""

from functools import partial

import pytest
import torch
from torch import nn

from rmploss import LIF, UserError
from rmploss.models import create
from rmploss.models.dropout import Dropout
from rmploss.neurons.diet import Diet
from rmploss.neurons.relu import ReLU
from tests.given import normal

# The numbers of the notes: networks of weights alone; two more for each layer of neurons.
PARAMETERS = {
    ("diet-vgg16", 10): (39_917_248, 15),
    ("diet-vgg16", 100): (40_285_888, 15),
    ("diet-resnet20", 10): (11_253_440, 19),
    ("diet-resnet20", 100): (11_437_760, 19),
}


@pytest.mark.parametrize(("name", "classes"), PARAMETERS)
def test_parameter_counts(name: str, classes: int) -> None:
    weights, layers = PARAMETERS[name, classes]
    for neuron, more in ((LIF, 0), (ReLU, 0), (None, 2 * layers)):
        with torch.device("meta"):
            options = {} if neuron is None else {"neuron": neuron}
            net = create(name, num_classes=classes, **options)
        assert sum(p.numel() for p in net.parameters()) == weights + more
        assert not any("bias" in name or "norm" in name for name, _ in net.named_parameters())


@pytest.mark.parametrize("name", ["diet-vgg16", "diet-resnet20"])
def test_dropout_is_in_training_only_and_one_mask_for_all_steps(name: str) -> None:
    torch.manual_seed(0)
    options = {"num_classes": 3, "T": 3, "width": 1 / 16, "neuron": partial(Diet, threshold=0.25)}
    net = create(name, **options).double()
    drops = [m for m in net.modules() if isinstance(m, Dropout)]
    assert len(drops) == (11 if name == "diet-vgg16" else 10)
    assert all(drop.one_mask and drop.p == 0.2 for drop in drops)
    x = normal(2, 3, 32, 32)
    assert not torch.equal(net(x), net(x))
    still = net.eval()(x)
    assert still.std(0).max() > 0
    assert torch.equal(net(x), still)
    none = create(name, **options, dropout=0.0).double()
    none.load_state_dict(net.state_dict())
    assert torch.equal(none.train()(x), still)


def test_the_head_may_drop_more() -> None:
    net = create("diet-vgg16", width=1 / 64, head_dropout=0.5)
    shares = [m.p for m in net.modules() if isinstance(m, Dropout)]
    assert shares[-2:] == [0.5, 0.5]
    assert set(shares[:-2]) == {0.2}


def test_an_ann_keeps_the_size_of_its_signal() -> None:
    torch.manual_seed(0)
    net = create("diet-vgg16", T=1, width=0.25, neuron=ReLU, dropout=0.0)
    # He's initialization keeps the mean square from layer to layer; pooling takes some of it.
    assert 1e-3 < net(torch.randn(8, 3, 32, 32)).square().mean().item() < 10


def test_other_image_sizes() -> None:
    net = create("diet-resnet20", width=1 / 32, image_size=48, num_classes=3, T=2)
    assert net(torch.zeros(1, 3, 48, 48)).shape == (1, 3)
    head = net.get_submodule("head.layer")
    assert isinstance(head, nn.Linear)
    assert head.in_features == 16 * 9
    with pytest.raises(UserError, match="image_size = 40"):
        create("diet-vgg16", image_size=40)
    with pytest.raises(UserError, match="image_size=48"):
        net(torch.zeros(1, 3, 32, 32))
