"""Networks that train and do not learn: layers that never or always fire, a loss that runs away.

    dead        o = 0 everywhere: no layer behind it sees the image
    saturated   o = 1 everywhere: the same, whatever the image is
    diverging   the mean loss of an epoch is `RUNAWAY` times that of the start: of the first step,
                or, once a run was resumed, of its first epoch

A run warns of each once per layer: on the terminal, in events.jsonl, and so in the report.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rmploss.engine.batches import micro_batches
from rmploss.lifecycle import evaluating
from rmploss.models import SpikingNetwork
from rmploss.stats import membrane_stats

PROBE_STEPS = 100
"""Steps between two looks at the firing rates; two in a row make a warning."""
SETTLED = 50
"""The steps after which the running statistics of norms (momentum 0.1) are those of the data, to
0.5 %: before, layers may be silent in evaluation mode that fire in training."""
NEVER = 1e-6
"""A firing rate below it counts as 0, one as close to 1 as 1, dimensionless."""
RUNAWAY = 10.0
"""How often the loss of the start makes a run that diverges, dimensionless."""
SHOWN = 3
"""The number of layers that a sentence names."""
WORDS = {
    "dead": "never fire: nothing behind them depends on the image",
    "saturated": "fire at every time step: nothing behind them depends on the image",
}


class Health:
    """Watches the firing rates and the loss of one run.

    tell: is called with a sentence and the fields of the event.
    fix: what to type, for the sentences.
    told: the events of kind "health" of the run so far.
    start: the loss at the start of the run; None: the first one that is seen.
    """

    def __init__(
        self,
        tell: Callable[[str, Mapping[str, Any]], None],
        fix: str,
        told: Iterable[Mapping[str, Any]] = (),
        start: float | None = None,
    ) -> None:
        self.tell, self.fix, self.start = tell, fix, start
        self._told = {(e.get("what"), n) for e in told for n in e.get("layers") or [""]}
        self._suspected: set[tuple[str, str]] = set()

    def see_loss(self, loss: float, step: int) -> None:
        """Look at the mean loss of the epoch so far, regularizer included."""
        if self.start is None:
            self.start = loss
        if not loss > RUNAWAY * max(self.start, 0.0) or ("diverging", "") in self._told:
            return
        self._told.add(("diverging", ""))
        times = f", {loss / self.start:.3g} times that of the start" if self.start > 0 else ""
        text = f"the loss is {loss:.3g}{times}: training diverges; {self.fix}"
        self.tell(text, {"what": "diverging", "step": step, "loss": loss, "start": self.start})

    def see_rates(self, rates: Mapping[str, float], step: int, *, whole_split: bool) -> None:
        """Look at the firing rates of the layers.

        rates: by layer, in [0, 1].
        whole_split: of the test split, which is enough; False: of one batch, of which two in a row
            must agree.
        """
        extreme = {
            (what, name)
            for name, rate in rates.items()
            for what in ("dead", "saturated")
            if (rate < NEVER if what == "dead" else rate > 1 - NEVER)
        }
        sure = extreme if whole_split else extreme & self._suspected
        self._suspected = extreme
        for what in WORDS:
            names = [n for n in rates if (what, n) in sure and (what, n) not in self._told]
            if names:
                self._told |= {(what, name) for name in names}
                text = f"{_listed(names)} {WORDS[what]} (step {step}); {self.fix}"
                self.tell(text, {"what": what, "step": step, "layers": names})


def firing_rates(net: SpikingNetwork, batch: tuple[Tensor, Tensor], parts: int) -> dict[str, float]:
    """The firing rates of all layers on the first part of a batch, in evaluation mode.

    net: afterwards as before, its mode included.
    batch: images and labels.
    parts: the number of micro-batches.
    """
    images, _ = next(micro_batches(*batch, parts))
    with evaluating(net), torch.no_grad(), membrane_stats(net) as stats:
        net(images)
    if not len(stats):
        return {}
    rates = torch.stack([layer.firing_rate.detach() for layer in stats]).tolist()
    # Layers that run several times are alive if they once were.
    found: dict[str, list[float]] = {}
    for layer, rate in zip(stats, rates, strict=True):
        found.setdefault(layer.name, []).append(rate)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    listed = ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"the neurons of {listed}"
