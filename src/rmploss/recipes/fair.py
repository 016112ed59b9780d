"""The fair comparison: every method on one protocol, so that only the method differs.

The protocol is the paper's own ablation (Table 1): ResNet20 on CIFAR-10, T = 4, AutoAugment and
Cutout, SGD, cosine, 400 epochs, LIF neurons with decay 0.25 and threshold 0.5, tdBN, cross-entropy.
A method changes only the parts that its card names. `-rmp` adds RMP-Loss to it.
"""

from collections.abc import Iterable

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import Recipe, Use, use
from rmploss.recipes.rmp import CIFAR10, NONE, RMP, small

PREFIX = "fair-"
WITH_RMP = "-rmp"
PROTOCOL = small(CIFAR10, "resnet20", T=4, objective=NONE)
"""The recipe that every method changes: the vanilla network of Table 1."""


def fair(method: Method) -> Recipe:
    """The recipe of a method on the protocol."""
    title = f"{method.title}, fair: {PROTOCOL.title.removesuffix(' without RMP-Loss')}"
    return PROTOCOL.but(name=PREFIX + method.name, title=title, **method.parts)


def with_rmp(method: Method) -> Recipe:
    """The recipe of a method on the protocol, with RMP-Loss added."""
    recipe = fair(method)
    title = recipe.title.replace(", fair", " + RMP-Loss, fair")
    both = objective_with_rmp(recipe.objective)
    return recipe.but(name=recipe.name + WITH_RMP, title=title, objective=both)


def objective_with_rmp(own: Use) -> Use:
    """RMP-Loss, added to the regularizer of a method, which keeps its options."""
    if own.name == "none":
        return RMP
    options = tuple((f"{own.name}.{option}", value) for option, value in own.options.items())
    both = use("several", names=(own.name, "rmp"))
    return both.but(options=options) if options else both


def fair_recipes(methods: Iterable[Method]) -> tuple[Recipe, ...]:
    """Every method alone, and with RMP-Loss unless its card excludes it (`Method.alone`)."""
    alone = [fair(method) for method in methods if method.parts or method.name == "vanilla"]
    combined = [with_rmp(method) for method in methods if method.parts and not method.alone]
    return (*alone, *combined)
