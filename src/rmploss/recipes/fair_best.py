"""The fair comparison, every system at its best: the network, data, T and epochs are the same, and
optimizer, rate, decay and two or three numbers of the system's own are chosen by tries.

    a try     trains on the training images without a held-out share, and is tested on that share
    a report  trains on all training images with the chosen setting, and is tested on the test split

Every system has the same tries: its setting in the fair comparison, then one for each of `STEPS`,
in which each of its own numbers goes through its candidates in orders that a hash draws. All tries
have one seed, which no report has. The setting with the highest accuracy of the last epoch is
chosen, the earlier one of equals. It is reported alone, and with RMP-Loss added as published
(k = 0.1, p = 2); the vanilla network with RMP-Loss is a system of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rmploss.randomness import derive
from rmploss.recipes.fair import PREFIX, WITH_RMP, fair, objective_with_rmp
from rmploss.recipes.methods import METHODS
from rmploss.recipes.pocket import SUFFIX, fair_pocket
from rmploss.recipes.recipe import Recipe, Value, override

Setting = dict[str, Value]
"""Fields of a recipe by dotted name, as of `--set`; empty: the fair comparison's."""
Candidates = Mapping[str, tuple[Value, ...]]


@dataclass(frozen=True)
class Step:
    """What a try has in common with those of all systems.

    optimizer: its name.
    rate: the peak of its learning rate; of SGD as a factor of the comparison's own, which suits
        its number of steps.
    weight_decay: of all parameters.
    """

    optimizer: str
    rate: float
    weight_decay: float

    def rate_beside(self, own: float) -> float:
        """The peak of the learning rate where the comparison's own, of SGD, is `own`."""
        # 3 * 0.1 is 0.30000000000000004, another number to a fingerprint.
        return float(f"{self.rate * own:.6g}") if self.optimizer == "sgd" else self.rate


STEPS = (
    Step("adam", 0.003, 0.0),
    Step("sgd", 3.0, 1e-4),
    Step("adam", 0.01, 1e-4),
    Step("adam", 0.001, 0.0),
    Step("sgd", 0.3, 5e-4),
)
"""Of the tries after the first, of every system."""
_VANILLA: Candidates = {"neuron.decay": (0.25, 0.5, 0.9), "norm.alpha": (0.75, 1.0, 1.5)}
OWN: Mapping[str, Candidates] = {
    "vanilla": _VANILLA,
    "rmp": {**_VANILLA, "objective.k": (0.03, 0.1, 0.3, 1.0), "objective.p": (1.0, 2.0)},
    "tdbn": {"neuron.decay": (0.1, 0.25, 0.5), "norm.alpha": (0.75, 1.0, 1.5)},
    "inflor": {
        "norm.alpha": (0.75, 1.0, 1.5),
        "neuron.surrogate": ("clipped_tanh", "rectangle"),
    },
    "im": {"objective.weight": (0.2, 0.7, 2.0), "objective.schedule": ("constant", "triangle")},
    "recdis": {"objective.weight": (0.1, 0.3, 1.0), "objective.schedule": ("constant", "triangle")},
    "stbp": {"neuron.decay": (0.1, 0.25, 0.5), "neuron.v_threshold": (0.25, 0.5, 0.75)},
    "plif": {"neuron.tau": (1.5, 2.0, 4.0), "neuron.v_threshold": (0.5, 1.0)},
    "tet": {
        "loss.weight": (0.0, 0.05, 0.3),
        "neuron.decay": (0.25, 0.5),
        "neuron.v_threshold": (0.5, 1.0),
    },
    "tssl": {
        "neuron.tau_m": (2.0, 5.0, 10.0),
        "neuron.tau_s": (1.0, 2.0),
        "neuron.v_threshold": (0.5, 1.0),
    },
    "sew": {"neuron.v_threshold": (0.5, 1.0), "network.connect": ("add", "and", "iand")},
    "spiking_resnet": {"neuron.v_threshold": (0.5, 1.0), "norm.alpha": (0.75, 1.0, 1.5)},
    "joint": {"loss.alpha": (0.03, 0.1, 0.3), "loss.temperature": (1.0, 3.0)},
    "diet": {
        "neuron.leak": (0.5, 0.9, 1.0),
        "neuron.threshold": (0.5, 1.0),
        "neuron.surrogate": (None, "triangle"),
    },
    "real": {"neuron.decay": (0.25, 0.5, 0.9), "neuron.per": ("channel", "layer")},
    "dsr": {"neuron.threshold": (1.0, 2.0, 4.0), "neuron.alpha": (0.3, 0.5)},
    "liaf": {
        "neuron.decay": (0.3, 0.5, 0.7),
        "neuron.activation": ("selu", "relu"),
        "neuron.threshold_related": (False, True),
    },
    "mpd_sgr": {
        "objective.weight": (0.1, 1.0, 10.0),
        "objective.schedule": ("constant", "triangle"),
    },
    "tgo": {"objective.weight": (1.0, 10.0, 100.0), "objective.delta": (0.1, 0.25, 0.5)},
    "mpd_agl": {"neuron.decay": (0.25, 0.5, 0.9), "norm.alpha": (0.75, 1.0, 1.5)},
    "weak2strong": {"auxiliary.weight": (0.3, 1.0, 4.0), "auxiliary.temperature": (1.0, 2.0, 4.0)},
}
"""The systems: the numbers of each that are tried, and their candidates. (None: the default.)"""
BASES = {"rmp": "vanilla"}
"""A system that adds to another one -> that one, whose numbers it tries as that one does."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The sizes of a comparison.

    name: of the comparison.
    pocket: that of the pocket variants.
    changes: what it changes in the recipes of the fair comparison.
    tries: the budget of a system.
    try_epochs: passes over the training images in a try.
    try_samples: training images of a try before `validation` takes its share; None: a report's.
    validation: the share of a try's training images that it is tested on, without training on them.
    try_seed: of all tries.
    seeds: of the reports.
    """

    name: str = "fair-best"
    pocket: bool
    changes: Mapping[str, Any] = field(default_factory=dict)
    tries: int
    try_epochs: int
    try_samples: int | None = None
    validation: float
    try_seed: int = 9
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def file(self) -> str:
        """The name of the file of its rows."""
        return f"{self.name}{SUFFIX if self.pocket else ''}.csv"

    def recipe(self, system: str, setting: Setting, *, rmp: bool = False) -> Recipe:
        """The recipe of a report; rmp: with RMP-Loss added."""
        recipe = fair(METHODS[system])
        recipe = fair_pocket(recipe) if self.pocket else recipe
        recipe = override(recipe.but(**self.changes), setting)
        if not rmp:
            return recipe
        name = f"{PREFIX}{system}{WITH_RMP}" + SUFFIX * self.pocket
        title = recipe.title.replace(", fair", " + RMP-Loss, fair")
        both = objective_with_rmp(recipe.objective)
        return recipe.but(name=name, title=title, objective=both)

    def try_of(self, system: str, setting: Setting) -> Recipe:
        """The recipe of a try."""
        recipe = self.recipe(system, setting)
        return recipe.but(
            epochs=self.try_epochs,
            train_samples=self.try_samples or recipe.train_samples,
            validation=self.validation,
            test_samples=None,
            seed=self.try_seed,
        )

    def settings(self, system: str) -> tuple[Setting, ...]:
        """The settings of the tries of a system, the fair comparison's first."""
        rate = self.recipe(system, {}).lr
        return ({}, *(_setting(system, number, rate) for number in range(self.tries - 1)))


