"""The published recipes of all groups but the paper's own: the numbers of their papers and code."""

import pytest

from rmploss.recipes import METHODS, RECIPES, Recipe, use

NAMES = (
    "stbp", "plif", "tet", "tdbn", "tssl", "dsr", "liaf", "sew", "spiking_resnet",
)  # fmt: skip
FANG = use("if", v_threshold=1.0, detach_reset=True, surrogate="arctan")


@pytest.mark.parametrize(
    "recipe", [r for n in NAMES for r in METHODS[n].recipes], ids=lambda recipe: recipe.name
)
def test_what_none_of_them_has(recipe: Recipe) -> None:
    assert (recipe.objective, recipe.start) == (use("none"), use("none"))
    assert (recipe.train_samples, recipe.test_samples) == (None, None)
    assert (recipe.accumulate, recipe.seed, recipe.pocket) == (1, 0, False)
    assert recipe.weight_decay_on == "all"
    assert (recipe.clip_norm is not None) == (recipe.neuron.name == "tssl")
    assert recipe.amp == ("fp16" if recipe.neuron == FANG else "off")


def test_stbp() -> None:
    recipe = RECIPES["cifar10-stbp-cifarnet"]
    assert (recipe.T, recipe.epochs, recipe.batch_size, recipe.lr) == (12, 120, 10, 0.1)
    assert recipe.optimizer == use("sgd", momentum=0.9)
    assert recipe.lr_schedule == use("stairs", every=35, factor=0.1)
    assert recipe.network == use("cifarnet", neunorm=True, readout="mean")
    assert (recipe.norm, recipe.loss, recipe.weight_decay) == (use("none"), use("mse"), 0)
    assert recipe.neuron == use("lif", decay=0.25, v_threshold=0.75, surrogate="rectangle")
    assert recipe.data == use("cifar10", augment="standard")


def test_plif() -> None:
    recipe = RECIPES["cifar10-plif-plifnet"]
    assert (recipe.T, recipe.epochs, recipe.batch_size, recipe.lr) == (8, 1024, 16, 0.001)
    assert recipe.optimizer == use("adam")
    assert recipe.lr_schedule == use("cosine", period=64)
    assert (recipe.norm, recipe.loss, recipe.weight_decay) == (use("bn_step"), use("mse"), 0)
    assert recipe.neuron == use("plif", tau=2.0, v_threshold=1.0, surrogate="arctan")
    assert recipe.data == use("cifar10", augment="standard")


def test_tet() -> None:
    for data in ("cifar10", "cifar100"):
        recipe = RECIPES[f"{data}-tet-resnet19"]
        assert (recipe.T, recipe.epochs, recipe.batch_size) == (4, 300, 512)
        assert recipe.loss == use("tet", weight=0.05, target=1.0)
        # The default initialization of PyTorch: the loop over the weights is off in their code.
        assert recipe.network == use(
            "resnet19", stem_width=64, hidden_fc=256, init="pytorch", readout="mean"
        )
        assert recipe.data == use(data, augment="standard")
    large = RECIPES["imagenet-tet-resnet34"]
    assert (large.T, large.epochs, large.batch_size) == (6, 120, 256)
    assert large.loss == use("tet", weight=0.001, target=1.0)
    assert large.network == use("resnet34", readout="mean")
    assert large.data == use("imagenet")
    for recipe in METHODS["tet"].recipes:
        assert recipe.neuron == use("lif", decay=0.5, v_threshold=1.0, surrogate="triangle")
        assert recipe.norm == use("tdbn", factor="none")
        assert recipe.optimizer == use("adam")
        assert (recipe.lr, recipe.weight_decay) == (0.001, 0)
        assert recipe.lr_schedule == use("cosine")
    assert len(METHODS["tet"].recipes) == 3


