"""The open points of the paper: two readings of each, and the reason for the default.

`mode="paper"` follows the paper's text, `mode="code"` the group's code, as far as it is known. The
code of RMP-Loss was not published; byte code of the same loss in another repository of the group,
and its sibling code, were. Probably, but not certainly, one of them produced the paper's tables.
"""

from dataclasses import dataclass
from typing import Literal

from rmploss.errors import Problem, UserError
from rmploss.recipes.recipe import Recipe

Mode = Literal["paper", "code"]


@dataclass(frozen=True)
class Reading:
    """One open point.

    field: the field of a recipe that decides it, or what it is about, where no field does.
    paper: its value by the text, and in `mode="paper"`.
    code: what the group's code does; "unknown" where none of it shows.
    reason: for the readings.
    mode: its value in `mode="code"`; None: that of the code.
    """

    field: str
    paper: str
    code: str
    reason: str
    mode: str | None = None

    @property
    def taken(self) -> str:
        """Its value in `mode="code"`."""
        return self.code if self.mode is None else self.mode


READINGS = (
    Reading(
        "objective.potential",
        "u_pre",
        "input",
        "The equations say u; after the reset Eq. 8 would be meaningless, so u_pre (Eq. 1). The "
        "code takes the input current, which lacks the 0.25 u(t-1) carried over.",
    ),
    Reading(
        "objective.exclude",
        "()",
        '("*.lif1",)',
        "Eq. 10 sums over all layers; the code leaves out the inner neurons of residual blocks.",
    ),
    Reading(
        "objective.reduction",
        "layers",
        "layers",
        "Eq. 10 is one mean over layers of unequal size: of the layers' means, or of all elements "
        '("elements"). The code takes the mean of means, and so do both modes.',
    ),
    Reading(
        "objective.detach_target",
        "true",
        "true",
        "Eq. 8 is piecewise constant in o; line 8 of Algorithm 1 can be read as sending a gradient "
        "through o as well (false).",
    ),
    Reading(
        "network.readout",
        "sum",
        "mean",
        "Eq. 4 accumulates; the code averages over T. The logits differ by the factor T.",
    ),
    Reading(
        "norm.factor",
        "outside",
        "none",
        "Eq. 6 multiplies by alpha V_th; the code's norm over T, B, H, W has no such factor.",
    ),
    Reading(
        "data.policy (CIFAR)",
        "torchvision",
        "family",
        "AutoAugment is named, not defined. The port in the group's code has another probability "
        "in one sub-policy (0.8, not 0.6), rotates one way, shears between pixels, translates by "
        "fractions of a pixel and solarizes from 256. Recipes of the group's other methods keep "
        "torchvision's: --set data.policy=family.",
    ),
    Reading(
        "data.split (CIFAR10-DVS)",
        "random",
        "files0-899",
        "The paper says 9000/1000: literally, a random tenth. The sibling code tests on "
        "recordings 900-999 of each class. Accuracies differ by points between splits.",
    ),
    Reading(
        "network.hidden_fc (ResNet19)",
        "none",
        "none",
        "The paper cites STBP-tdBN's ResNet19, which has a second linear layer (256); the group's "
        "code has one. Both modes have one; --set network.hidden_fc=256 gives the other.",
    ),
    Reading(
        "batch_size (ImageNet)",
        "320",
        "320",
        "Not stated; 8 x 40 images a step in the group's only public ImageNet trainer.",
    ),
    Reading(
        "the quantization error of Table 1",
        "u_pre, all layers, mean of means, test split",
        "unknown",
        "Not stated. Both modes measure it on u_pre, also if the loss takes x. `rmploss table 1` "
        "and reports show it of x, too, and as the mean of all values.",
        mode="u_pre, all layers, mean of means, test split",
    ),
    Reading(
        "the layer of Figures 2 and 3",
        "layer1.1.lif1",
        "unknown",
        '"The first layer of the second block": of the second residual block, or of the second '
        "stage (layer2.0.lif1). membrane.json holds every layer.",
        mode="layer1.1.lif1",
    ),
    Reading(
        "weight_decay",
        "0.0001",
        "0.0001",
        "Not stated; 1e-4, on all parameters, is what the authors' family of code uses.",
    ),
    Reading(
        "weight_decay_on (ImageNet)",
        "all",
        "weights",
        "Not stated; the only public ImageNet trainer of the group decays convolutions and linear "
        "layers alone.",
    ),
    Reading(
        "amp (ImageNet)",
        "off",
        "fp16",
        "Not stated; the same trainer runs in half precision (autocast with scaled gradients).",
    ),
    Reading(
        "neuron.detach_reset",
        "false",
        "false",
        "Not stated whether a gradient passes through the reset; in the code it does.",
    ),
    Reading(
        "objective.schedule",
        "triangle",
        "triangle",
        "Eq. 12. A script of the group has 0.05 (1 + cos(pi n / N)), commented out: the same "
        "maximum, decreasing from the start.",
    ),
    Reading(
        "initialization",
        "N(0, 2 / (k k C_out)), linear N(0, 1 / C_in^2)",
        "N(0, 2 / (k k C_out)), linear N(0, 1 / C_in^2)",
        "Not stated; that of the group's code (docs/decisions.md, 9).",
    ),
    Reading(
        "accuracy",
        "last and best epoch",
        "best epoch",
        "Not stated; the group's code keeps the best test accuracy of all epochs. We show both.",
        mode="last and best epoch",
    ),
    Reading(
        "the gain over STBP-tdBN on CIFAR10-DVS",
        "8.40 points",
        "unknown",
        "The text says 12.39 %, which is the relative gain: (76.20 - 67.80) / 67.80.",
        mode="8.40 points",
    ),
    Reading(
        "threshold",
        "u >= V_th",
        "u > V_th",
        "Eq. 2 fires at equality, the code does not. Both modes fire: the two differ on a set of "
        "measure zero.",
        mode="u >= V_th",
    ),
    Reading(
        "shuffle",
        "every epoch",
        "never",
        "The released scripts build the training loader with shuffle=False, evidently by mistake. "
        "Both modes shuffle.",
        mode="every epoch",
    ),
)


def read_as(recipe: Recipe, mode: Mode) -> Recipe:
    """The recipe in one of the two readings; all recipes are written in "paper".

    Raises `UserError` for "code" of another method's recipe.
    """
    if mode == "paper":
        return recipe
    objective = recipe.objective
    ours = (recipe.neuron.name, recipe.norm.name, recipe.loss.name) == ("lif", "tdbn", "ce")
    if not ours or objective.name not in ("none", "rmp") or "branches" in recipe.network.options:
        what = "is a recipe of another method: the readings concern RMP-Loss"
        problem = Problem(f"--mode code with {recipe.name}", what, "rmploss list methods")
        raise UserError("no such reading", [problem])
    if objective.name == "rmp":
        objective = objective.but(potential="input", exclude=("*.lif1",))
    data, options = recipe.data, {}
    if data.name == "cifar10-dvs":
        data = data.but(split="files0-899")
    elif data.options.get("augment") == "autoaugment+cutout":
        data = data.but(policy="family")
    elif data.name == "imagenet":
        options = {"weight_decay_on": "weights", "amp": "fp16"}
    return recipe.but(
        name=f"{recipe.name}-code",
        expect="",
        data=data,
        network=recipe.network.but(readout="mean"),
        norm=recipe.norm.but(factor="none"),
        objective=objective,
        **options,
    )
