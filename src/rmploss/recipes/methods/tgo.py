"""TGO (ICLR 2026), published since, its membrane margin, reconstructed from membrane moments."""

from rmploss.recipes.method import Method
from rmploss.recipes.recipe import use

METHOD = Method(
    name="tgo",
    title="TGO's membrane margin (since, reconstructed)",
    paper="Wang et al., Robust Spiking Neural Networks Against Adversarial Attacks, ICLR 2026, "
    "arXiv 2602.20548",
    code="not looked at: the equation is from notes on the paper",
    idea="Let no membrane lie closer to its threshold than a margin, so that noise flips no spike.",
    equations="L = CE + lambda(n) mean_ltc E max(0, delta - |v|),  v ~ N(m - V, s^2)\n"
    "E = s (F((d + delta)/s) - 2 F(d/s) + F((d - delta)/s));  d = m - V\n"
    "F(z) = z Phi(z) + phi(z), the integral of the normal Phi\n"
    "m, s: mean and deviation of u per channel and step; delta = 0.25\n"
    "lambda(n) = (1 - cos(pi n/N)) / 2",
    doubts=(
        "Published since RMP-Loss: no row of the paper's tables, and no recipe but the fair one.",
        "RECONSTRUCTED: the paper takes the mean of max(0, delta - |u - V|) over all membranes. "
        "Here it is the expectation under the normal distribution of the same mean and deviation "
        "per channel and step, which is what membrane moments can give. The two are nearly equal "
        "where tdBN makes the current normal, as at the start of training (0.3 to 2 % apart), less "
        "so after it: on a trained IM-Loss network the term is 0.0330, of membranes 0.0319.",
        "The paper's 1/(TN) weights every neuron alike. Here every layer counts alike, as in Eq. "
        "10, which changes more: all neurons of that network have 0.0433.",
        "delta 0.25, half the distance from V to the targets of Eq. 8, and the weight 1 are ours: "
        "our notes have neither. lambda(n) rises along a cosine, as in the notes.",
        "With this weight the term hardly acts: at the initial weights its gradient is 0.02 % of "
        "cross-entropy's with lambda of the first of four epochs, 0.1 % with the last (pocket "
        "size), where RMP-Loss's is 0.15 %.",
        "The paper's noisy neurons are not part of it. The moving thresholds of DS-ATGO (AAAI "
        "2026) are another method, and not here.",
    ),
    parts={"objective": use("tgo")},
)
