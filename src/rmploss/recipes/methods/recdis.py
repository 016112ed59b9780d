"""RecDis-SNN (Guo et al., CVPR 2022), reconstructed, since its formula is not public."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import use
from rmploss.recipes.rmp import CIFAR10, DVS, NAMES, NONE, small
from rmploss.recipes.tables import Row

NEURON = use("lif", decay=0.25, v_threshold=0.5, surrogate="rectangle")
LOSS = use("recdis")
RECIPES = tuple(
    small(data, network, T=T, objective=NONE).but(
        name=f"{data.name}-recdis-{network}",
        title=f"RecDis-SNN (reconstructed), {NAMES[network]} on {NAMES[data.name]}",
        neuron=NEURON,
        network=use(network, readout="mean"),
        objective=LOSS,
    )
    for data, network, T in (
        (CIFAR10, "resnet19", 4),
        (DVS, "resnet19", 10),
    )
)
METHOD = Method(
    name="recdis",
    title="RecDis-SNN (reconstructed)",
    paper="Guo et al., RecDis-SNN: Rectifying Membrane Potential Distribution for Directly "
    "Training Spiking Neural Networks, CVPR 2022",
    code="none published",
    idea="Penalize membranes that are all on one side, too narrow or too wide.",
    equations="L = CE + mean_lc [(m - V)^2 - s^2]_+ + [2a - |m - V| - s]_+^2 + [s - 4a]_+^2\n"
    "m, s: mean and deviation of u per channel; V = 0.5; a = 0.5",
    doubts=(
        "RECONSTRUCTED: the paper names the three shifts; the formula is that of Ding et al. (CVPR "
        "2019) for binary activations, moved to V_th. The published numbers are those of the "
        "paper's own loss, not of ours.",
        "Weight 1 is ours; the names of Ding's terms are inferred. The rectangle is "
        "that of the IM-Loss supplement of the same months, decay 0.25 (there 0.2) and the recipe "
        "are those of the group's later papers. The fair comparison keeps the protocol's surrogate "
        "and the half-width 1/2.",
    ),
    parts={"objective": LOSS},
    recipes=RECIPES,
    rows=(
        Row(2, "cifar10-recdis-resnet19", 2, 93.64),
        Row(2, "cifar10-recdis-resnet19", 4, 95.53),
        Row(2, "cifar10-recdis-resnet19", 6, 95.55),
        Row(3, "cifar10-dvs-recdis-resnet19", 10, 72.42),
    ),
)
