"""The cards of the systems of the paper's tables, and every published number of theirs."""

import re

import pytest

from rmploss.data import DATASETS
from rmploss.engine.build import check
from rmploss.models import MODELS
from rmploss.neurons import NEURONS
from rmploss.objectives import OBJECTIVES
from rmploss.recipes import FAIR, METHODS, RECIPES, Method, Recipe, Use, fair, use
from rmploss.recipes.pocket import SUFFIX

# Copied from the paper's Tables 2-4: table, data, network, T, accuracy in percent.
PUBLISHED = {
    "stbp": [(2, "cifar10", "cifarnet", 12, 90.53)],
    "tssl": [(2, "cifar10", "tssl-cifarnet", 5, 91.41)],
    "plif": [(2, "cifar10", "plifnet", 8, 93.50)],
    "dsr": [
        (2, "cifar10", "preact-resnet18", 20, 95.40),
        (2, "cifar100", "preact-resnet18", 20, 78.50),
    ],
    "joint": [(2, "cifar10", "joint", 4, 95.45)],
    "diet": [
        (2, "cifar10", "diet-vgg16", 5, 92.70), (2, "cifar10", "diet-vgg16", 10, 93.44),
        (2, "cifar10", "diet-resnet20", 5, 91.78), (2, "cifar10", "diet-resnet20", 10, 92.54),
        (2, "cifar100", "diet-resnet20", 5, 64.07), (2, "cifar100", "diet-vgg16", 5, 69.67),
    ],
    "recdis": [
        (2, "cifar10", "resnet19", 2, 93.64), (2, "cifar10", "resnet19", 4, 95.53),
        (2, "cifar10", "resnet19", 6, 95.55), (3, "cifar10-dvs", "resnet19", 10, 72.42),
    ],
    "tdbn": [
        (2, "cifar10", "resnet19", 2, 92.34), (2, "cifar10", "resnet19", 4, 92.92),
        (2, "cifar10", "resnet19", 6, 93.16), (3, "cifar10-dvs", "resnet19", 10, 67.80),
        (4, "imagenet", "resnet34", 6, 63.72),
    ],
    "tet": [
        (2, "cifar10", "resnet19", 2, 94.16), (2, "cifar10", "resnet19", 4, 94.44),
        (2, "cifar10", "resnet19", 6, 94.50), (2, "cifar100", "resnet19", 2, 72.87),
        (2, "cifar100", "resnet19", 4, 74.47), (2, "cifar100", "resnet19", 6, 74.72),
        (4, "imagenet", "resnet34", 6, 64.79),
    ],
    "inflor": [
        (2, "cifar10", "resnet19", 2, 94.44), (2, "cifar10", "resnet19", 4, 96.27),
        (2, "cifar10", "resnet19", 6, 96.49), (2, "cifar100", "vgg16", 5, 71.56),
        (3, "cifar10-dvs", "resnet19", 10, 75.50),
        (3, "cifar10-dvs", "resnet20", 10, None),  # lost in our copy of the paper
    ],
    "im": [(2, "cifar100", "vgg16", 5, 70.18)],
    "real": [(2, "cifar100", "resnet20", 5, 66.60), (2, "cifar100", "vgg16", 5, 70.62)],
    "liaf": [
        (3, "cifar10-dvs", "liafnet", 10, 70.40), (3, "cifar10-dvs", "liafnet-conv3d", 10, 71.70),
    ],
    "sew": [(4, "imagenet", "sew-resnet18", 4, 63.18), (4, "imagenet", "sew-resnet34", 4, 67.04)],
    "spiking_resnet": [
        (4, "imagenet", "spiking-resnet18", 4, 62.32),
        (4, "imagenet", "spiking-resnet34", 4, 61.86),
    ],
}  # fmt: skip
SINCE = {"mpd_sgr", "tgo", "mpd_agl", "weak2strong"}
"""Published after the paper: on the fair protocol only."""
CHANGES = {
    "vanilla": set(), "rmp": {"objective"}, "tdbn": {"neuron", "network.branches"},
    "inflor": {"neuron"}, "im": {"objective"}, "recdis": {"objective"},
    "stbp": {"neuron", "loss", "network.readout"}, "plif": {"neuron"}, "tet": {"neuron", "loss"},
    "tssl": {"neuron"}, "sew": {"neuron", "network.connect"}, "spiking_resnet": {"neuron"},
    "joint": {"neuron", "loss", "network", "network.backbone"}, "diet": {"neuron"},
    "real": {"neuron"}, "dsr": {"neuron", "norm", "network.readout"},
    "liaf": {"neuron", "norm", "network.readout"},
    "mpd_sgr": {"objective"}, "tgo": {"objective"}, "mpd_agl": {"neuron"},
    "weak2strong": {"auxiliary"},
}  # fmt: skip
"""What makes a method, beyond the protocol that all share."""
RECTANGLE = use("lif", decay=0.25, v_threshold=0.5, surrogate="rectangle")
FANG = use("if", v_threshold=1.0, detach_reset=True, surrogate="arctan")
PLAIN = use("tdbn", factor="none")
RATE = use("resnet20", readout="mean")
REGULARIZERS = ("im", "recdis", "mpd_sgr", "tgo")
"""The methods that are a regularizer, beside RMP-Loss."""
PARTS: dict[str, dict[str, Use]] = {
    "vanilla": {},
    "rmp": {"objective": use("rmp", k=0.1, p=2.0)},
    "tdbn": {"neuron": RECTANGLE, "network": use("resnet20", branches=True)},
    "inflor": {"neuron": use("inflor")},
    "im": {"objective": use("im")},
    "recdis": {"objective": use("recdis")},
    "stbp": {
        "neuron": RECTANGLE.but(v_threshold=0.75), "loss": use("mse"), "network": RATE,
    },
    "plif": {"neuron": use("plif", tau=2.0, v_threshold=1.0, surrogate="arctan")},
    "tet": {
        "neuron": use("lif", decay=0.5, v_threshold=1.0, surrogate="triangle"),
        "loss": use("tet", weight=0.05, target=1.0),
    },
    "tssl": {"neuron": use("tssl")},
    "sew": {"neuron": FANG, "network": use("resnet20", connect="add")},
    "spiking_resnet": {"neuron": FANG},
    "joint": {
        "neuron": RECTANGLE, "network": use("joint", backbone="resnet20"),
        "loss": use("joint", alpha=0.1, beta=1e-6, temperature=3.0),
    },
    "diet": {"neuron": use("diet")},
    "real": {"neuron": use("real", per="channel")},
    "dsr": {"neuron": use("dsr-if", threshold=2.0), "norm": PLAIN, "network": RATE},
    "liaf": {"neuron": use("liaf"), "norm": PLAIN, "network": RATE},
    "mpd_sgr": {"objective": use("mpd_sgr")}, "tgo": {"objective": use("tgo")},
    "mpd_agl": {"neuron": use("mpd_agl")},
    "weak2strong": {"auxiliary": use("self_distillation", temperature=2.0, readout="sum")},
}  # fmt: skip
"""The same in full: what the fair comparison puts into the protocol."""