def test_tdbn() -> None:
    small, events, large = (
        RECIPES[f"{name}-tdbn-{network}"]
        for name, network in (
            ("cifar10", "resnet19"), ("cifar10-dvs", "resnet19"), ("imagenet", "resnet34"),
        )
    )  # fmt: skip
    assert [(r.T, r.epochs) for r in (small, events, large)] == [(4, 200), (10, 200), (6, 125)]
    assert small.data == use("cifar10", augment="standard")
    assert events.data == use("cifar10-dvs", split="random")
    assert large.data == use("imagenet")
    for recipe in (small, events):
        # The stem of 128 channels of the paper's table is the network's own.
        assert recipe.network == use("resnet19", hidden_fc=256, branches=True, readout="mean")
    assert large.network == use("resnet34", branches=True, readout="mean")
    for recipe in (small, events, large):
        assert recipe.neuron == use("lif", decay=0.25, v_threshold=0.5, surrogate="rectangle")
        assert (recipe.norm, recipe.loss) == (use("tdbn", alpha=1.0), use("ce"))
        assert recipe.optimizer == use("sgd", momentum=0.9)
        assert (recipe.lr, recipe.batch_size, recipe.weight_decay) == (0.1, 128, 1e-4)
        assert recipe.lr_schedule == use("cosine")
    assert METHODS["tdbn"].recipes == (small, events, large)


def test_tssl() -> None:
    (recipe,) = METHODS["tssl"].recipes
    assert recipe.data == use("cifar10", augment="standard")
    assert (recipe.network, recipe.T) == (use("tssl-cifarnet"), 5)
    assert (recipe.neuron, recipe.norm) == (use("tssl"), use("none"))
    # A sum over the batch of 50, as 50 times the mean over its samples.
    assert recipe.loss == use("van_rossum", weight=50.0)
    assert (recipe.epochs, recipe.batch_size) == (150, 50)
    assert (recipe.optimizer, recipe.lr_schedule) == (use("adamw"), use("constant"))
    assert (recipe.lr, recipe.weight_decay, recipe.clip_norm) == (2e-4, 0.01, 1.0)


def test_dsr() -> None:
    for data in ("cifar10", "cifar100"):
        recipe = RECIPES[f"{data}-dsr-preact-resnet18"]
        assert recipe.data == use(data, augment="standard")
        assert recipe.network == use("preact-resnet18", readout="weighted")
        assert (recipe.neuron, recipe.norm) == (use("dsr-lif"), use("tdbn", factor="none"))
        assert (recipe.T, recipe.epochs, recipe.batch_size) == (20, 200, 128)
        assert recipe.optimizer == use("sgd", momentum=0.9)
        assert (recipe.lr, recipe.weight_decay) == (0.1, 5e-4)
        assert recipe.lr_schedule == use("cosine", warm_up=400)
        assert recipe.loss == use("ce")
    assert len(METHODS["dsr"].recipes) == 2


def test_liaf() -> None:
    cells, flat = METHODS["liaf"].recipes
    assert (cells.name, flat.name) == (
        "cifar10-dvs-liaf-liafnet",
        "cifar10-dvs-liaf-liafnet-conv3d",
    )
    assert (cells.network, cells.neuron) == (use("liafnet", image_size=42), use("liaf"))
    assert flat.network == use("liafnet-conv3d", image_size=42)
    for recipe in (cells, flat):
        assert recipe.data == use("cifar10-dvs", split="random", size=42, augment=False)
        assert (recipe.norm, recipe.loss) == (use("tdbn", factor="none"), use("mse"))
        assert (recipe.T, recipe.epochs, recipe.batch_size) == (10, 100, 25)
        assert (recipe.lr, recipe.weight_decay) == (1e-3, 1e-3)
        assert recipe.optimizer == use("adam")
        assert recipe.lr_schedule == use("stairs", every=1, factor=0.9)


def test_sew_and_spiking_resnet() -> None:
    for method in ("sew", "spiking_resnet"):
        found = METHODS[method].recipes
        family = method.partition("_")[0]
        assert [r.network for r in found] == [use(f"{family}-resnet{n}") for n in (18, 34)]
        for recipe in found:
            assert recipe.name == f"imagenet-{recipe.network.name}"
            assert recipe.data == use("imagenet")
            assert recipe.neuron == FANG
            # Every GPU has statistics of its own.
            assert recipe.norm == use("tdbn", factor="none", sync=False)
            assert (recipe.T, recipe.epochs, recipe.batch_size) == (4, 320, 256)
            assert recipe.optimizer == use("sgd", momentum=0.9)
            assert (recipe.lr, recipe.weight_decay) == (0.1, 0)
            assert (recipe.lr_schedule, recipe.loss) == (use("cosine"), use("ce"))
