"""What a trained membrane looks like: its distribution, and the information its spikes lose."""

from rmploss.analysis.histogram import Histogram, membrane_histograms
from rmploss.analysis.information import kl_divergence, proposition_holds

__all__ = ["Histogram", "kl_divergence", "membrane_histograms", "proposition_holds"]
