"""The epochs and batches of Algorithm 1, with tests, metrics, checkpoints and stops."""

import json
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rmploss import store
from rmploss.data import n_batches
from rmploss.engine import manifest
from rmploss.engine.after_training import analyze
from rmploss.engine.batches import made_by_step, open_splits, test_batches, train_batches
from rmploss.engine.build import (
    make_average,
    make_dataset,
    make_loss,
    make_network,
    make_objective,
)
from rmploss.engine.capture import Capturer, CudaGraphs, Function, Repeated, eager_note, impossible
from rmploss.engine.checkpoint import Counters, Loaded
from rmploss.engine.distributed import World
from rmploss.engine.environment import versions
from rmploss.engine.evaluate import Evaluation, Evaluator
from rmploss.engine.examine import Finding, examine_step, examine_test
from rmploss.engine.execution import Execution, inexact_reasons, placement
from rmploss.engine.failure import failed_at
from rmploss.engine.health import PROBE_STEPS, Health, firing_rates
from rmploss.engine.listener import Listener
from rmploss.engine.optimizers import Position, learning_rate
from rmploss.engine.precision import precision
from rmploss.engine.run import RunFolder
from rmploss.engine.run_summary import summarize
from rmploss.engine.save_clock import Request, SaveClock
from rmploss.engine.signals import Stop
from rmploss.engine.static_batch import StaticBatch
from rmploss.engine.step import TrainingStep
from rmploss.engine.tally import Reading, Terms, Watch
from rmploss.engine.training_state import TrainingState
from rmploss.engine.verify import RESULT, digest_of
from rmploss.errors import InterruptedRunError, NonFiniteError, Problem, StoreError, UserError
from rmploss.lifecycle import Evolving, evolve
from rmploss.models import SpikingNetwork
from rmploss.objectives.weighting import weights_of
from rmploss.randomness import seeded
from rmploss.recipes import Recipe

GPU_READS = 50
"""Steps between two readings of the tally on a GPU; a CPU reads it after every step."""


