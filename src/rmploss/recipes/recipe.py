"""A recipe: everything that decides the result of a training run, as frozen data.

Names are those of the registries (`rmploss list`); options are those of the named entry.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal, Self

from rmploss.errors import Problem, UserError, unknown
from rmploss.registry import fits, spell

FIXED = ("name", "title", "expect", "pocket")
"""The fields of a recipe that no override changes."""
Value = str | float | int | bool | None | tuple["Value", ...]


@dataclass(frozen=True)
class Use:
    """An entry of a registry by name, with its options."""

    name: str
    options: Mapping[str, Value] = field(default_factory=dict)

    def but(self, **options: Value) -> "Use":
        """The same entry with some options changed."""
        return Use(self.name, {**self.options, **options})


def use(name: str, **options: Value) -> Use:
    """`use("rmp", k=0.1)`: an entry of a registry and its options."""
    return Use(name, options)


LARGEST = 1e38
"""Above this a number is infinite in float32."""
RETIRED = {"neuron": ("backend",)}
"""Options in recipes of earlier versions that never changed a result: they are ignored."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run.

    name, title: short and full.
    expect: the measured result and cost of the unchanged recipe (recipes/expected.py); "": not run.
    data, network, neuron, norm: entries of their registries.
    T: time steps.
    loss: of the classification, an entry of its registry.
    auxiliary: a loss over the outputs of the steps, added to `loss`, an entry of its registry.
    objective: the regularizer of the membrane, an entry of its registry.
    optimizer: an entry of its registry.
    lr: peak learning rate.
    lr_schedule: "cosine" falls to 0, once per epoch as in the authors' code; "onecycle" rises over
        the first 30 % of the steps and falls to 0 over the rest.
    average: of the weights, an entry of its registry; the run is then tested with both weights.
    start: the initial weights: "none" draws them from the seed, another entry takes those of a run
        (`--start`).
    epochs: passes over the training split.
    batch_size: global, over all ranks.
    accumulate: the number of parts in which a batch is processed, one after the other. Norms and
        regularizers of mean and deviation (all but RMP-Loss) see one part at a time.
    clip_norm: the bound to which gradients are scaled down, by their norm over all parameters.
    weight_decay: not stated in the paper; 1e-4 is that of the authors' code.
    weight_decay_on: "all" parameters, as in the authors' code; "weights" leaves out gains, offsets
        and biases, as in their later code.
    amp: "bf16" or "fp16" runs convolutions in that type, in training and in tests; membranes stay
        float32.
    train_samples, test_samples: sizes of class-balanced subsets of the splits; None: all samples.
    validation: the share of the training samples of every class, the same for every seed, that
        are not trained on and replace the test split; None: the test split.
    pocket: True for a pocket variant: no published number is comparable.
    seed: of all randomness.
    """

    name: str
    title: str
    expect: str = ""
    data: Use
    network: Use
    T: int
    neuron: Use = Use("lif")
    norm: Use = Use("tdbn")
    loss: Use = Use("ce")
    auxiliary: Use = Use("none")
    objective: Use = Use("none")
    optimizer: Use = Use("sgd", {"momentum": 0.9})
    lr: float
    lr_schedule: Use = Use("cosine")
    average: Use = Use("none")
    start: Use = Use("none")
    epochs: int
    batch_size: int
    accumulate: int = 1
    clip_norm: float | None = None
    weight_decay: float = 1e-4
    weight_decay_on: Literal["all", "weights"] = "all"
    amp: Literal["off", "bf16", "fp16"] = "off"
    train_samples: int | None = None
    test_samples: int | None = None
    validation: float | None = None
    pocket: bool = False
    seed: int = 0

    @property
    def tested_on(self) -> str:
        """The word for the split that results are of: "test", or "validation" in its place."""
        return "test" if self.validation is None else "validation"

    def but(self, **changes: Any) -> "Recipe":
        """The same recipe with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON data, for `from_json`."""
        values = dataclasses.asdict(self)
        return json.loads(json.dumps(values, allow_nan=False))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The recipe of `to_json`. Raises `UserError` for unknown or missing fields.

        A field with a default may be missing: an earlier version, without the field, stored it.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        problems = [unknown(key, key, names) for key in stored if key not in names]
        if problems:
            raise UserError("not a recipe of this version", problems)
        values = {key: _read(value) for key, value in stored.items()}
        for part, gone in RETIRED.items():
            if isinstance(use := values.get(part), Use):
                kept = {key: v for key, v in use.options.items() if key not in gone}
                values[part] = Use(use.name, kept)
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"not a recipe: {error}") from None

    def fingerprint(self) -> str:
        """SHA-256 of all fields that decide the result except the seed: equal for repeats of a run.

        Fields at their defaults are left out, so that a new field does not change fingerprints. For
        the same reason the default of a field never changes.
        """
        ignored = ("name", "title", "expect", "seed")
        defaults = {f.name: f.default for f in dataclasses.fields(self) if f.default is not MISSING}
        defaults = json.loads(json.dumps(defaults, default=dataclasses.asdict))
        values = {
            key: value
            for key, value in self.to_json().items()
            if key not in ignored and defaults.get(key, MISSING) != value
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def apply(recipe: Recipe, changes: Mapping[str, Value]) -> tuple[Recipe, list[Problem]]:
    """Change fields by dotted names, {"T": 6, "objective.k": 1.0}; returns recipe and problems.

    "objective" without an option names another entry, with its default options. A change of an
    unknown field, or to a wrong type, is not made and is returned as a problem.
    """
    fields = {f.name: f for f in dataclasses.fields(Recipe) if f.name not in FIXED}
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    # Names of entries before their options, in any order of the command line.
    for key, value in sorted(changes.items(), key=lambda change: "." in change[0]):
        head, _, option = key.partition(".")
        if head not in fields:
            problems.append(unknown(key, head, fields))
            continue
        current = values.get(head, getattr(recipe, head))
        hint = fields[head].type
        if isinstance(current, Use) and not option and value is None:
            value = "none"  # the entry of that name, which the command line parses as None
        if isinstance(current, Use) and option:
            values[head] = current.but(**{option: value})
        elif isinstance(current, Use) and isinstance(value, str):
            values[head] = current if value == current.name else Use(value)
        elif option or isinstance(current, Use) or not fits(value, hint):
            problems.append(Problem(f"{key} = {value!r}", f"must be {_words(hint)}"))
        else:
            values[head] = float(value) if hint is float else value  # pyright: ignore[reportArgumentType]
    if any(value != getattr(recipe, name) for name, value in values.items() if name != "seed"):
        values["expect"] = ""  # it was measured on the unchanged recipe
    return recipe.but(**values), problems


def override(recipe: Recipe, changes: Mapping[str, Value]) -> Recipe:
    """`apply`, but problems are raised as one `UserError`."""
    changed, problems = apply(recipe, changes)
    if problems:
        raise UserError(problem_count(problems, recipe.name), problems)
    return changed


def problem_count(problems: list[Problem], name: str) -> str:
    """The title of an error about a recipe: "3 problems in the recipe cifar10-resnet20-rmp"."""
    return f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the recipe {name}"


def problems_in(recipe: Recipe) -> list[Problem]:
    """All problems of the numbers of a recipe."""
    problems = [
        Problem(f"{name} = {getattr(recipe, name)!r}", "must be at least 1")
        for name in ("T", "epochs", "batch_size", "accumulate")
        if getattr(recipe, name) < 1
    ]
    if not 0 < recipe.lr < LARGEST:
        what = "must be positive and below 1e38 (float32)"
        problems.append(Problem(f"lr = {recipe.lr!r}", what, "the paper: 0.01, CIFAR"))
    if not 0 <= recipe.weight_decay < 1:
        problems.append(Problem(f"weight_decay = {recipe.weight_decay!r}", "must lie in [0, 1)"))
    if recipe.accumulate >= 1 and recipe.batch_size % recipe.accumulate:
        problems.append(
            Problem(
                f"accumulate = {recipe.accumulate}",
                f"does not divide batch_size = {recipe.batch_size}",
            )
        )
    for name in ("train_samples", "test_samples"):
        value = getattr(recipe, name)
        if value is not None and value < 1:
            problems.append(Problem(f"{name} = {value}", "must be at least 1, or none for all"))
    samples = recipe.train_samples
    if samples is not None and 1 <= samples < recipe.batch_size:
        what = f"only {samples} training samples, so no batch is full"
        problems.append(Problem(f"batch_size = {recipe.batch_size}", what, f"at most {samples}"))
    share = recipe.validation
    if share is not None and not 0 < share < 1:
        where = f"validation = {share!r}"
        problems.append(Problem(where, "must lie in (0, 1)", "0.1, or none for the test split"))
    if recipe.clip_norm is not None and not 0 < recipe.clip_norm < float("inf"):
        problems.append(Problem(f"clip_norm = {recipe.clip_norm!r}", "must be positive, or none"))
    if recipe.seed < 0:
        problems.append(Problem(f"seed = {recipe.seed}", "must not be negative"))
    return problems


def _read(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"name", "options"}:
        return Use(value["name"], {key: _tuples(item) for key, item in value["options"].items()})
    return value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _words(hint: Any) -> str:
    return "a name that `rmploss list` shows" if hint is Use else spell(hint)
