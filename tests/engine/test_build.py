"""A recipe's parts are built, and all its problems reported before anything is written."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rmploss import LIF, TDBatchNorm2d, recipes
from rmploss.engine.build import (
    PARTS,
    check,
    make_dataset,
    make_network,
    make_objective,
    resolve,
    restore_none_words,
    unlike_readout,
)
from rmploss.engine.execution import Execution
from rmploss.errors import Problem, UserError
from rmploss.objectives import RMPLoss
from tests.engine.runs import TINY

DIGITS = recipes.get("digits-rmp")


def complaint(changes: dict[str, Any], ranks: int = 1) -> str:
    with pytest.raises(UserError) as caught:
        check(recipes.override(DIGITS, changes), Path("nowhere"), ranks)
    return str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("network.in_channels", 5, "network.in_channels: follows from the data"),
        ("network.num_classes", 3, "network.num_classes: follows from the data"),
        ("network.T", 3, "network.T: follows from T"),
        ("network.neuron", "if", "network.neuron: follows from neuron"),
        ("network.norm", 1, "network.norm: follows from norm"),
        ("network.width", 0.0, "network.width = 0.0: must be positive"),
        ("network.width", float("nan"), "network.width = nan: must be finite"),
        ("network.width", float("inf"), "network.width = inf: must be finite"),
        ("network", "vgg16", "cannot take the inputs [1, 8, 8] of digits"),
        ("neuron.backend", "cpu", 'neuron.backend: unknown "backend"'),
        ("neuron.carry_state", True, "from one batch to the next"),
        ("neuron.v_reset", float("-inf"), "must be finite"),
        ("norm.eps", -1.0, "eps"),
        ("objective.p", 0, "objective: p = 0: must be positive (Eq. 9)"),
        ("objective.schedule", "trapeze", "triangle"),
        ("optimizer.momentum", -1.0, "momentum = -1.0: must lie in [0, 1)"),
        ("optimizer.momentum", float("inf"), "must be finite"),
        ("optimizer.nesterov", "yes", "must be true or false"),
        ("data.augment", 3, "must be true or false"),
        ("optimizer.momentum", 1.0, "momentum = 1.0: must lie in [0, 1)"),
        ("T", 4097, "T = 4097: more than 4096 time steps"),
        ("network.width", 1e9, "network.width = 1000000000.0"),
        ("network.width", 1e4, "network.width = 10000.0: the parameters: at least"),
        ("accumulate", 3, "accumulate = 3: does not divide batch_size = 64"),
    ],
)
def test_recipes_that_cannot_be_trained_are_refused(field: str, value: Any, message: str) -> None:
    assert message in complaint({field: value})


def test_a_batch_that_the_ranks_cannot_share() -> None:
    message = complaint({"batch_size": 50, "accumulate": 5}, ranks=2 * 2)
    assert "batch_size = 50: is not divisible by 4 ranks x accumulate = 5" in message
    assert message.endswith("try 40 or 60")
    check(TINY, None, 4)  # 8 each


def test_all_problems_are_reported_together_with_earlier_ones() -> None:
    recipe = recipes.override(
        recipes.get("cifar10-resnet20-rmp"),
        {"T": 0, "lr": -1.0, "neuron.decay": 2.0, "norm.factor": "inside", "seed": -1},
    )
    with pytest.raises(UserError) as caught:
        check(recipe, Path("nowhere"), earlier=[Problem("--foo", "is unknown")])
    places = [problem.where for problem in caught.value.problems]
    assert places == [
        "--foo",
        "T = 0",
        "lr = -1.0",
        "seed = -1",
        "neuron: decay = 2.0",
        "norm.factor = 'inside'",
        "nowhere/cifar-10-batches-py",
    ]
    assert caught.value.title == "7 problems in the recipe cifar10-resnet20-rmp"


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_can_be_trained_once_its_data_is_there(name: str, tmp_path: Path) -> None:
    recipe, problems = recipes.get(name), ()
    try:
        check(recipe, tmp_path)
    except UserError as error:
        problems = error.problems
    assert list(problems) == make_dataset(recipe).missing(tmp_path)


@pytest.mark.parametrize("name", [recipe.name for recipe in recipes.FAIR])
def test_the_options_of_the_fast_recipes_combine_with_every_method(
    name: str, tmp_path: Path
) -> None:
    both = ("every_step", "self_distillation")
    extra = {"loss.smoothing": 0.1, "auxiliary": "several", "auxiliary.names": both}
    extra |= {"average": "ema", "average.decay": 0.99}
    recipe = recipes.override(recipes.get(name), extra)
    with pytest.raises(UserError) as caught:
        check(recipe, tmp_path)
    missing = make_dataset(recipe).missing(tmp_path)
    others = [problem for problem in caught.value.problems if problem not in missing]
    # The heads of Joint A-SNN are read out already: there are no steps.
    expected = ["auxiliary = several with network = joint"] if "joint" in name else []
    assert [problem.where for problem in others] == expected


def test_one_step_has_no_other_to_learn_from() -> None:
    changes = {"T": 1, "auxiliary": "self_distillation"}
    assert "one step teaches another, and there is only one" in complaint(changes)
    check(TINY.but(T=1, auxiliary=recipes.use("every_step")))


@pytest.mark.parametrize("norm", ["none", "bn_step"])
def test_neurons_that_follow_a_gain_need_one(norm: str) -> None:
    assert "no gain that its neurons could follow" in complaint({"neuron": "mpd_agl", "norm": norm})
    check(TINY.but(neuron=recipes.use("mpd_agl")))


def test_a_check_leaves_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    check(TINY)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_parts_have_the_options_of_the_recipe() -> None:
    changes = {"neuron.v_threshold": 0.75, "neuron.decay": 0.5, "norm.alpha": 2.0, "objective.k": 3}
    recipe = recipes.override(TINY, changes)
    net = make_network(recipe, make_dataset(recipe))
    neurons = [module for module in net.modules() if isinstance(module, LIF)]
    norms = [module for module in net.modules() if isinstance(module, TDBatchNorm2d)]
    assert {(n.v_threshold, n.decay) for n in neurons} == {(0.75, 0.5)}
    assert {norm.scale for norm in norms} == {2.0 * 0.75}  # the norm follows the threshold (Eq. 6)
    assert net.T == TINY.T
    objective = make_objective(recipe)
    assert isinstance(objective, RMPLoss)
    assert objective.weight(0.5) == 3


def test_initial_weights_do_not_depend_on_what_was_drawn_before() -> None:
    first = make_network(TINY, make_dataset(TINY)).state_dict()
    torch.rand(7)
    second = make_network(TINY, make_dataset(TINY)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_field_that_names_an_entry_has_its_table() -> None:
    named = {name for name, value in vars(DIGITS).items() if isinstance(value, recipes.Use)}
    assert named == set(PARTS)


def test_none_is_a_word_where_an_option_has_it() -> None:
    recipe = TINY.but(
        norm=recipes.use("tdbn", factor=None), neuron=recipes.use("lif", v_reset=None)
    )
    read = restore_none_words(recipe)
    assert read.norm == recipes.use("tdbn", factor="none")
    assert read.neuron == recipes.use("lif", v_reset=None)
    unknown = TINY.but(norm=recipes.use("nrom", factor=None))
    assert restore_none_words(unknown) == unknown


def test_parts_that_do_not_fit_together_are_refused() -> None:
    assert "objective = rmp with neuron = liaf: its output is a real number" in complaint(
        {"neuron": "liaf"}
    )
    assert "loss = joint with network = convnet: the loss needs branches" in complaint(
        {"loss": "joint"}
    )
    assert "the network gives branches" in complaint({"network": "joint"})
    hybrid = {"start": "hybrid", "start.ann": "x", "objective": "none"}
    assert "start = hybrid with neuron = lif: calibrates learnt thresholds" in complaint(hybrid)
    released = {"objective": "im", "objective.version": "released", "objective.T": 9}
    assert "objective.T = 9: differs from the recipe" in complaint(released)
    tssl = {"neuron": "tssl", "loss": "van_rossum", "objective": "none"}
    assert "loss.tau_s = 2.0: the target must have the filter of the outputs" in complaint(
        {**tssl, "neuron.generation": "B"}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "van_rossum", "loss.pattern": (0, 1, 1), "T": 2}, "has 3 steps, the outputs"),
        ({"objective.exclude": ("*",)}, "no spiking layer matches"),
        ({"network.readout": "weighted", "network": "preact-resnet18"}, "LIF has none"),
    ],
)
def test_the_dry_run_reports_what_a_step_would_raise(changes: dict[str, Any], message: str) -> None:
    assert message in complaint(changes)


def test_a_network_without_neurons_takes_no_regularizer() -> None:
    with pytest.raises(UserError, match="an analog layer has no spikes"):
        check(recipes.get("cifar10-dvs-liaf-liafnet-conv3d").but(objective=recipes.use("rmp")))


def test_a_sample_or_a_batch_larger_than_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the memory of a machine with 32 MiB, in which the parameters have room."""
    monkeypatch.setattr("rmploss.engine.build.memory", lambda: 2**25)
    message = complaint({"T": 4096, "batch_size": 2})
    assert "T = 4096: one sample: at least" in message
    assert "--T " in message
    message = complaint({"T": 32, "batch_size": 1024})
    assert "batch_size = 1024: a step: at least" in message
    parts = int(message.rpartition("--accumulate ")[2].split()[0])
    check(recipes.override(DIGITS, {"T": 32, "batch_size": 32 * parts, "accumulate": parts}), None)


