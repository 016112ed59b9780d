"""IM-Loss (Guo et al., NeurIPS 2022): maximize the information of the spikes."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import use
from rmploss.recipes.rmp import CIFAR10, CIFAR100, NAMES, NONE, small
from rmploss.recipes.tables import Row

NEURON = use("evolving", decay=0.2)
LOSS = use("im")
RECIPES = tuple(
    small(data, network, T=T, objective=NONE).but(
        name=f"{data.name}-im-{network}",
        title=f"IM-Loss, {NAMES[network]} on {NAMES[data.name]}",
        neuron=NEURON,
        network=use(network, readout="mean"),
        objective=LOSS,
        epochs=1000,
        batch_size=64,
    )
    for data, network, T in (
        (CIFAR10, "resnet19", 4),
        (CIFAR100, "vgg16", 5),
    )
)
METHOD = Method(
    name="im",
    title="IM-Loss",
    paper="Guo et al., IM-Loss: Information Maximization Loss for Spiking Neural Networks, "
    "NeurIPS 2022",
    code="github.com/yfguo91/IM-Loss-Information-Maximization-Loss-for-Spiking-Neural-Networks, "
    "and its NeurIPS supplement",
    idea="Center the membranes on the threshold, where a spike has the largest entropy; use a "
    "surrogate that becomes steeper during training.",
    equations="L = CE + 2 mean_l mean_c (mean u_lc - V_th)^2\n"
    "phi(v) = 1/2 tanh(K v) + 1/2;  K(n) = 10^(n/N)",
    doubts=(
        "Three published versions of the loss disagree (--set objective.version): we take the "
        "supplement's, the only complete formula in code.",
        "The surrogate: the supplement computes the evolving tanh and returns a rectangle, the "
        "released code has Eq. 5 of RMP-Loss; we take the paper's evolving one.",
        "K(n) is from memory and a summary.",
        "The fair comparison takes only the loss. With the evolving surrogate, --set "
        "neuron=evolving, the pocket run fell back to chance in its last epochs (docs/log.md).",
        "AutoAugment and Cutout: the RMP-Loss paper has both, the supplement's loader neither; we "
        "have both. "
        "1000 epochs, batch 64 and decay 0.2 are the supplement's.",
        "The supplement's ResNet19 is another network (stem of 64, 3x3 shortcuts, 15,973,194 "
        "parameters); ours is that of the group's later code. The released version leaves out the "
        "first and the last of the terms; its last is a linear layer's, which our networks lack.",
    ),
    parts={"objective": LOSS},
    recipes=RECIPES,
    rows=(Row(2, "cifar100-im-vgg16", 5, 70.18),),
)
