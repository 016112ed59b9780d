"""The published numbers of RMP-Loss itself: the paper's Tables 1-4, row by row."""

from dataclasses import dataclass

from rmploss.recipes.recipe import Recipe


@dataclass(frozen=True)
class Row:
    """One published number, and the recipe that reproduces it.

    table: 1 to 4.
    recipe: its name.
    T: time steps.
    accuracy: in percent; None where our copy of the paper is illegible.
    std: standard deviation of the accuracy over three trials, in percent.
    error: quantization error (Table 1), dimensionless.
    """

    table: int
    recipe: str
    T: int
    accuracy: float | None
    std: float | None = None
    error: float | None = None

    @property
    def words(self) -> str:
        """The accuracy and its deviation, in percent."""
        if self.accuracy is None:
            return "illegible"
        return f"{self.accuracy:.2f}" + (f" ± {self.std:.2f}" if self.std is not None else "")

    def with_T(self, recipe: Recipe) -> Recipe:
        """The recipe at this row's number of time steps."""
        return recipe.but(T=self.T)


ROWS = (
    # Table 1: ablation on CIFAR-10, with the quantization error.
    Row(1, "cifar10-resnet20", 4, 91.26, error=0.186),
    Row(1, "cifar10-resnet20-rmp", 4, 91.89, error=0.121),
    Row(1, "cifar10-resnet19", 4, 95.04, error=0.128),
    Row(1, "cifar10-resnet19-rmp", 4, 95.51, error=0.104),
    Row(1, "cifar10-vgg16", 4, 92.80, error=0.174),
    Row(1, "cifar10-vgg16-rmp", 4, 93.33, error=0.135),
    # Table 2: CIFAR-10.
    Row(2, "cifar10-resnet19-rmp", 2, 95.31, 0.07),
    Row(2, "cifar10-resnet19-rmp", 4, 95.51, 0.08),
    Row(2, "cifar10-resnet19-rmp", 6, 96.10, 0.08),
    Row(2, "cifar10-resnet20-rmp", 4, 91.89, 0.05),
    Row(2, "cifar10-resnet20-rmp", 6, 92.55, 0.06),
    Row(2, "cifar10-vgg16-rmp", 4, 93.33, 0.07),
    Row(2, "cifar10-vgg16-rmp", 10, 94.39, 0.08),
    # Table 2: CIFAR-100.
    Row(2, "cifar100-resnet20-rmp", 4, 66.65, 0.10),
    Row(2, "cifar100-vgg16-rmp", 4, 72.55, 0.08),
    Row(2, "cifar100-vgg16-rmp", 10, 73.30, 0.11),
    Row(2, "cifar100-resnet19-rmp", 2, 74.66, 0.12),
    Row(2, "cifar100-resnet19-rmp", 4, 78.28, 0.10),
    Row(2, "cifar100-resnet19-rmp", 6, 78.98, 0.08),
    # Table 3: CIFAR10-DVS.
    Row(3, "cifar10-dvs-resnet19-rmp", 10, 76.20, 0.20),
    Row(3, "cifar10-dvs-resnet20-rmp", 10, 75.60, 0.30),
    # Table 4: ImageNet.
    Row(4, "imagenet-resnet18-rmp", 4, 63.03, 0.07),
    Row(4, "imagenet-resnet34-rmp", 4, 65.17, 0.07),
)