def _setting(system: str, number: int, rate: float) -> Setting:
    """That of a try after the first: the step of all systems, and a candidate of each own number.

    rate: the comparison's own peak, of SGD.
    """
    step = STEPS[number]
    own = {name: _candidate(system, name, values, number) for name, values in OWN[system].items()}
    training: Setting = {
        "optimizer": step.optimizer,
        "lr": step.rate_beside(rate),
        "weight_decay": step.weight_decay,
    }
    return {**training, **own}


def _candidate(system: str, name: str, values: tuple[Value, ...], number: int) -> Value:
    """That of an own number in a try: all candidates once, in a drawn order, then all in another.

    The orders of two numbers are independent, so no two go in step.
    """
    turn, place = divmod(number, len(values))
    base = BASES.get(system, system)
    drawn_for = base if name in OWN[base] else system
    order = sorted(
        range(len(values)), key=lambda which: derive(0, "fair-best", drawn_for, name, turn, which)
    )
    return values[order[place]]


FULL = Protocol(pocket=False, tries=6, try_epochs=45, validation=0.1)
"""The fair comparison's size: 400 epochs of all images; a try takes 45 of nine tenths."""
POCKET = Protocol(
    pocket=True,
    changes={
        "T": 2,
        "epochs": 3,
        "batch_size": 16,
        "train_samples": 1000,
        "test_samples": 400,
    },
    tries=6,
    try_epochs=3,
    try_samples=2000,
    validation=0.5,
)
"""Smaller than the pocket size of the fair comparison: its reports take seconds, not minutes.

A try trains on as many images as a report, and is tested on as many more."""


def with_rmp_too(system: str) -> bool:
    """True for a system that is reported with RMP-Loss, too."""
    return not METHODS[system].alone


def spelled(setting: Setting) -> str:
    """A setting in the words of `--set`: "optimizer=adam lr=0.003"; "" for the fair one."""
    return " ".join(f"{name}={_word(value)}" for name, value in setting.items())


def _word(value: Value) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