def averaged_fields(result: Evaluation) -> dict[str, float]:
    """The fields of a line of metrics.jsonl with averaged weights."""
    return {
        "averaged_accuracy": result.accuracy,
        "averaged_ce": result.loss,
        "averaged_quantization_error": result.quantization_error,
        "averaged_firing_rate": result.firing_rate,
    }


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
        self._log: Callable[..., None] = lambda kind, **fields: None
        dataset = make_dataset(recipe)
        self.train_samples, self.test_samples = open_splits(
            recipe, dataset, execution.data_dir, listener, world.device
        )
        self.net = make_network(recipe, dataset).to(world.device)
        self.ddp: nn.Module = self.net
        if world.size > 1:
            self.ddp = DistributedDataParallel(self.net)
        self.loss = make_loss(recipe)
        self.objective = make_objective(recipe)
        self.state = TrainingState(recipe, self.net, world)
        on_gpu = world.device.type == "cuda"
        self.watch = Watch(
            self.state.tally, every=GPU_READS if on_gpu else 1, wait=not on_gpu or world.size > 1
        )
        self.clock = SaveClock(60 * execution.save_minutes)
        samples = self.train_samples
        make = samples.batch if made_by_step(samples, world) else None
        self.batch = StaticBatch(world.device, make)
        self.step = TrainingStep(
            recipe, self.ddp, self.loss, self.objective, self.state, world, self.batch
        )
        eager = execution.capture == "off" or impossible(world)
        self.capturer: Capturer | None = None if eager else CudaGraphs(world.device)
        self.run_step = self._repeated(self.step, self.step.tensors, "training step")
        self.evaluators = [self._evaluator(self.net)]
        self.batches = n_batches(self.train_samples, recipe.batch_size, drop_last=True)
        if not self.batches:
            count = len(self.train_samples)
            what = f"only {count} training samples, so no batch is full"
            problem = Problem(f"batch_size = {recipe.batch_size}", what, f"at most {count}")
            raise UserError("no batch to train on", [problem])

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
            if self.world.is_main:
                manifest.remove(path)
            if begin is not None:
                begin(state)
                self._save(folder)
            else:
                self._load(folder)
                self.clock.restart()
            if self.world.is_main:
                folder.log_event("execute", **self._placement())
                self._log = folder.log_event
            self.health = self._new_health(folder)
            device = str(self.world.device)
            self.listener.begin(self.recipe, path, epoch=state.counters.epoch, device=device)
            if self.world.is_main and (why := eager_note(self.execution.capture, self.world)):
                self.listener.note(why)
            if begin is None:
                self.listener.note(f"goes on after {self._position()}")
            while state.counters.epoch < self.recipe.epochs:
                self._epoch(folder, stop)
            if self.world.is_main:
                summary = summarize(folder.metrics())
                text = json.dumps(summary, indent=2) + "\n"
                store.try_twice(lambda: store.write_text(path / RESULT, text))
                # After result.json: a crash in the analysis leaves a finished run.
                analyze(path, self.net, self.recipe, self.test_samples, self.execution.workers)
                store.try_twice(folder.flush)
                manifest.write(path, digest_of(folder), versions())
                self.listener.end(summary)
        return path

    def _epoch(self, folder: RunFolder, stop: Stop) -> None:
        began, cpu_began = time.monotonic(), time.process_time()
        recipe, state = self.recipe, self.state
        n = state.counters.epoch + 1  # Algorithm 1 counts from 1, so that lambda(N) = 0
        progress = n / recipe.epochs
        self.ddp.train()
        evolve(self.net, progress)
        if any(isinstance(module, Evolving) for module in self.net.modules()):
            self.run_step.forget()
        weights = weights_of(self.objective, progress)
        self.step.weights.copy_(torch.tensor(weights, dtype=torch.float64))
        loss = math.nan
        with self._named(folder, "train"):
            for batch in train_batches(
                recipe,
                self.train_samples,
                self.world,
                self.execution.workers,
                epoch=state.counters.epoch,
                skip=state.counters.batch,
                as_indices=self.batch.make is not None,
                timeout_s=self.execution.timeout_s,
                on_loss=self._note_loss,
            ):
                self._step(*batch)
                reading = self.watch.after_step()
                if reading is not None:
                    loss = self._read(reading, folder)
                self._probe()
                self.listener.batch("train", n, state.counters.batch, self.batches, loss=loss)
                self._save_or_stop(folder, stop)
        terms = self._check(state.tally.read(), folder)
        trained, cpu_trained = time.monotonic(), time.process_time()
        with self._named(folder, "test"):
            result, *averaged = self._evaluate(n, folder, stop)
        if not math.isfinite(result.loss + result.quantization_error):
            # The epoch's last update can cause this; no later step of the epoch checks it.
            what = "the network outputs NaN or infinities"
            found = examine_test(
                self.net, recipe, self.test_samples, folder.path, state.counters, self.world
            )
            self._diverged(folder, state.counters.step, f"test of epoch {n}", what, found)
        rates = {layer.name: layer.firing_rate for layer in result.layers}
        self.health.see_rates(rates, state.counters.step, whole_split=True)
        state.counters = Counters(epoch=n, step=state.counters.step, batch=0)
        record = self._record(result, progress, terms)
        record |= averaged_fields(averaged[0]) if averaged else {}
        record |= {
            "train_s": round(trained - began, 3),
            "test_s": round(time.monotonic() - trained, 3),
            "train_cpu_s": round(cpu_trained - cpu_began, 3),
        }
        state.tally.clear()
        self.watch.forget()
        state.best = max(state.best, result.accuracy)
        if self.world.is_main:
            folder.log_metrics(record)
        self._save(folder)
        self.listener.epoch(record)
        if n < recipe.epochs:
            self._save_or_stop(folder, stop, saved=True)

    def _step(self, *batch: Tensor) -> None:
        """One optimizer step on one global batch: fill its tensors, run it, count it."""
        recipe, state = self.recipe, self.state
        done = state.counters
        self.batch.fill(*batch)
        state.rate.fill_(self._rate(done.epoch, done.batch))
        # Random numbers of a network (dropout) depend on seed, position and rank alone, so that
        # a resumed run draws the same.
        place = ("step", done.epoch, done.batch, self.world.rank)
        with seeded(recipe.seed, *place, device=self.world.device):
            self.run_step()
        state.counters = Counters(done.epoch, done.step + 1, done.batch + 1)

    def _read(self, reading: Reading, folder: RunFolder) -> float:
        """The mean loss of the epoch in a reading, which must be finite."""
        means = self._check(reading, folder).means()
        total = means["train_loss"] + means["train_regularizer"]
        self.health.see_loss(total, self.state.counters.step)
        return means["train_loss"]

    def _probe(self) -> None:
        """Look at the firing rates now and then. All ranks do."""
        if self.state.counters.step % PROBE_STEPS == 0:
            rates = firing_rates(self.net, self.batch(), self.recipe.accumulate)
            self.health.see_rates(rates, self.state.counters.step, whole_split=False)

    def _new_health(self, folder: RunFolder) -> Health:
        def tell(text: str, fields: Mapping[str, Any]) -> None:
            self._log("health", **fields, text=text)
            self.listener.note(f"warning: {text}")

        told = [event for event in folder.events() if event["event"] == "health"]
        losses = [
            record["train_loss"] + record["train_regularizer"]
            for record in folder.metrics()
            if {"train_loss", "train_regularizer"} <= record.keys()
        ]
        return Health(tell, f"try {self._fork(folder)}", told, min(losses, default=None))

    def _fork(self, folder: RunFolder) -> str:
        """The command that goes on with a smaller rate."""
        where = shlex.quote(str(folder.path))
        return f"rmploss train --fork {where} --lr {self.recipe.lr / 10:.3g}"

    @contextmanager
    def _named(self, folder: RunFolder, phase: str) -> Iterator[None]:
        """Say in an exception of other code, such as a data set's, where training was."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            where = failed_at(self.recipe, self.state.counters, len(self.train_samples), phase)
            command = f"rmploss train --resume {shlex.quote(str(folder.path))}"
            error.add_note(f"{where.words()}\nwhen that is mended: {command}")
            with suppress(StoreError):
                self._log("failed", error=repr(error), **where.fields())
            raise

    def _rate(self, epoch: int, batch: int) -> float:
        """The learning rate of a step."""
        recipe = self.recipe
        position = Position(epoch, recipe.epochs, batch, self.batches)
        return learning_rate(recipe.lr, recipe.lr_schedule, position)

    def _check(self, reading: Reading, folder: RunFolder) -> Terms:
        """The sums of a reading; `NonFiniteError`, which names the first bad step, if there is one.

        Since that step nothing has changed: no parameter, no moment, no running statistic.
        """
        step = reading.first_bad
        if step is not None:
            # Sums are read before an epoch ends, so that the step is one of this epoch.
            at = self.state.counters
            epoch, batch = at.epoch, at.batch - (at.step - step)
            what = "the loss or a gradient became NaN or infinite; the parameters were not updated"
            rate = self._rate(epoch, batch)
            before = Counters(epoch, step, batch)
            found = examine_step(
                self.step, self.batch, self.train_samples, folder.path, before, rate
            )
            self._diverged(folder, step, f"epoch {epoch + 1}, batch {batch + 1}", what, found)
        return reading.terms

    def _diverged(
        self, folder: RunFolder, step: int, where: str, what: str, found: Finding
    ) -> NoReturn:
        if self.world.is_main:
            folder.log_event(
                "non-finite", step=step, where=where, first=found.words(), record=found.record
            )
        record = found.trouble or f"see {folder.path / (found.record or '')}"
        raise NonFiniteError(
            f"{what} ({where})",
            [
                Problem("first found in", found.words(), record),
                Problem(str(folder.path), "its last checkpoint is intact", self._fork(folder)),
            ],
        )

    def _repeated(
        self, function: Function, tensors: Callable[[], list[Tensor]], what: str
    ) -> Repeated:
        """A function that is captured where it can be, and says what became of it."""
        mode = self.execution.capture

        def report(reason: str) -> None:
            outcome = {"reason": reason} if reason else {}
            self._log("capture", what=what, captured=not reason, **outcome)
            if reason:
                self.listener.note(f"the {what} runs eagerly, not as a CUDA graph: {reason}")

        return Repeated(function, tensors, capturer=self.capturer, mode=mode, report=report)

    def _evaluator(self, net: SpikingNetwork) -> Evaluator:
        return Evaluator(
            net,
            self.world,
            precision=precision(self.recipe, self.world.device),
            repeat=lambda run, tensors: self._repeated(run, tensors, "evaluation"),
        )

    def _evaluate(self, epoch: int, folder: RunFolder, stop: Stop) -> list[Evaluation]:
        """The results with the trained weights, then with their average if there is one."""
        size = self.recipe.batch_size
        total = len(self.evaluators) * n_batches(self.test_samples, size, drop_last=False)
        done = 0

        def on_batch() -> None:
            nonlocal done
            done += 1
            self.listener.batch("test", epoch, done, total)
            self._save_or_stop(folder, stop)

        return [evaluator(self._test_batches(), on_batch) for evaluator in self.evaluators]

    def _test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return test_batches(
            self.recipe,
            self.test_samples,
            self.world,
            self.execution.workers,
            timeout_s=self.execution.timeout_s,
            on_loss=self._note_loss,
        )

    def _note_loss(self, what: str) -> None:
        """Say that a loader process was replaced."""
        self._log("loader lost", what=what)
        self.listener.note(what)

    def _record(self, result: Evaluation, progress: float, terms: Terms) -> dict[str, Any]:
        """The epoch's line of metrics.jsonl, without its times.

        terms: the sums of this rank.
        """
        terms = Terms(self.world.all_reduce_sum(terms.sums))
        return {
            "epoch": self.state.counters.epoch,
            "step": self.state.counters.step,
            "lr": self._rate(self.state.counters.epoch - 1, self.batches - 1),
            "lambda": self.objective.weight(progress),
            **terms.means(),
            "test_accuracy": result.accuracy,
            "test_ce": result.loss,
            "quantization_error": result.quantization_error,
            "quantization_error_of_elements": result.quantization_error_of_elements,
            "firing_rate": result.firing_rate,
            "layers": {
                layer.name: {
                    "quantization_error": layer.quantization_error,
                    "firing_rate": layer.firing_rate,
                }
                for layer in result.layers
            },
        }

    def _load(self, folder: RunFolder) -> None:
        loaded = self.state.load(folder)
        if not self.world.is_main:
            return
        lost = self._lost(folder, loaded)
        folder.rewind(loaded.counters)
        reasons = [f"{name}: {reason}" for name, reason in loaded.rejected]
        differs = inexact_reasons(loaded, folder.events(), self.world, self.execution.deterministic)
        folder.log_event(
            "resume",
            step=loaded.counters.step,
            rejected=reasons,
            inexact=differs,
            command=list(self.execution.command),
        )
        if lost:
            folder.log_event("damaged", files=lost)  # Tables do not count such a run.
        for what in lost:
            self.listener.note(f"damaged, the run goes on: {what}")
        for reason in reasons:
            self.listener.note(f"checkpoint rejected: {reason}")
        for reason in differs:
            self.listener.note(f"may differ from an unbroken run in the last bits: {reason}")

    def _lost(self, folder: RunFolder, loaded: Loaded) -> list[str]:
        """What the record of the run has lost before this checkpoint."""
        lost = []
        if loaded.metrics not in (None, folder.metrics_hash(loaded.counters)):
            lost.append("metrics.jsonl: lines before the checkpoint are damaged or missing")
        if not folder.has_manifest() and loaded.metrics is not None:
            lost.append("events.jsonl: its first event, or all of it, is damaged or missing")
        return lost

    def _save(self, folder: RunFolder) -> None:
        self.state.save(folder)
        self.clock.restart()

    def _save_or_stop(self, folder: RunFolder, stop: Stop, saved: bool = False) -> None:
        """Save if the clock of rank 0 says so; save and stop after a signal to any rank.

        saved: the checkpoint of this step is written.
        """
        due = self.world.is_main and not saved and self.clock.due()
        request = Request.STOP if stop.requested else Request.SAVE if due else Request.NOTHING
        request = self.world.highest(request)
        if request == Request.NOTHING:
            return
        if not saved:
            self._check(self.state.tally.read(), folder)
            self._save(folder)
        if request != Request.STOP:
            return
        if self.world.is_main:
            folder.log_event("interrupted", step=self.state.counters.step)
        command = f"rmploss train --resume {shlex.quote(str(folder.path))}"
        raise InterruptedRunError(
            f"stopped after step {self.state.counters.step} ({self._position()}), "
            f"checkpoint written; resume with\n  {command}{self.execution.command_flags()}"
        )

    def _position(self) -> str:
        """What is done, for people: "epoch 2, batch 17 of 78", or "epoch 1" at its end."""
        at = self.state.counters
        if at.batch or not at.epoch:
            return f"epoch {at.epoch + 1}, batch {at.batch} of {self.batches}"
        return f"epoch {at.epoch}"

    def _placement(self) -> dict[str, Any]:
        """Where and how this execution runs, for events.jsonl."""
        execution = self.execution
        capture = (impossible(self.world) and "off") or execution.capture
        return {**placement(self.world, execution.deterministic), "capture": capture}
