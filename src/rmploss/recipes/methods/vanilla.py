"""The network without any method: the baseline of the paper's ablation (Table 1)."""

from rmploss.recipes.method import Method

METHOD = Method(
    name="vanilla",
    title="vanilla SNN",
    paper="Guo et al., RMP-Loss, ICCV 2023, Table 1, without the loss",
    code="",
    idea="LIF neurons, the surrogate of Eq. 5 and tdBN, trained by cross-entropy.",
    equations="u = 0.25 u + x;  o = 1[u >= 0.5];  u = u (1 - o);  L = CE(sum_t O(t), y)",
    alone="the vanilla SNN with RMP-Loss is the method RMP-Loss",
)
