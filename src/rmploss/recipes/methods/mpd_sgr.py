"""MPD-SGR (AAAI 2026), published since: fewer membranes inside the window of the surrogate."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import use

METHOD = Method(
    name="mpd_sgr",
    title="MPD-SGR (since, reconstructed)",
    paper="Jiang et al., MPD-SGR: Robust Spiking Neural Networks with Membrane Potential "
    "Distribution-Driven Surrogate Gradient Regularization, AAAI 2026, arXiv 2511.12199",
    code="not looked at: the equation is from notes on the paper",
    idea="Keep membranes out of the window in which the surrogate has a slope, so that small "
    "changes of the input change little.",
    equations="L = CE + 0.1 mean_ltc Phi((V + a - m) / s) - Phi((V - a - m) / s)\n"
    "m, s: mean and deviation of u per channel and step; a: half-width of the surrogate, 0.5",
    doubts=(
        "Published since RMP-Loss: no row of the paper's tables, and no recipe but the fair one.",
        "Phi is the share of membranes inside the window as far as these are normal, which tdBN "
        "makes their current: 0.3 % apart at the start of training, more after it, 0.499 by "
        "moments and 0.481 of the membranes on a trained IM-Loss network. Of all its neurons it is "
        "0.594: every layer counts alike, as in Eq. 10.",
        "The weight 0.1 (constant) is ours, the peak of RMP-Loss: our notes have none. The notes "
        "write the mean as the distance to the threshold; the mean over channels of layers of "
        "unequal size is taken layer by layer.",
        "With this weight the term hardly acts: at the initial weights its gradient is 0.1 to 0.2 "
        "% of cross-entropy's (pocket size), as is RMP-Loss's.",
        "The deviation is at least a hundredth of the window's half-width, ours: a silent channel "
        "rests at an edge of the window, where the slope would have no limit.",
        "The paper's measure is robustness: it reports accuracy lost on clean images.",
    ),
    parts={"objective": use("mpd_sgr")},
)
