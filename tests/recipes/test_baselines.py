"""The published recipes of STBP, PLIF and TET: the numbers of their papers and code."""

from rmploss.recipes import RECIPES, use


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
        assert (recipe.epochs, recipe.batch_size, recipe.lr) == (300, 512, 0.001)
        assert recipe.loss == use("tet", weight=0.05, target=1.0)
        assert recipe.network.options["stem_width"] == 64
        assert recipe.network.options["hidden_fc"] == 256
        assert recipe.data == use(data, augment="standard")
    large = RECIPES["imagenet-tet-resnet34"]
    assert (large.T, large.epochs) == (6, 120)
    assert large.loss.options["weight"] == 0.001
    for recipe in (RECIPES["cifar10-tet-resnet19"], large):
        assert recipe.neuron == use("lif", decay=0.5, v_threshold=1.0, surrogate="triangle")
        assert recipe.norm == use("tdbn", factor="none")
        assert recipe.optimizer == use("adam")
