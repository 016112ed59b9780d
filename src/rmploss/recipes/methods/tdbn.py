"""STBP-tdBN (Zheng et al., AAAI 2021): threshold-dependent batch normalization."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import Recipe, Use, use
from rmploss.recipes.rmp import NONE
from rmploss.recipes.tables import Row

NEURON = use("lif", decay=0.25, v_threshold=0.5, surrogate="rectangle")


def recipe(data: Use, network: Use, name: str, title: str, *, T: int, epochs: int) -> Recipe:
    """A recipe of the paper; its learning-rate schedule is not public (see doubts)."""
    return Recipe(
        name=name,
        title=f"STBP-tdBN, {title}",
        data=data,
        network=network,
        T=T,
        neuron=NEURON,
        norm=use("tdbn", alpha=1.0),
        objective=NONE,
        lr=0.1,
        epochs=epochs,
        batch_size=128,
    )


RESNET19 = use("resnet19", hidden_fc=256, branches=True, readout="mean")
METHOD = Method(
    name="tdbn",
    title="STBP-tdBN",
    paper="Zheng et al., Going Deeper With Directly-Trained Larger Spiking Neural Networks, "
    "AAAI 2021",
    code="none official; thiswinex/STBP-simple re-implements it",
    idea="Normalize over time as well, to the threshold; 1/sqrt(2) where two branches are added.",
    equations="x_hat = alpha V_th (x - E[x]) / sqrt(Var[x] + eps);  y = lambda x_hat + beta\n"
    "alpha = 1 in a chain, 1/sqrt(2) for the last norm of a block and for its shortcut's",
    inference="the norm is folded into the convolution",
    doubts=(
        "V_th 0.5 and the rectangle of width 1 are second-hand; a re-implementation uses V_th 0.2.",
        "1/sqrt(2) on the last norm of every block, as in STBP-simple; the authors of RMP-Loss set "
        "it in blocks with a projection only.",
        "Stem of 128 channels, as in the paper's table (12,697,994 parameters); "
        "--set network.stem_width=64 gives the 12,630,858 that later tables count.",
        "Only crop and flip on CIFAR-10: from memory; weight decay 1e-4 is ours (a later paper of "
        "the authors has 1e-5, and label smoothing on ImageNet). Event data at 48 x 48, flipped "
        "and rolled, as in RMP-Loss; the paper had 42 x 42, from memory.",
        "The stem of ResNet34 (average pooling 3x3, stride 2) and the initialization are those of "
        "RMP-Loss's authors; but ResNet19's two linear layers start as PyTorch's, as in a second "
        "re-implementation, nguyenhongson1902/direct-training-snn. With the deviation 1 / fan-in "
        "of RMP-Loss's last layer the hidden one never fired.",
        "Fires at u >= V_th; the equations have >. The network ends with a linear layer; "
        "STBP-simple adds a spiking layer and averages its spikes.",
        "The fair comparison changes the surrogate to the rectangle as well as the norms.",
        "SGD, learning rate 0.1, batch 128 and 200 epochs (ImageNet: 125) are ours: we had no "
        "access to the paper's schedule.",
    ),
    parts={
        "neuron": NEURON,
        "network": use("resnet20", branches=True),
    },
    recipes=(
        recipe(use("cifar10", augment="standard"), RESNET19, "cifar10-tdbn-resnet19",
               "ResNet19 on CIFAR-10", T=4, epochs=200),
        recipe(use("cifar10-dvs", split="random"), RESNET19, "cifar10-dvs-tdbn-resnet19",
               "ResNet19 on CIFAR10-DVS", T=10, epochs=200),
        recipe(use("imagenet"), use("resnet34", branches=True, readout="mean"),
               "imagenet-tdbn-resnet34", "ResNet34 on ImageNet", T=6, epochs=125),
    ),
    rows=(
        Row(2, "cifar10-tdbn-resnet19", 2, 92.34),
        Row(2, "cifar10-tdbn-resnet19", 4, 92.92),
        Row(2, "cifar10-tdbn-resnet19", 6, 93.16),
        Row(3, "cifar10-dvs-tdbn-resnet19", 10, 67.80),
        Row(4, "imagenet-tdbn-resnet34", 6, 63.72),
    ),
)  # fmt: skip
