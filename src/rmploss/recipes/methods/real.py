"""Real Spike (Guo et al., ECCV 2022): spikes of learnt height, folded to binary for inference."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import use
from rmploss.recipes.rmp import CIFAR100, NAMES, NONE, small
from rmploss.recipes.tables import Row

NEURON = use("real", per="channel")
METHOD = Method(
    name="real",
    title="Real Spike",
    paper="Guo et al., Real Spike: Learning Real-Valued Spikes for Spiking Neural Networks, "
    "ECCV 2022",
    code="github.com/yfguo91/Real-Spike (one file, for SEW ResNet)",
    idea="Learn the height of the spikes of every channel; fold it into the next kernels later.",
    equations="o~ = a o;  K * (a o) = (a K) * o",
    inference="the heights: they are folded into the kernels that read the spikes; a shortcut "
    "without a kernel keeps one scale per channel",
    doubts=(
        "The released code is for SEW ResNet on ImageNet; we had no access to the recipe "
        "for CIFAR. Ours is that of the group's other papers: SGD 0.01, 400 epochs, threshold 0.5, "
        "decay 0.25.",
        "One height per channel, initially 1, as in the code. The paper also has one per layer "
        "(neuron.per=layer) and one per element, which cannot be folded and is not implemented.",
        "The heights get no weight decay in the published recipes (ours); nor do the norms then. "
        "In the fair one they get the protocol's.",
        "The code's neuron (leak-free, threshold 1, reset detached) is SEW's; ours is that of the "
        "group's other papers.",
        "After a spike-element-wise ADD or a max pooling the heights cannot be folded into one "
        "kernel, or only if none is negative: there they remain. They also remain in networks "
        "that do not state which kernel reads which neurons (`heights_fold_into`): CIFARNet, "
        "PLIFNet, LIAF-Net.",
        "On SEW blocks the neurons of a shortcut get heights as well; the code has none there.",
    ),
    parts={"neuron": NEURON},
    recipes=tuple(
        small(CIFAR100, network, T=5, objective=NONE).but(
            name=f"cifar100-real-{network}",
            title=f"Real Spike, {NAMES[network]} on CIFAR-100",
            neuron=NEURON,
            network=use(network, readout="mean"),
            weight_decay_on="weights",
        )
        for network in ("resnet20", "vgg16")
    ),
    rows=(
        Row(2, "cifar100-real-resnet20", 5, 66.60),
        Row(2, "cifar100-real-vgg16", 5, 70.62),
    ),
)
