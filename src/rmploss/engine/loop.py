"""The epochs and batches of Algorithm 1, with tests, metrics, checkpoints and stops."""

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmploss import store
from rmploss.data import n_batches
from rmploss.engine import manifest, run_data
from rmploss.engine.after_training import analyze
from rmploss.engine.batches import RankBatches, full_batches, made_by_step, open_splits
from rmploss.engine.build import (
    make_average,
    make_dataset,
    make_loss,
    make_network,
    make_objective,
)
from rmploss.engine.capture import Capturer, CudaGraphs, Function, Repeated, eager_note, impossible
from rmploss.engine.checkpoint import Counters
from rmploss.engine.distributed import World, averaging_gradients
from rmploss.engine.divergence import FiniteCheck
from rmploss.engine.environment import versions
from rmploss.engine.epoch_record import epoch_record
from rmploss.engine.evaluate import Evaluation, Evaluator
from rmploss.engine.execution import Execution, placement
from rmploss.engine.failure import Failure, failed_in_test, failed_in_training, failures_named
from rmploss.engine.go_on import require_unsaved
from rmploss.engine.health import SETTLED
from rmploss.engine.initial_weights import freeze
from rmploss.engine.listener import Listener
from rmploss.engine.notes import Notes
from rmploss.engine.optimizers import rate_at
from rmploss.engine.precision import precision
from rmploss.engine.restore import restore
from rmploss.engine.run import RunFolder
from rmploss.engine.run_health import health_of, probe
from rmploss.engine.run_summary import summarize
from rmploss.engine.save_clock import SaveClock
from rmploss.engine.saving import Saving
from rmploss.engine.signals import Stop
from rmploss.engine.static_batch import StaticBatch
from rmploss.engine.step import TrainingStep
from rmploss.engine.tally import Reading, Terms, Watch
from rmploss.engine.training_state import TrainingState
from rmploss.engine.verify import RESULT, digest_of
from rmploss.lifecycle import Evolving, evolve
from rmploss.models import SpikingNetwork
from rmploss.objectives.weighting import weights_of
from rmploss.randomness import seeded
from rmploss.recipes import Recipe

GPU_READS = 50
"""Steps between two readings of the tally on a GPU; a CPU reads it after every step."""


