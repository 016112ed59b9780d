"""Analysis of a trained network: predictions, membranes, information loss, cost, attacks."""

from rmploss.analysis.cost import Cost, inference_cost
from rmploss.analysis.histogram import Histogram, membrane_histograms
from rmploss.analysis.information import kl_divergence, proposition_holds
from rmploss.analysis.predictions import Confusion, Example, confusion, examples
from rmploss.analysis.robustness import Robustness, robustness

__all__ = [
    "Confusion",
    "Cost",
    "Example",
    "Histogram",
    "Robustness",
    "confusion",
    "examples",
    "inference_cost",
    "kl_divergence",
    "membrane_histograms",
    "proposition_holds",
    "robustness",
]