@pytest.fixture(params=METHODS.values(), ids=list(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    """Every card."""
    return request.param


def test_all_systems_of_the_tables_are_here() -> None:
    assert set(METHODS) == {*PUBLISHED, *SINCE, "vanilla", "rmp"}
    assert not any(METHODS[name].recipes or METHODS[name].rows for name in SINCE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers(name: str) -> None:
    found = []
    for row in METHODS[name].rows:
        recipe = RECIPES[row.recipe]
        found.append((row.table, recipe.data.name, recipe.network.name, row.T, row.accuracy))
    assert sorted(found) == sorted(PUBLISHED[name])


def test_a_card_says_what_it_is(method: Method) -> None:
    for text in (method.title, method.paper, method.idea, method.equations):
        assert text
    assert re.search(r"\b20[12]\d\b", method.paper)  # a year
    assert method.doubts or method.name == "vanilla"
    assert method.code or method.name == "vanilla"


def test_every_recipe_has_a_pocket_variant(method: Method) -> None:
    for recipe in method.recipes:
        pocket = RECIPES[recipe.name + SUFFIX]
        assert pocket.pocket
        assert pocket.network.options["width"] <= 0.25  # pyright: ignore[reportOperatorIssue]
        assert pocket.name not in {row.recipe for row in method.rows}


def differences(recipe: Recipe, other: Recipe) -> set[str]:
    """The fields, and options of the network, in which two recipes differ."""
    fields = vars(recipe).keys() - {"name", "title", "expect", "network"}
    found = {f for f in fields if getattr(recipe, f) != getattr(other, f)}
    ours, theirs = dict(recipe.network.options), dict(other.network.options)
    found |= {
        f"network.{option}"
        for option in ours.keys() | theirs.keys()
        if ours.get(option) != theirs.get(option)
    }
    return found | ({"network"} if recipe.network.name != other.network.name else set())


@pytest.mark.parametrize("suffix", ["", SUFFIX])
@pytest.mark.parametrize("recipe", FAIR, ids=lambda recipe: recipe.name)
def test_only_the_method_differs(recipe: Recipe, suffix: str) -> None:
    name = recipe.name.removeprefix(fair.PREFIX).removesuffix(fair.WITH_RMP)
    added = {"objective"} if recipe.name.endswith(fair.WITH_RMP) else set()
    protocol = RECIPES["fair-vanilla" + suffix]
    assert differences(RECIPES[recipe.name + suffix], protocol) == CHANGES[name] | added


def test_the_parts_of_a_method_in_the_fair_comparison(method: Method) -> None:
    assert dict(method.parts) == PARTS[method.name]
    for suffix in ("", fair.WITH_RMP):
        recipe = RECIPES.get(f"fair-{method.name}{suffix}")
        for field, part in PARTS[method.name].items():
            if recipe is not None and (field, suffix) != ("objective", fair.WITH_RMP):
                assert getattr(recipe, field) == part


def test_the_protocol_is_the_vanilla_network_of_table_1() -> None:
    paper, ours = RECIPES["cifar10-resnet20"], RECIPES["fair-vanilla"]
    assert ours.but(name=paper.name, title=paper.title) == paper
    assert (ours.network, ours.T) == (use("resnet20"), 4)


def test_rmp_is_added_wherever_a_membrane_is_regularized(method: Method) -> None:
    """A card and its neuron give the same reason, or none."""
    if "neuron" in method.parts:
        neuron = method.parts["neuron"]
        why_not = NEURONS.make(neuron.name, 1, **neuron.options).unregularized
        assert method.alone == (why_not or "")
    alone = {"vanilla", "rmp", "tssl", "dsr", "liaf"}
    assert bool(method.alone) == (method.name in alone)
    assert (f"fair-{method.name}-rmp" in RECIPES) == (method.name not in alone)
    combined = RECIPES.get(f"fair-{method.name}-rmp")
    if combined is not None and method.name not in REGULARIZERS:
        assert combined.objective == PARTS["rmp"]["objective"]


@pytest.mark.parametrize("name", REGULARIZERS)
def test_rmp_is_added_to_a_regularizer_and_changes_nothing_else(name: str) -> None:
    # "several" makes each with its defaults: the cards must have no other options.
    alone, both = RECIPES[f"fair-{name}"], RECIPES[f"fair-{name}-rmp"]
    assert both.objective == use("several", names=(name, "rmp"))
    assert alone.objective == use(name)
    defaults = OBJECTIVES.complete("rmp", {})
    assert OBJECTIVES.complete("rmp", RECIPES["fair-rmp"].objective.options) == defaults


@pytest.mark.parametrize("recipe", FAIR, ids=lambda recipe: recipe.name)
def test_the_fair_comparison_can_run(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS["cifar10"], "missing", lambda self, root: [])
    check(recipe)


def test_networks_of_recipes_exist(method: Method) -> None:
    assert all(recipe.network.name in MODELS for recipe in method.recipes)
