"""The table of the fair comparison with every system at its best, from its rows."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmploss.engine.fair_best import Comparison
from rmploss.engine.rows import Row, Rows
from rmploss.recipes import METHODS
from rmploss.recipes.fair_best import OWN, Protocol, spelled, with_rmp_too

NO_MEAN = -1.0
"""Below every accuracy: a system without a mean comes last."""
LARGE = 1e4
"""From here on a quantization error says only that a threshold, its unit, has become nearly 0."""


@dataclass(frozen=True)
class BestLine:
    """A system: means and standard deviations over seeds, as text; "" where runs are missing.

    Where the numbers of a run became NaN or infinite there is no mean, but how many did.

    method: its title.
    tries: those that have a row; seeds: those that are reported at the chosen setting.
    fair: accuracy of the last epoch in the setting of the fair comparison, in percent.
    last, best: accuracy of the last and of the best epoch at the chosen setting, in percent.
    change: of the last accuracy against `fair`, the mean over common seeds, in points.
    error: the quantization error at the chosen setting, dimensionless.
    with_rmp: the last accuracy with RMP-Loss added, in percent; rmp_change, rmp_error_change: the
        changes of last accuracy and error by it, means over common seeds.
    setting: that was chosen, in the words of `--set`; validation: its accuracy in the try.
    accuracy: `last` as a number, for the place in the table; `NO_MEAN` without one.
    """

    method: str
    tries: int
    seeds: int
    fair: str = ""
    last: str = ""
    best: str = ""
    change: str = ""
    error: str = ""
    with_rmp: str = ""
    rmp_change: str = ""
    rmp_error_change: str = ""
    setting: str = ""
    validation: str = ""
    accuracy: float = NO_MEAN


def lines(protocol: Protocol, folder: Path) -> list[BestLine]:
    """The rows of the table, the highest accuracy first, those without a mean last.

    protocol: the size of the comparison.
    folder: with the file of its rows, which may be missing.

    Raises `UserError` for a file that holds other rows, or rows of different test samples.
    """
    comparison = Comparison(protocol, Rows(folder / protocol.file))
    comparison.rows.require_same_samples()
    return sorted((_line(comparison, system) for system in OWN), key=lambda line: -line.accuracy)


def conditions(protocol: Protocol) -> list[str]:
    """What all systems share, in sentences."""
    recipe = protocol.recipe("vanilla", {})
    width = recipe.network.options.get("width", 1)
    images = f"{recipe.train_samples or 'all'} training, {recipe.test_samples or 'all'} test images"
    size = f"{recipe.data.name}, {recipe.network.name}, width {width}, T = {recipe.T}, {images}"
    trial = protocol.try_of("vanilla", {}).train_samples
    share = f"{100 * protocol.validation:g} % of {trial or 'the'} training images"
    return [
        f"{size}, {recipe.epochs} epochs",
        f"budget: {protocol.tries} tries a system, of {protocol.try_epochs} epochs",
        f"a try holds out {share}, the same in every try, and is tested on them",
        "the best try is chosen, each of one seed: another may be better on the test images",
        f"{len(OWN)} of {len(METHODS)} methods take part",
        f"reports: {len(protocol.seeds)} seeds, without images held out",
        f"rmploss search {protocol.name}{' --pocket' * protocol.pocket} runs what is missing",
    ]


def _line(comparison: Comparison, system: str) -> BestLine:
    title, protocol = METHODS[system].title, comparison.protocol
    settings = protocol.settings(system)
    tried = [comparison.rows.of(protocol.try_of(system, setting)) for setting in settings]
    done = sum(row is not None for row in tried)
    chosen = comparison.chosen(system)
    if chosen is None:
        return BestLine(title, done, 0)
    fair, best = comparison.reports(system, {}), comparison.reports(system, chosen)
    both = comparison.reports(system, chosen, rmp=True) if with_rmp_too(system) else []
    row = tried[settings.index(chosen)]
    return BestLine(
        method=title,
        tries=done,
        seeds=len(best),
        fair=_spread(fair, "last_accuracy", 1),
        last=_spread(best, "last_accuracy", 1),
        best=_spread(best, "best_accuracy", 1),
        change=_change(fair, best, "last_accuracy", 1),
        error=_spread(best, "quantization_error", 3),
        with_rmp=_spread(both, "last_accuracy", 1),
        rmp_change=_change(best, both, "last_accuracy", 1),
        rmp_error_change=_change(best, both, "quantization_error", 3),
        setting=spelled(chosen) or "as in the fair comparison",
        validation=f"{row.accuracy:.1f}" if row else "",
        accuracy=_mean_accuracy(best),
    )


def _spread(rows: Sequence[Row], field: str, digits: int) -> str:
    """Mean and standard deviation over the rows, as text; "" without rows."""
    diverged = sum(bool(row.outcome) for row in rows)
    if diverged:
        return f"{diverged} of {len(rows)} diverged"
    return spread([float(getattr(row, field)) for row in rows], digits)


def _mean_accuracy(rows: Sequence[Row]) -> float:
    """In percent; `NO_MEAN` without rows, and where a run diverged, which has no accuracy."""
    if not rows or any(row.outcome for row in rows):
        return NO_MEAN
    return statistics.fmean(row.accuracy for row in rows)


def _change(before: Sequence[Row], after: Sequence[Row], field: str, digits: int) -> str:
    """The mean change over common seeds; "" without one, and where a mean would say nothing."""
    if any(row.outcome for row in (*before, *after)):
        return ""
    first, second = (
        {row.seed: float(getattr(row, field)) for row in rows} for rows in (before, after)
    )
    if any(value >= LARGE for value in (*first.values(), *second.values())):
        return ""
    differences = [second[seed] - first[seed] for seed in first.keys() & second]
    return f"{statistics.fmean(differences):+.{digits}f}" if differences else ""


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation, as text; "" without values."""
    if not values:
        return ""
    if max(values) >= LARGE:
        return f"> {LARGE:.0e}"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
