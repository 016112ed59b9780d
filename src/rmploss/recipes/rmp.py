"""The recipes of the paper's own networks (section 5.1): with RMP-Loss, and without it (Table 1).

SGD, momentum 0.9, cosine to 0. CIFAR and CIFAR10-DVS: 400 epochs, learning rate 0.01, batch 128,
AutoAugment and Cutout on CIFAR. ImageNet: 320 epochs, learning rate 0.1; the batch, not stated, is
that of the group's only public ImageNet trainer, 320 (8 x 40).

    rmploss train cifar10-resnet20-rmp --T 4 --seed 1
"""

from rmploss.recipes.recipe import Recipe, Use, use

NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "cifar10-dvs": "CIFAR10-DVS",
    "imagenet": "ImageNet",
    "resnet18": "ResNet18",
    "resnet19": "ResNet19",
    "resnet20": "ResNet20",
    "resnet34": "ResNet34",
    "vgg16": "VGG16",
}
RMP = use("rmp", k=0.1, p=2.0)
NONE = use("none")


def small(data: Use, network: str, T: int, objective: Use = RMP) -> Recipe:
    """A recipe for CIFAR-10, CIFAR-100 or CIFAR10-DVS."""
    with_rmp = objective.name == "rmp"
    return Recipe(
        name=f"{data.name}-{network}" + ("-rmp" if with_rmp else ""),
        title=f"{NAMES[network]} on {NAMES[data.name]} "
        + ("with RMP-Loss" if with_rmp else "without RMP-Loss"),
        data=data,
        network=use(network),
        T=T,
        objective=objective,
        lr=0.01,
        epochs=400,
        batch_size=128,
    )


def imagenet(network: str) -> Recipe:
    """A recipe for ImageNet."""
    return Recipe(
        name=f"imagenet-{network}-rmp",
        title=f"{NAMES[network]} on ImageNet with RMP-Loss",
        data=use("imagenet"),
        network=use(network),
        T=4,
        objective=RMP,
        lr=0.1,
        epochs=320,
        batch_size=320,
    )


CIFAR10 = use("cifar10", augment="autoaugment+cutout")
CIFAR100 = use("cifar100", augment="autoaugment+cutout")
DVS = use("cifar10-dvs", split="random")

RECIPES = (
    small(CIFAR10, "resnet20", T=4, objective=NONE),
    small(CIFAR10, "resnet19", T=4, objective=NONE),
    small(CIFAR10, "vgg16", T=4, objective=NONE),
    small(CIFAR10, "resnet20", T=4),
    small(CIFAR10, "resnet19", T=4),
    small(CIFAR10, "vgg16", T=4),
    small(CIFAR100, "resnet20", T=4),
    small(CIFAR100, "resnet19", T=4),
    small(CIFAR100, "vgg16", T=4),
    small(DVS, "resnet19", T=10),
    small(DVS, "resnet20", T=10),
    imagenet("resnet18"),
    imagenet("resnet34"),
)
