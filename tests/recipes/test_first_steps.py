"""Every pocket recipe takes its first step on inputs of the real size of its data."""

import pytest
import torch

from rmploss import membrane_stats, recipes
from rmploss.engine.build import make_dataset, make_loss, make_network, make_objective
from rmploss.objectives.weighting import weighted, weights_of


@pytest.mark.parametrize("name", [name for name in recipes.RECIPES if name.endswith("-pocket")])
def test_a_pocket_recipe_takes_its_first_step(name: str) -> None:
    recipe = recipes.get(name)
    dataset, objective = make_dataset(recipe), make_objective(recipe)
    *time, C, H, W = dataset.shape(recipe.T)
    net = make_network(recipe, dataset).train()
    x = torch.rand(*time, 2, C, H, W, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    with membrane_stats(net, objective.spec) as stats:
        outputs = net(x, over_time=True)
        loss = make_loss(recipe)(outputs, net.readout(outputs), labels)
        total = loss + weighted(objective, stats, weights_of(objective, 0.5))
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
