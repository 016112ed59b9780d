"""Weak2Strong (NeurIPS 2025), published since: the least sure time step teaches the surest."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import use

METHOD = Method(
    name="weak2strong",
    title="Weak2Strong (since, reconstructed)",
    paper="Ding et al., Synergy Between the Strong and the Weak: Spiking Neural Networks are "
    "Inherently Self-Distillers, NeurIPS 2025, arXiv 2510.07924",
    code="not looked at: the equation is from the abstract, and from notes on the paper",
    idea="Take every time step for a classifier of its own, and let the least sure one teach the "
    "surest.",
    equations="L = CE + mean_b KL(softmax(T O(w)/tau) || softmax(T O(s)/tau)),  O(w) without "
    "gradient\n"
    "c(t) = max_k softmax(O(t))_k;  s = argmax_t c(t),  w = argmin_t c(t), of each sample\n"
    "tau = 2",
    doubts=(
        "Published since RMP-Loss: no row of the paper's tables, and no recipe but the fair one.",
        "The weight 1 and tau 2 are ours: our notes have neither. So is the confidence of the most "
        "likely class, not of the label, and the choice of the steps for each sample, not for the "
        "batch: --set auxiliary.confidence=label.",
        "Strong2Weak, the other direction: --set auxiliary.teacher=strong. Of more than two steps "
        "the paper has other schemes, too (ensemble, simultaneous, cascade); ours is the pair of "
        "the two extremes.",
        "Hinton's distillation multiplies the divergence by tau^2; ours does not: --set "
        "auxiliary.weight=4 does.",
        "The protocol sums the outputs over the steps, so that those of a step are about 1/T of "
        "the logits: they are multiplied by T there. Without that the term changed the first "
        "gradient by 0.2 % at T = 4.",
    ),
    parts={"auxiliary": use("self_distillation", temperature=2.0, readout="sum")},
)
