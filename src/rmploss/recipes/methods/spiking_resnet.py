"""Spiking ResNet, as built and trained by SEW ResNet's authors (Fang et al., NeurIPS 2021)."""

from rmploss.recipes.method import NOT_ONE_HALF, Method
from rmploss.recipes.methods.sew import NEURON, recipe
from rmploss.recipes.tables import Row

METHOD = Method(
    name="spiking_resnet",
    title="Spiking ResNet",
    paper="Fang et al., Deep Residual Learning in Spiking Neural Networks, NeurIPS 2021",
    code="github.com/fangwei123456/Spike-Element-Wise-ResNet",
    idea="ResNet with neurons for its ReLUs: a block adds currents and outputs spikes.",
    equations="y = SN(BN(conv(SN(BN(conv(x))))) + b),  b = x or BN(conv1x1(x))\n"
    "H = V + X;  S = 1[H >= 1];  V = H (1 - S)",
    inference="the norm is folded into the convolution",
    doubts=(
        "The published accuracies are the best of all test epochs; the last ones are 61.95 "
        "(ResNet18) and 61.59 (ResNet34).",
        "Its blocks start as the identity, as in the authors' runs; "
        "network.zero_init_residual=false for a gain of 1.",
        "The fair comparison changes only the neuron: ResNet20's blocks are these blocks already, "
        "and start with a gain of 1.",
        NOT_ONE_HALF,
    ),
    parts={"neuron": NEURON},
    recipes=(
        recipe("spiking-resnet18", "Spiking ResNet18"),
        recipe("spiking-resnet34", "Spiking ResNet34"),
    ),
    rows=(
        Row(4, "imagenet-spiking-resnet18", 4, 62.32),
        Row(4, "imagenet-spiking-resnet34", 4, 61.86),
    ),
)
