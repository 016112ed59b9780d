"""LIAF-Net (Wu et al., TNNLS 2021): neurons that integrate, leak and output real numbers."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import Recipe, Use, use
from rmploss.recipes.rmp import NONE
from rmploss.recipes.tables import Row

NEURON = use("liaf")
NORM = use("tdbn", factor="none")


def recipe(network: str, title: str, neuron: Use) -> Recipe:
    """A recipe with the training of the public script for CIFAR10-DVS."""
    return Recipe(
        name=f"cifar10-dvs-liaf-{network}",
        title=f"LIAF-Net, {title} on CIFAR10-DVS",
        data=use("cifar10-dvs", split="random", size=42, augment=False),
        network=use(network, image_size=42),
        T=10,
        neuron=neuron,
        norm=NORM,
        loss=use("mse"),
        objective=NONE,
        optimizer=use("adam"),
        lr=1e-3,
        lr_schedule=use("stairs", every=1, factor=0.9),
        epochs=100,
        batch_size=25,
        weight_decay=1e-3,
    )


METHOD = Method(
    name="liaf",
    title="LIAF-Net",
    paper="Wu et al., LIAF-Net: Leaky Integrate and Analog Fire Network for Lightweight and "
    "Efficient Spatiotemporal Information Processing, TNNLS 2021",
    code="github.com/lyh983012/SNN-genunit (by a co-author, rewritten after the paper)",
    idea="Integrate, leak and reset as a neuron; output an activation of the membrane, not spikes.",
    equations="u = decay u (1 - o) + x;  o = 1[u >= V_th], detached;  y = f(u)",
    doubts=(
        "We had no access to the paper: the network, its 42x42 input and the training are those "
        "of a public script by a co-author, the most likely source of the row.",
        "f = SELU of u, not of u - V_th, and a fixed decay 0.7, as the script was written; the "
        "present cell ignores both, learns its decay from 0.622, and clamps outputs to [0, 1], "
        "which is no part of LIAF. Other scripts have 0.3 and 0.5. --set "
        "neuron.threshold_related=true, neuron.learn_decay=true.",
        "The script's T = 6 is 10 in the row; its dropout of 0.1 is left out, as the library's "
        "convolutional cells never apply it; its random binarization of frames is our 0/1 frames.",
        "The last linear layer has cells, too; the loss takes their mean over time.",
        "Conv3D: only the idea is known, 3x3x3 convolutions instead of cells. ReLU, the widths of "
        "the network with cells, and its training are ours.",
        "Smaller or larger images: --set data.size=48 network.image_size=48 (1,574,378 parameters "
        "instead of 919,018).",
        "Fair: analog neurons on ResNet20 with the mean read-out, so cross-entropy sees logits "
        "divided by T; shortcuts add real numbers to a current.",
        "Frames hold equal numbers of events, where the script takes windows of time; like the "
        "script, nothing is flipped or rolled. A cell resets at u >= V_th, the script's at >.",
        "Analog outputs: firing rate and quantization error are those of the spikes inside.",
    ),
    parts={"neuron": NEURON, "norm": NORM, "network": use("resnet20", readout="mean")},
    alone="its output is a real number, not a spike: there is no quantization error",
    recipes=(
        recipe("liafnet", "cells", NEURON),
        recipe("liafnet-conv3d", "Conv3D", use("relu")),
    ),
    rows=(
        Row(3, "cifar10-dvs-liaf-liafnet-conv3d", 10, 71.70),
        Row(3, "cifar10-dvs-liaf-liafnet", 10, 70.40),
    ),
)
