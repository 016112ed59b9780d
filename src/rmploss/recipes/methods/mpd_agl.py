"""MPD-AGL (IJCAI 2025), published since: a surrogate as wide as the membrane's distribution."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import use

METHOD = Method(
    name="mpd_agl",
    title="MPD-AGL (since, reconstructed)",
    paper="Jiang et al., Adaptive Gradient Learning for Spiking Neural Networks by Exploiting "
    "Membrane Potential Dynamics, IJCAI 2025, arXiv 2505.11863",
    code="not looked at: the equation is from notes on the paper",
    idea="Let the width of the surrogate follow the gain of tdBN, and so the deviation of the "
    "membrane, in closed form.",
    equations="phi'(v) = 1/k over |v| < k/2;  k = 2 sqrt(1 + decay^2) mean_c |gamma_c| V\n"
    "gamma: gain of the tdBN in front",
    doubts=(
        "Published since RMP-Loss: no row of the paper's tables, and no recipe but the fair one.",
        "The paper has k = 2 mean gamma V in the first step; here all steps have the width of the "
        "later ones, 3 % more at the decay 0.25, since a layer is one operation over all steps.",
        "The width changes from epoch to epoch; the notes do not say how often the paper's does.",
        "k does not know of shortcuts: at the start a membrane behind one deviates by 0.60 to "
        "0.75, the others by 0.51 to 0.57, and half the window is 0.52.",
        "|gamma| for gamma: a gain that training made negative has the same deviation.",
        "The rectangle is our reading of the notes' width. The paper's networks learn the decay "
        "(PLIF) and add spikes (SEW); the fair comparison keeps the protocol's decay 0.25 and "
        "binary spikes.",
    ),
    parts={"neuron": use("mpd_agl")},
)
