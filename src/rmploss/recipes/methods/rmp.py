"""RMP-Loss (Guo et al., ICCV 2023), the paper that this package implements."""

from rmploss.recipes.method import Method
from rmploss.recipes.rmp import RECIPES, RMP
from rmploss.recipes.tables import ROWS

METHOD = Method(
    name="rmp",
    title="RMP-Loss",
    paper="Guo et al., RMP-Loss: Regularizing Membrane Potential Distribution for Spiking Neural "
    "Networks, ICCV 2023",
    code="none published; byte code of the same loss is in the authors' IM-Loss repository",
    idea="Pull every membrane potential towards the spike that it becomes.",
    equations="L = CE + lambda(n) mean |o - u|^2;  lambda(n) = 2k n/N, then 2k (1 - n/N);  k = 0.1",
    doubts=(
        "see `rmploss list readings`",
        "With k = 0.1 the term is small: at the initial weights of the fair comparison its "
        "gradient is 0.15 % of cross-entropy's at the largest lambda; short runs hardly show it.",
    ),
    parts={"objective": RMP},
    alone="it is RMP-Loss",
    recipes=RECIPES,
    rows=ROWS,
)
