"""A method card: sources, equations, recipes and published numbers of a method."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rmploss.recipes.recipe import Recipe, Use
from rmploss.recipes.tables import Row

NOT_ONE_HALF = (
    "RMP-Loss with a threshold other than 1/2: (o - u)^2 pulls a membrane that is nearer to 1 but "
    "does not fire to 0; only at 1/2 is the spike always the nearer of 0 and 1."
)
"""The open point of every method with another threshold."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of the paper's tables: one that it compares with, RMP-Loss, or the vanilla SNN.

    name, title: short and full.
    paper, code: the sources of its equations.
    idea: one sentence.
    equations: lines of text.
    inference: what is removed, exactly, for inference, or "unchanged". (Norms are folded into
        convolutions for all methods.)
    doubts: points on which paper and code disagree or are silent, each with our choice.
    parts: the fields of a recipe that turn any network into this method, for the fair comparison
        (recipes/fair.py); empty: the method requires its own network.
    alone: the reason why RMP-Loss cannot be added; "" where it can.
    reservation: why its row of the fair comparison says little about it, by measurement; "" where
        it learns 256 images on that protocol.
    unlearnt: own recipes -> why their pocket variants do not learn 256 images, by measurement
        (docs/overfit.md).
    recipes: as published, one per network and data set.
    rows: the published numbers of these recipes.
    """

    name: str
    title: str
    paper: str
    code: str
    idea: str
    equations: str
    inference: str = "unchanged"
    doubts: tuple[str, ...] = ()
    parts: Mapping[str, Use] = field(default_factory=dict)
    alone: str = ""
    reservation: str = ""
    unlearnt: Mapping[str, str] = field(default_factory=dict)
    recipes: tuple[Recipe, ...] = ()
    rows: tuple[Row, ...] = ()
