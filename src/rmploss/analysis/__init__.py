"""Analysis of a trained network: membrane histograms, information loss, cost of an inference."""

from rmploss.analysis.cost import Cost, inference_cost
from rmploss.analysis.histogram import Histogram, membrane_histograms
from rmploss.analysis.information import kl_divergence, proposition_holds

__all__ = [
    "Cost",
    "Histogram",
    "inference_cost",
    "kl_divergence",
    "membrane_histograms",
    "proposition_holds",
]
