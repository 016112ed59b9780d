"""Analysis of a trained network: predictions, membrane histograms, information loss, cost."""

from rmploss.analysis.cost import Cost, inference_cost
from rmploss.analysis.histogram import Histogram, membrane_histograms
from rmploss.analysis.information import kl_divergence, proposition_holds
from rmploss.analysis.predictions import Confusion, Example, confusion, examples

__all__ = [
    "Confusion",
    "Cost",
    "Example",
    "Histogram",
    "confusion",
    "examples",
    "inference_cost",
    "kl_divergence",
    "membrane_histograms",
    "proposition_holds",
]