def test_a_window_that_is_not_the_surrogates_is_remarked() -> None:
    ours = recipes.override(TINY, {"objective": "mpd_sgr"})
    assert check(ours) == []
    other = recipes.override(ours, {"neuron.surrogate": "triangle"})
    (remark,) = check(other)
    assert "|u - V_th| < 0.5, but Triangle has a slope where it is < 1" in remark
    assert check(recipes.override(other, {"objective.half_width": 1.0})) == []
    assert check(recipes.override(ours, {"neuron.surrogate": "sigmoid"})) == []  # no window


def test_a_read_out_that_is_not_the_networks_is_remarked() -> None:
    ours = recipes.override(TINY, {"auxiliary": "self_distillation"})
    (remark,) = check(ours)
    assert "auxiliary.readout = mean, but the network's is the sum of the steps" in remark
    assert check(recipes.override(ours, {"auxiliary.readout": "sum"})) == []
    assert unlike_readout(recipes.get("fair-weak2strong-pocket")) == []


def test_parts_of_a_batch_with_moments_of_their_own_are_remarked() -> None:
    parts = {"batch_size": 32, "accumulate": 2, "norm": "none"}
    assert check(recipes.override(TINY, {"objective": "rmp", **parts})) == []  # a mean of parts
    (remark,) = check(recipes.override(TINY, {"objective": "rmp", **parts, "norm": "tdbn"}))
    assert "the norm takes mean and deviation of 16 samples at a time" in remark
    for name in ("im", "recdis", "mpd_sgr", "tgo", "several"):
        (remark,) = check(recipes.override(TINY, {"objective": name, **parts}))
        assert "Loss takes mean and deviation of 16 samples at a time" in remark
        assert check(recipes.override(TINY, {"objective": name})) == []


def test_a_weight_that_is_zero_in_every_epoch_is_remarked() -> None:
    """Eq. 12 is 0 at n = N: a run of one epoch has no regularizer, and k = 0 never has one."""
    for changes in ({"epochs": 1}, {"objective.k": 0.0}):
        (remark,) = check(recipes.override(TINY, changes), None)
        assert "has no effect: lambda(n) = 0 in all epochs" in remark
    assert check(TINY, None) == []


def test_a_number_of_workers_that_no_machine_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"workers = 1000000: are too many here.*at most"):
        Execution(workers=1_000_000)


@pytest.mark.parametrize(
    ("neuron", "current"),
    [
        (recipes.use("inflor"), 0.5),
        (recipes.use("diet", threshold=0.4), 0.4),  # its threshold is that of x / v
        (recipes.use("plif"), 2.0),  # x / 2 reaches 1
        (recipes.use("dsr-if"), 3.0),  # alpha V_th
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_norm_follows_the_current_at_which_a_neuron_fires(
    neuron: recipes.Use, current: float
) -> None:
    recipe = TINY.but(neuron=neuron, norm=recipes.use("tdbn"))
    assert resolve(recipe).norm.options["v_threshold"] == current
