"""SEW ResNet (Fang et al., NeurIPS 2021): residual blocks add spikes, not currents."""

from rmploss.recipes.method import NOT_ONE_HALF, Method
from rmploss.recipes.recipe import Recipe, use
from rmploss.recipes.rmp import NONE
from rmploss.recipes.tables import Row

NEURON = use("if", v_threshold=1.0, detach_reset=True, surrogate="arctan")


def recipe(network: str, title: str) -> Recipe:
    """A recipe of the paper for ImageNet; its Spiking ResNets are trained in the same way."""
    return Recipe(
        name=f"imagenet-{network}",
        title=f"{title} on ImageNet",
        data=use("imagenet"),
        network=use(network),
        T=4,
        neuron=NEURON,
        norm=use("tdbn", factor="none", sync=False),
        objective=NONE,
        lr=0.1,
        epochs=320,
        batch_size=256,
        weight_decay=0.0,
        amp="fp16",
    )


METHOD = Method(
    name="sew",
    title="SEW ResNet",
    paper="Fang et al., Deep Residual Learning in Spiking Neural Networks, NeurIPS 2021",
    code="github.com/fangwei123456/Spike-Element-Wise-ResNet",
    idea="Add spikes behind the neurons, so that a silent branch makes a block the identity.",
    equations="y = g(a, b),  a = SN(BN(conv(SN(BN(conv(x)))))),  b = x or SN(BN(conv1x1(x)))\n"
    "ADD a + b, whole numbers;  AND a b;  IAND b (1 - a)",
    inference="the norm is folded into the convolution",
    doubts=(
        "The published accuracies are the best of all test epochs; the last ones are 62.81 "
        "(ResNet18) and 66.66 (ResNet34).",
        "ADD, as in the paper's ImageNet runs; network.connect=and or =iand are its other two.",
        "Its outputs are whole numbers, so the next convolution multiplies: energy estimates that "
        "count spikes do not apply.",
        "32 images on each of eight GPUs, each with its own batch statistics: the norm is not "
        "synchronized; on fewer ranks it takes more images at a time.",
        "The fair comparison keeps ResNet20's average pooling, so its first stage adds spikes to "
        "multiples of 1/4.",
        NOT_ONE_HALF,
    ),
    parts={"neuron": NEURON, "network": use("resnet20", connect="add")},
    recipes=(recipe("sew-resnet18", "SEW ResNet18"), recipe("sew-resnet34", "SEW ResNet34")),
    rows=(
        Row(4, "imagenet-sew-resnet18", 4, 63.18),
        Row(4, "imagenet-sew-resnet34", 4, 67.04),
    ),
)
