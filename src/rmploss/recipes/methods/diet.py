"""Diet-SNN (Rathi and Roy 2020): learn leak and threshold, starting from a trained ANN."""

from rmploss.recipes.method import NOT_ONE_HALF, Method
from rmploss.recipes.recipe import Recipe, Use, use
from rmploss.recipes.rmp import NAMES
from rmploss.recipes.tables import Row

DATA = (use("cifar10", augment="standard"), use("cifar100", augment="standard"))
VGG16 = use("diet-vgg16", dropout=0.2)
RESNET20 = use("diet-resnet20", dropout=0.2)
STEM = ("lif1", "lif2", "lif3")


def names(data: Use, network: Use) -> tuple[str, str]:
    """The name of a recipe, and the end of its title."""
    short = network.name.removeprefix("diet-")
    return f"{data.name}-diet-{short}", f"{NAMES[short]} on {NAMES[data.name]}"


def ann(data: Use, network: Use) -> Recipe:
    """The ANN that the spiking network starts from."""
    name, title = names(data, network)
    vgg = network.name == VGG16.name
    return Recipe(
        name=f"{name}-ann",
        title=f"the ANN of Diet-SNN, {title}",
        data=data,
        network=network.but(head_dropout=0.5) if vgg else network,
        T=1,
        neuron=use("relu"),
        norm=use("none"),
        optimizer=use("adam"),
        lr=1e-3,
        epochs=300,
        batch_size=128,
        weight_decay=0.0,
    )


def snn(data: Use, network: Use) -> Recipe:
    """The spiking network. In a ResNet only the stem is calibrated."""
    name, title = names(data, network)
    vgg = network.name == VGG16.name
    start = use("hybrid", ann=f"{name}-ann", percentile=99.7, scale=0.2, samples=512, steps=100)
    return Recipe(
        name=name,
        title=f"Diet-SNN, {title}",
        data=data,
        network=network,
        T=5,
        neuron=use("diet") if vgg else use("diet", threshold=0.4),
        norm=use("none"),
        start=start if vgg else start.but(layers=STEM),
        optimizer=use("adam", amsgrad=True),
        lr=1e-4,
        lr_schedule=use("cosine", period=128),
        epochs=300,
        batch_size=64,
        weight_decay=0.0,
    )


PAIRS = tuple((data, network) for data in DATA for network in (VGG16, RESNET20))
METHOD = Method(
    name="diet",
    title="Diet-SNN",
    paper="Rathi and Roy, DIET-SNN: Direct Input Encoding With Leakage and Threshold Optimization "
    "in Deep Spiking Neural Networks, TNNLS 2021 (arXiv 2008.03658)",
    code="github.com/nitin-rathi/DIET-SNN",
    idea="Learn one leak and one threshold per layer, starting from a trained ANN whose thresholds "
    "are calibrated.",
    equations="m = l m + x;  z = m / v - 1;  o = 1[z >= 0];  m = m - v o\n"
    "do/dz = 0.3 max(0, 1 - |z|);  l <= 1",
    doubts=(
        "The code subtracts in the same step, so the leak acts on the reset as well; the paper's "
        "form, from memory, does not leak the reset. We follow the code.",
        "The code fires at z > 0, we at z >= 0. In training the two differ on a set of measure "
        "zero. Not so in the calibration: a threshold that was found is one of the observed "
        "currents, so one neuron stands exactly at it. In a comparison 13 calibrated convolutions "
        "were equal, and the linear layers differed by that neuron.",
        "Thresholds: calibrated ones times 0.2, and 0.4 in the blocks of ResNet20, as in the "
        "README for T = 5; also for T = 10. In pocket size 0.6: with 0.2 the narrow VGG16 starts "
        "at 14 % of the images that its ANN has learnt, with 0.6 at 45 %; at full size not "
        "measured.",
        "The learning rate reaches 0 at epoch 128 and rises again until 300: period=128, as "
        "released.",
        "Schedule (cosine to 0) and weight decay (0) of the ANN are ours; the authors' are unknown "
        "to us.",
        "The position of dropout in VGG16 (not before a pooling), and the initialization of "
        "the ANN (He's), are ours. On CIFAR-100 the authors start from CIFAR-10 weights if the ANN "
        "does not begin to learn; we do not.",
        "The calibration uses augmented training images, without dropout.",
        "Fair: only the neuron, on ResNet20 with tdBN and from random weights; no ANN, no "
        "dropout, and the protocol's weight decay acts on leak and threshold, too. With a norm and "
        "without calibration it is only a part of the authors' method.",
        "RMP-Loss takes the membrane in units of the learnt threshold, m / v: a higher threshold "
        "lowers the loss, and a silent network has the lowest, so its weight needs care.",
        NOT_ONE_HALF,
    ),
    reservation="on this protocol it does not learn 256 images: 16 % after 480 steps, and at "
    "best, with three times the rate, 70 % after 2400; a longer cycle at its own rate was not "
    "tried. A surrogate of height 0.3 leaves relative gradients of 1e-7 in the first layers, 5e-3 "
    "in the last; the method starts from a trained ANN",
    unlearnt={
        "cifar10-diet-resnet20": "from an ANN that had learnt 256 images, its pocket variant has "
        "13 % after 480 steps. It starts at chance, 10 to 11 % with all thresholds calibrated and "
        "multiplied by 0.2, 0.4, 0.6 or 0.8, too. At the start the loss falls along minus the "
        "gradient in the last four blocks alone; in front of them a random direction does as "
        "well, and Adam moves those kernels as fast as the others. Held fixed, they let the rest "
        "reach 44 % in 120 steps",
    },
    parts={"neuron": use("diet")},
    recipes=(*(ann(*pair) for pair in PAIRS), *(snn(*pair) for pair in PAIRS)),
    rows=(
        Row(2, "cifar10-diet-vgg16", 5, 92.70),
        Row(2, "cifar10-diet-vgg16", 10, 93.44),
        Row(2, "cifar10-diet-resnet20", 5, 91.78),
        Row(2, "cifar10-diet-resnet20", 10, 92.54),
        Row(2, "cifar100-diet-resnet20", 5, 64.07),
        Row(2, "cifar100-diet-vgg16", 5, 69.67),
    ),
)
