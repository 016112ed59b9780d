"""A method card: what a system of the paper's tables is, where it comes from, and its recipes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rmploss.recipes.recipe import Recipe, Use
from rmploss.recipes.tables import Row

NOT_ONE_HALF = (
    "RMP-Loss with a threshold other than 1/2: (o - u)^2 pulls a membrane that is nearer to 1 but "
    "does not fire to 0; only at 1/2 is the spike the nearest of the two."
)
"""A doubt of every method with another threshold."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One system that the paper compares with, or the paper's own.

    name, title: what it is called; paper, code: where its equations come from; idea: one sentence;
    equations: as lines of text; inference: what is removed then, exactly, or "unchanged"; that
        norms are folded into convolutions goes for all.
    doubts: where paper and code disagree or are silent, each with our choice.
    parts: fields of a recipe that make it this method on anybody's network, for the fair
        comparison (recipes/fair.py); empty: it cannot leave its own network.
    alone: why RMP-Loss cannot be added to it; "" where it can.
    recipes: as published, one per network and data set; rows: the published numbers they answer to.
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
    recipes: tuple[Recipe, ...] = ()
    rows: tuple[Row, ...] = ()
