"""`rmploss list`: recipes, methods, the entries of a registry, the readings of the paper."""

import shutil
import textwrap
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from tyro.conf import Positional, arg

from rmploss import recipes
from rmploss.cli.sign_of_life import waiting
from rmploss.cli.wrapping import say
from rmploss.errors import UserError
from rmploss.recipes.fair import PREFIX

OF_METHODS = {
    recipe.name
    for method in recipes.METHODS.values()
    if method.name != "rmp"
    for recipe in method.recipes
}
"""The recipes of other methods than RMP-Loss."""

Topic = Literal[
    "recipes",
    "all",
    "methods",
    "networks",
    "neurons",
    "surrogates",
    "norms",
    "losses",
    "auxiliaries",
    "objectives",
    "schedules",
    "optimizers",
    "lr-schedules",
    "averages",
    "starts",
    "data",
    "readings",
]


@dataclass(frozen=True)
class List:
    """Show recipes, methods, or the entries that a field of a recipe can name.

    $ rmploss list                 the main recipes, a line each
    $ rmploss list all             all recipes, published and measured results
    $ rmploss list methods         the paper's systems: equations, sources
    $ rmploss list objectives      the regularizers and their options
    $ rmploss list readings        the open points of the paper, and our choices
    """

    topic: Annotated[
        Positional[Topic], arg(metavar="TOPIC", help=f"One of {', '.join(get_args(Topic))}.")
    ] = "recipes"
    """The list to show."""

    def run(self) -> int:
        """Print it."""
        if self.topic == "recipes":
            _print_main_recipes()
        elif self.topic == "all":
            _print_recipes()
        elif self.topic == "methods":
            _print_methods()
        elif self.topic == "readings":
            _print_readings()
        else:
            _print_registry(self.topic)
        return 0


def _print_main_recipes() -> None:
    """A line for every recipe of the paper, of digits and of own data; the others are counted."""
    others = Counter(kind for name in recipes.RECIPES if (kind := _kind(name)))
    main = [recipe for name, recipe in recipes.RECIPES.items() if not _kind(name)]
    width = max(len(recipe.name) for recipe in main) + 2
    for recipe in main:
        say(f"{recipe.name:<{width}}{recipe.title}", width)
    print()
    for kind, count in others.items():
        say(f"and {count} {kind}", 4)
    say("rmploss list all shows them all, with published and measured results", 2)


def _kind(name: str) -> str:
    """The kind of a recipe that is not listed by default; "": it is."""
    if name.endswith(recipes.SUFFIX):
        return f"of pocket size: minutes on a CPU (NAME{recipes.SUFFIX})"
    if name.startswith(PREFIX):
        return f"of the fair comparison: only the method differs ({PREFIX}METHOD)"
    if name in OF_METHODS:
        return "of other methods (rmploss list methods)"
    return "with fewer epochs (NAME-fast)" if "-fast" in name else ""


def _print_recipes() -> None:
    for name, recipe in recipes.RECIPES.items():
        print(name)
        _print_indented(recipe.title)
        published = [
            f"published at T={row.T}: {row.words} % (Table {row.table})"
            for row in recipes.ROWS
            if row.recipe == name
        ]
        for line in dict.fromkeys(published):
            _print_indented(line)
        if recipe.expect:
            _print_indented("expect: " + recipe.expect)


def _print_indented(text: str) -> None:
    """Print text below a name, wrapped at the width of the terminal (80 columns without one)."""
    width = max(shutil.get_terminal_size().columns, 40)
    print(textwrap.fill(text, width, initial_indent="    ", subsequent_indent="      "))


def _print_methods() -> None:
    for method in recipes.METHODS.values():
        print(f"{method.title}   ({method.name})")
        parts = {"paper": method.paper, "code": method.code, "idea": method.idea}
        parts["in inference"] = method.inference
        parts["RMP-Loss is not added"] = method.alone
        parts["in the fair comparison"] = method.reservation
        parts |= method.unlearnt
        for head, text in parts.items():
            if text:
                _print_wrapped(f"{head}: {text}")
        for line in method.equations.splitlines():
            print(f"        {line}")
        for doubt in method.doubts:
            _print_wrapped(f"- {doubt}")
        fair = {f"fair-{method.name}", f"fair-{method.name}-rmp"}
        names = [recipe.name for recipe in method.recipes]
        names += [recipe.name for recipe in recipes.FAIR if recipe.name in fair]
        _print_wrapped("recipes: " + ", ".join(names))
        print()


def _print_wrapped(text: str) -> None:
    print(textwrap.fill(text, 92, initial_indent="    ", subsequent_indent="      "))


def _print_readings() -> None:
    for reading in recipes.READINGS:
        code = f"{reading.code}  |  --mode code {reading.taken}"
        code = reading.code if reading.taken == reading.code else code
        print(f"{reading.field}:  paper {reading.paper}  |  the group's code {code}")
        print(textwrap.fill(reading.reason, 88, initial_indent="    ", subsequent_indent="    "))


def _print_registry(topic: str) -> None:
    with waiting("loading PyTorch"):
        import torch  # noqa: F401

    from rmploss.data import DATASETS
    from rmploss.engine.averaging import AVERAGES
    from rmploss.engine.optimizers import LR_SCHEDULES, OPTIMIZERS
    from rmploss.engine.starts import STARTS
    from rmploss.models import MODELS
    from rmploss.neurons import NEURONS
    from rmploss.norm import NORMS
    from rmploss.objectives import AUXILIARIES, LOSSES, OBJECTIVES, SCHEDULES
    from rmploss.surrogate import SURROGATES

    registries = {
        "networks": MODELS,
        "neurons": NEURONS,
        "surrogates": SURROGATES,
        "norms": NORMS,
        "losses": LOSSES,
        "auxiliaries": AUXILIARIES,
        "objectives": OBJECTIVES,
        "schedules": SCHEDULES,
        "optimizers": OPTIMIZERS,
        "lr-schedules": LR_SCHEDULES,
        "averages": AVERAGES,
        "starts": STARTS,
        "data": DATASETS,
    }
    registry = registries[topic]
    width = max(map(len, registry), default=0) + 2
    for name in registry:
        try:
            about = (registry[name].__doc__ or "no description").strip().splitlines()[0]
            options = registry.spelled_options(name)
        except UserError as error:  # of a plug-in
            about, options = f"cannot be used: {_one_line(error)}", {}
        print(f"{name:<{width}}{about}")
        for option, spelled in options.items():
            print(f"{'':<{width}}  {option}: {spelled}")


def _one_line(error: UserError) -> str:
    return "; ".join(f"{p.where}: {p.what}" for p in error.problems) or error.title