class Loop:
    """Execute a recipe on this rank, from its first epoch or from a checkpoint.

    recipe: checked by `build.check`.
    execution: workers, data and command; device and backend are already applied.
    world: this process among the ranks.
    listener: is notified of progress.

    Raises `UserError` if the training samples fill no batch.
    """

    def __init__(
        self, recipe: Recipe, execution: Execution, world: World, listener: Listener
    ) -> None:
        self.recipe, self.execution, self.world, self.listener = recipe, execution, world, listener
        self.notes = Notes(listener)
        dataset = make_dataset(recipe)
        self.classes = dataset.classes
        self.train_samples, self.test_samples = open_splits(
            recipe, dataset, execution.data_dir, listener, world.device
        )
        self.data = run_data.describe(recipe.data.name, self.train_samples, self.test_samples)
        self.rank_batches = RankBatches(
            recipe,
            world,
            execution.workers,
            timeout_s=execution.timeout_s,
            on_loss=self.notes.loader_lost,
        )
        self.net = make_network(recipe, dataset).to(world.device)
        freeze(recipe, self.net)
        self.ddp: nn.Module = self.net
        if world.size > 1:
            self.ddp = averaging_gradients(self.net)
        self.loss = make_loss(recipe)
        self.objective = make_objective(recipe)
        self.state = TrainingState(recipe, self.net, world)
        on_gpu = world.device.type == "cuda"
        self.watch = Watch(
            self.state.tally, every=GPU_READS if on_gpu else 1, wait=not on_gpu or world.size > 1
        )
        samples = self.train_samples
        make = samples.batch if made_by_step(samples, world) else None
        self.batch = StaticBatch(world.device, make)
        self.step = TrainingStep(
            recipe, self.ddp, self.loss, self.objective, self.state, world, self.batch
        )
        eager = execution.capture == "off" or impossible(world)
        self.capturer: Capturer | None = None if eager else CudaGraphs(world.device)
        self.repeated: list[Repeated] = []
        self.run_step = self._repeated(self.step, self.step.tensors, "training step")
        self.evaluators = [self._evaluator(self.net)]
        self.batches = full_batches(self.train_samples, recipe.batch_size)
        self.tested = 0
        """The batches that the test in progress has done."""

    def execute(self, path: Path, *, begin: Callable[[TrainingState], None] | None) -> Path:
        """Train up to the last epoch; returns `path`.

        path: the run folder.
        begin: sets the state with which a new run begins, which is saved first; None: load the
            newest checkpoint.
        """
        folder, state = RunFolder.open(path), self.state
        # Here, not in the constructor: an average begins with the initial weights (`start`).
        state.average = make_average(self.recipe, self.net, self.batches)
        if state.average is not None:
            self.evaluators.append(self._evaluator(state.average.net))
        with folder.lock() if self.world.is_main else nullcontext(), Stop() as stop:
            if begin is None:
                self._compare_data(folder)
            if self.world.is_main:
                manifest.remove(path)
            self.finite = FiniteCheck(
                folder, self.step, self.batch, self.train_samples, self.batches
            )
            self.saving = self._saving(folder, stop)
            if begin is not None:
                if self.world.is_main:
                    require_unsaved(path)
                begin(state)
                self.saving.save()
            else:
                restore(state, folder, self.execution, self.listener)
                self._evolve(state.counters.progress(self.recipe.epochs))
                self.saving.clock.restart()
            if self.world.is_main:
                folder.log_event("execute", **self._placement())
                self.notes.folder = folder
            self.health = health_of(folder, self.recipe, self.notes.warn)
            device = str(self.world.device)
            self.listener.begin(self.recipe, path, epoch=state.counters.epoch, device=device)
            if self.world.is_main and (why := eager_note(self.execution.capture, self.world)):
                self.listener.note(why)
            if begin is None:
                at = state.counters.words(self.batches)
                self.listener.note(f"goes on {'in' if state.counters.batch else 'after'} {at}")
            while state.counters.epoch < self.recipe.epochs:
                self._epoch(folder)
            if self.world.is_main:
                self._finish(folder)
        return path

    def _compare_data(self, folder: RunFolder) -> None:
        """Raise `UserError` unless the data are those with which the run began."""
        before = run_data.recorded(folder.events())
        if before is not None:
            run_data.require_same(str(folder.path), before, self.data)
        elif self.world.is_main:
            self.listener.note("the data are not compared: the run recorded none so far")

    def _finish(self, folder: RunFolder) -> None:
        """Write what a finished run has: result.json, the analysis, and last the manifest."""
        path, summary = folder.path, summarize(folder.metrics())
        text = json.dumps(summary, indent=2) + "\n"
        store.try_twice(lambda: store.write_text(path / RESULT, text))
        # After result.json: a crash in the analysis leaves a finished run.
        if self.execution.analyze:
            self._analyze(path)
        store.try_twice(folder.flush)
        store.try_twice(lambda: manifest.write(path, digest_of(folder), versions()))
        self.listener.end(summary)

    def _analyze(self, path: Path) -> None:
        """Write what reports show of the test split."""
        analyze(
            path,
            self.net,
            self.recipe,
            self.test_samples,
            self.classes,
            self.execution.workers,
        )

    def _epoch(self, folder: RunFolder) -> None:
        state = self.state
        n = state.counters.epoch + 1  # Algorithm 1 counts from 1, so that lambda(N) = 0
        progress = n / self.recipe.epochs
        began, cpu_began = time.monotonic(), time.process_time()
        terms = self._train(n, progress, folder)
        trained, cpu_trained = time.monotonic(), time.process_time()
        with self._named(folder, self._place_in_test):
            results = self._evaluate(n)
        for evaluator, result in zip(self.evaluators, results, strict=True):
            if not math.isfinite(result.loss + result.quantization_error):
                self.finite.refuse_test(evaluator.net, self.test_samples)
        rates = {layer.name: layer.firing_rate for layer in results[0].layers}
        if state.counters.step >= SETTLED or n == self.recipe.epochs:
            self.health.see_rates(rates, state.counters.step, whole_split=True)
        last = replace(state.counters, batch=self.batches - 1)
        schedule = {
            "lr": rate_at(self.recipe, last, self.batches),
            "lambda": self.objective.weight(progress),
        }
        seconds = {
            "train_s": trained - began,
            "test_s": time.monotonic() - trained,
            "train_cpu_s": cpu_trained - cpu_began,
        }
        means = Terms(self.world.all_reduce_sum(terms.sums)).means()
        state.counters = Counters(epoch=n, step=state.counters.step, batch=0)
        record = epoch_record(state.counters, schedule, means, results, seconds)
        state.tally.clear()
        self.watch.forget()
        state.best = max(state.best, results[0].accuracy)
        if self.world.is_main:
            folder.log_metrics(record)
        self.saving.save()
        self.listener.epoch(record)
        if n < self.recipe.epochs:
            self.saving.save_or_stop(saved=True)

    def _train(self, n: int, progress: float, folder: RunFolder) -> Terms:
        """The training steps of epoch n that are left; returns the sums of this rank."""
        state = self.state
        self.ddp.train()
        self._evolve(progress)
        weights = weights_of(self.objective, progress)
        self.step.weights.copy_(torch.tensor(weights, dtype=torch.float64))
        loss = math.nan
        with self._named(folder, self._place_in_training):
            for batch in self.rank_batches.train(
                self.train_samples,
                epoch=state.counters.epoch,
                skip=state.counters.batch,
                as_indices=self.batch.make is not None,
            ):
                self._step(*batch)
                reading = self.watch.after_step()
                if reading is not None:
                    loss = self._read(reading)
                parts, step = self.recipe.accumulate, state.counters.step
                probe(self.health, self.net, self.batch, parts, step)
                self.listener.batch("train", n, state.counters.batch, self.batches, loss=loss)
                self.saving.save_or_stop()
        return self.finite.require(state.tally.read())

    def _evolve(self, progress: float) -> None:
        """Let all that is trained or tested be as in epoch n; progress: n / N."""
        evolve(self.net, progress)
        if self.state.average is not None:
            self.state.average.evolve(progress)
        if any(isinstance(module, Evolving) for module in self.net.modules()):
            for each in self.repeated:
                each.forget()

    def _step(self, *batch: Tensor) -> None:
        """One optimizer step on one global batch: fill its tensors, run it, count it."""
        recipe, state = self.recipe, self.state
        done = state.counters
        self.batch.fill(*batch)
        state.rate.fill_(rate_at(recipe, done, self.batches))
        # Random numbers of a network (dropout) depend on seed, position and rank alone, so that
        # a resumed run draws the same.
        place = ("step", done.epoch, done.batch, self.world.rank)
        with seeded(recipe.seed, *place, device=self.world.device):
            self.run_step()
        state.counters = Counters(done.epoch, done.step + 1, done.batch + 1)

    def _read(self, reading: Reading) -> float:
        """The mean loss of the epoch in a reading, which must be finite."""
        means = self.finite.require(reading).means()
        total = means["train_loss"] + means["train_regularizer"]
        self.health.see_loss(total, self.state.counters.step)
        return means["train_loss"]

    def _evaluate(self, epoch: int) -> list[Evaluation]:
        """The results with the trained weights, then with their average if there is one."""
        size = self.recipe.batch_size
        total = len(self.evaluators) * n_batches(self.test_samples, size, drop_last=False)
        done = 0

        def on_batch() -> None:
            nonlocal done
            done += 1
            self.tested += 1
            self.listener.batch("test", epoch, done, total)
            self.saving.save_or_stop()

        def result(evaluator: Evaluator) -> Evaluation:
            self.tested = 0
            return evaluator(self.rank_batches.test(self.test_samples), on_batch)

        return [result(evaluator) for evaluator in self.evaluators]

    def _saving(self, folder: RunFolder, stop: Stop) -> Saving:
        return Saving(
            folder,
            self.state,
            SaveClock(60 * self.execution.save_minutes),
            stop,
            check=lambda: self.finite.require(self.state.tally.read()),
            batches=self.batches,
            flags=self.execution.command_flags(),
        )

    def _named(
        self, folder: RunFolder, place: Callable[[], Failure]
    ) -> AbstractContextManager[None]:
        """Say in an exception of other code where training was."""
        return failures_named(place, folder.resume_command, self.notes.log)

    def _place_in_training(self) -> Failure:
        return failed_in_training(self.recipe, self.state.counters, len(self.train_samples))

    def _place_in_test(self) -> Failure:
        count = len(self.test_samples)
        return failed_in_test(self.recipe, self.state.counters, count, self.tested)

    def _repeated(
        self, function: Function, tensors: Callable[[], list[Tensor]], what: str
    ) -> Repeated:
        """A function that is captured where it can be, and says what became of it."""
        made = Repeated(
            function,
            tensors,
            capturer=self.capturer,
            mode=self.execution.capture,
            what=what,
            report=partial(self.notes.captured, what),
        )
        self.repeated.append(made)
        return made

    def _evaluator(self, net: SpikingNetwork) -> Evaluator:
        return Evaluator(
            net,
            self.world,
            precision=precision(self.recipe, self.world.device),
            repeat=lambda run, tensors: self._repeated(run, tensors, "evaluation"),
        )

    def _placement(self) -> dict[str, Any]:
        """Where and how this execution runs, for events.jsonl."""
        execution = self.execution
        capture = (impossible(self.world) and "off") or execution.capture
        return {
            **placement(self.world, execution.deterministic),
            "capture": capture,
            "data": self.data,
        }
