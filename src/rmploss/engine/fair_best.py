"""Run the fair comparison with every system at its best (`recipes.fair_best`): tries, then reports.

Rounds go over all systems: the first try of each, the second, ...; then the reports of the first
seed, of the second, ... So an unfinished comparison is as far with one system as with another.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rmploss import store
from rmploss.engine import run_data
from rmploss.engine.batches import splits_kept
from rmploss.engine.distributed import World
from rmploss.engine.execution import Execution, join
from rmploss.engine.listener import Listener
from rmploss.engine.rows import Row, Rows, begin_row
from rmploss.engine.run import RunFolder
from rmploss.engine.run_summary import summarize
from rmploss.engine.train import train
from rmploss.errors import NonFiniteError, Problem, UserError, unknown
from rmploss.recipes import Recipe
from rmploss.recipes.fair_best import OWN, Protocol, Setting, spelled, with_rmp_too


@dataclass(frozen=True)
class Comparison:
    """A protocol and the rows of its finished runs."""

    protocol: Protocol
    rows: Rows

    def chosen(self, system: str) -> Setting | None:
        """The setting of the best try; None while tries are missing."""
        settings = self.protocol.settings(system)
        rows = [self.rows.of(self.protocol.try_of(system, setting)) for setting in settings]
        accuracies = [row.accuracy for row in rows if row is not None]
        if len(accuracies) < len(settings):
            return None
        return settings[accuracies.index(max(accuracies))]

    def reports(self, system: str, setting: Setting, *, rmp: bool = False) -> list[Row]:
        """The rows of the seeds that are reported so far."""
        recipe = self.protocol.recipe(system, setting, rmp=rmp)
        rows = [self.rows.of(recipe.but(seed=seed)) for seed in self.protocol.seeds]
        return [row for row in rows if row is not None]

    def left(self, systems: Collection[str]) -> Iterator[tuple[str, Recipe, Setting]]:
        """The runs without a row in their order: kind, recipe, setting.

        Those that follow from the rows of earlier ones are found when these are there.
        """
        yield from self._tries_left(systems)
        for seed in self.protocol.seeds:
            for system in systems:
                yield from self._reports_left(system, seed)

    def _tries_left(self, systems: Collection[str]) -> Iterator[tuple[str, Recipe, Setting]]:
        protocol = self.protocol
        for number in range(protocol.tries):
            for system in systems:
                setting = protocol.settings(system)[number]
                yield from self._if_left("try", protocol.try_of(system, setting), setting)

    def _reports_left(self, system: str, seed: int) -> Iterator[tuple[str, Recipe, Setting]]:
        """Of the fair setting, of the chosen one, and of that with RMP-Loss."""
        chosen = self.chosen(system)
        if chosen is None:
            return
        reported = [({}, False), (chosen, False)]
        reported += [(chosen, True)] if with_rmp_too(system) else []
        for setting, rmp in reported:
            recipe = self.protocol.recipe(system, setting, rmp=rmp).but(seed=seed)
            yield from self._if_left("report", recipe, setting)

    def _if_left(
        self, kind: str, recipe: Recipe, setting: Setting
    ) -> Iterator[tuple[str, Recipe, Setting]]:
        if self.rows.of(recipe) is None:
            yield kind, recipe, setting


def run(
    comparison: Comparison,
    runs_dir: Path,
    execution: Execution | None = None,
    listener: Listener | None = None,
    systems: Collection[str] = (),
) -> None:
    """Run what has no row, and write its row; go on by calling it again after an interruption.

    comparison: with the rows so far.
    runs_dir: the folder of run folders. Those of reports stay; that of a try is removed.
    execution, listener: see `train`.
    systems: those to run, see `recipes.fair_best.OWN`; empty: all.

    Raises `UserError` for an unknown system, or rows of different test samples, `StoreError` before
    a training whose row could not be written, and what `train` raises, except that a run whose
    numbers become NaN or infinite has a row that says so.
    """
    execution, listener = execution or Execution(), listener or Listener()
    execution = replace(execution, analyze=False)
    problems = [unknown("system", system, OWN) for system in systems if system not in OWN]
    if problems:
        raise UserError("no such system in the comparison", problems)
    with join(execution.device, timeout_s=execution.timeout_s) as world, splits_kept():
        if world.size > 1:
            problem = Problem(
                f"{world.size} ranks", "are not supported", "start it without torchrun"
            )
            raise UserError("a comparison runs in one process", [problem])
        comparison.rows.require_same_samples()
        for kind, recipe, setting in comparison.left(systems or tuple(OWN)):
            comparison.rows.require_writable()
            words = spelled(setting) or "as in the fair comparison"
            listener.note(f"{kind}: {recipe.name}, seed {recipe.seed}, {words}")
            row = begin_row(kind, recipe, spelled(setting))
            path = runs_dir / f"{recipe.name}-{kind}-s{recipe.seed}-{row.fingerprint}"
            comparison.rows.add(_finish(row, recipe, path, execution, listener, world))
            comparison.rows.require_same_samples()
            if kind == "try" and path.exists():
                store.remove_tree(path)


def _finish(
    row: Row,
    recipe: Recipe,
    path: Path,
    execution: Execution,
    listener: Listener,
    world: World,
) -> Row:
    """Train, or go on with a run that was interrupted; returns its row with the results."""
    try:
        train(recipe, path.parent, execution, listener, world, name=path.name, or_resume=True)
    except NonFiniteError as error:
        listener.note(f"diverged: {error.title}")
        return replace(row, outcome="diverged")
    folder = RunFolder.open(path)
    done, data = summarize(folder.metrics()), run_data.recorded(folder.events())
    tested_on = run_data.hash_of(data, "test") if data else ""
    return replace(
        row,
        tested_on=tested_on,
        last_accuracy=f"{done['last_accuracy']:.2f}",
        best_accuracy=f"{done['best_accuracy']:.2f}",
        best_epoch=str(done["best_epoch"]),
        quantization_error=f"{done['quantization_error']:.4f}",
        firing_rate=f"{done['firing_rate']:.4f}",
        train_cpu_s=f"{done['train_cpu_s']:.1f}",
    )
