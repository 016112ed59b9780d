"""MPD-SGR (AAAI 2026), published since: fewer membranes inside the window of the surrogate."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import use

METHOD = Method(
    name="mpd_sgr",
    title="MPD-SGR (since)",
    paper="MPD-SGR, AAAI 2026, arXiv 2511.12199",
    code="not looked at: the equation is from notes on the paper",
    idea="Keep membranes out of the window in which the surrogate has a slope, so that small "
    "changes of the input change little.",
    equations="L = CE + 0.1 mean_ltc Phi((V + a - m) / s) - Phi((V - a - m) / s)\n"
    "m, s: mean and deviation of u per channel and step; a: half-width of the surrogate, 0.5",
    doubts=(
        "Published since RMP-Loss: no row of the paper's tables, and no recipe but the fair one.",
        "The weight 0.1 (constant) is ours, the peak of RMP-Loss: our notes have none. The notes "
        "write the mean as the distance to the threshold; the mean over channels of layers of "
        "unequal size is taken layer by layer.",
        "The paper's measure is robustness: it reports accuracy lost on clean images.",
    ),
    parts={"objective": use("mpd_sgr")},
)
