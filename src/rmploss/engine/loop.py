"""The epochs and batches of Algorithm 1, with tests, metrics, checkpoints and stops."""

import json
import math
import shlex
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rmploss import store
from rmploss.data import n_batches
from rmploss.engine.after_training import analyze
from rmploss.engine.batches import micro_batches, open_splits, test_batches, train_batches
from rmploss.engine.build import make_dataset, make_loss, make_network, make_objective
from rmploss.engine.checkpoint import Counters
from rmploss.engine.distributed import World
from rmploss.engine.evaluate import Evaluation, evaluate
from rmploss.engine.execution import Execution, inexact_reasons, placement
from rmploss.engine.listener import Listener
from rmploss.engine.optimizers import Position, learning_rate
from rmploss.engine.run import RunFolder
from rmploss.engine.run_summary import summarize
from rmploss.engine.signals import Stop
from rmploss.engine.step import Terms, forward_backward
from rmploss.engine.training_state import TrainingState
from rmploss.errors import InterruptedRunError, NonFiniteError, Problem, UserError
from rmploss.lifecycle import constrain, evolve
from rmploss.randomness import seeded
from rmploss.recipes import Recipe

RESULT = "result.json"
"""The summary of a run; the file exists once the run is finished."""
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
        dataset = make_dataset(recipe)
        self.train_samples, self.test_samples = open_splits(
            recipe, dataset, execution.data_dir, listener
        )
        self.net = make_network(recipe, dataset).to(world.device)
        self.ddp: nn.Module = self.net
        if world.size > 1:
            self.ddp = DistributedDataParallel(self.net)
        self.loss = make_loss(recipe)
        self.objective = make_objective(recipe)
        self.state = TrainingState(recipe, self.net, world)
        self.batches = n_batches(self.train_samples, recipe.batch_size, drop_last=True)
        if not self.batches:
            count = len(self.train_samples)
            what = f"only {count} training samples, so no batch is full"
            problem = Problem(f"batch_size = {recipe.batch_size}", what, f"at most {count}")
            raise UserError("no batch to train on", [problem])

    def execute(self, path: Path, *, fresh: bool) -> Path:
        """Train up to the last epoch; returns `path`.

        path: the run folder.
        fresh: write the checkpoint of step 0 first; False: load the newest one.
        """
        folder, state = RunFolder.open(path), self.state
        with folder.lock() if self.world.is_main else nullcontext(), Stop() as stop:
            if fresh:
                state.save(folder)
            else:
                self._load(folder)
            if self.world.is_main:
                folder.log_event("execute", **placement(self.world))
            device = str(self.world.device)
            self.listener.begin(self.recipe, path, epoch=state.counters.epoch, device=device)
            while state.counters.epoch < self.recipe.epochs:
                self._epoch(folder, stop)
            if self.world.is_main:
                summary = summarize(folder.metrics())
                store.write_text(path / RESULT, json.dumps(summary, indent=2) + "\n")
                # After result.json: a crash in the analysis leaves a finished run.
                analyze(path, self.net, self.recipe, self.test_samples, self.execution.workers)
                self.listener.end(summary)
        return path

    def _epoch(self, folder: RunFolder, stop: Stop) -> None:
        began, cpu_began = time.monotonic(), time.process_time()
        recipe, state = self.recipe, self.state
        n = state.counters.epoch + 1  # Algorithm 1 counts from 1, so that lambda(N) = 0
        progress = n / recipe.epochs
        self.ddp.train()
        evolve(self.net, progress)
        for images, labels in train_batches(
            recipe,
            self.train_samples,
            self.world,
            self.execution.workers,
            epoch=state.counters.epoch,
            skip=state.counters.batch,
        ):
            self._step(images, labels, progress, folder)
            numbers = {"loss": state.terms.means()["train_loss"]}
            self.listener.batch("train", n, state.counters.batch, self.batches, **numbers)
            self._stop_if_requested(folder, stop)
        trained, cpu_trained = time.monotonic(), time.process_time()
        result = self._evaluate(n, folder, stop)
        if not math.isfinite(result.loss + result.quantization_error):
            # The epoch's last update can cause this; no later step of the epoch checks it.
            self._diverged(folder, f"test of epoch {n}", "the network outputs NaN or infinities")
        state.counters = Counters(epoch=n, step=state.counters.step, batch=0)
        record = self._record(result, progress) | {
            "train_s": round(trained - began, 3),
            "test_s": round(time.monotonic() - trained, 3),
            "train_cpu_s": round(cpu_trained - cpu_began, 3),
        }
        state.terms = Terms.zero()
        state.best = max(state.best, result.accuracy)
        if self.world.is_main:
            folder.log_metrics(record)
        state.save(folder)
        self.listener.epoch(record)
        if n < recipe.epochs:
            self._stop_if_requested(folder, stop, saved=True)

    def _step(self, images: Tensor, labels: Tensor, progress: float, folder: RunFolder) -> None:
        """One optimizer step on one global batch, in `accumulate` micro-batches."""
        recipe, state, device = self.recipe, self.state, self.world.device
        done, count = state.counters, recipe.accumulate
        for index, (x, y) in enumerate(micro_batches(images, labels, count)):
            last = index == count - 1
            # Random numbers of a network (dropout) depend on seed, position and rank alone, so that
            # a resumed run draws the same.
            draws = seeded(recipe.seed, "step", done.epoch, done.batch, index, self.world.rank)
            with draws, nullcontext() if last else self._without_sync():
                state.terms += forward_backward(
                    self.ddp,
                    self.objective,
                    x.to(device, non_blocking=True),
                    y.to(device, non_blocking=True),
                    progress=progress,
                    loss=self.loss,
                    precision=self._precision,
                    scale=lambda loss: state.scaler.scale(loss) / count,
                )
        state.scaler.unscale_(state.optimizer)
        self._check_finite(folder)
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip_norm)
        position = Position(done.epoch, recipe.epochs, done.batch, self.batches)
        rate = learning_rate(recipe.lr, recipe.lr_schedule, position)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.scaler.step(state.optimizer)  # line 9
        state.scaler.update()
        constrain(self.net)
        state.optimizer.zero_grad(set_to_none=True)
        state.counters = Counters(done.epoch, done.step + 1, done.batch + 1)

    def _check_finite(self, folder: RunFolder) -> None:
        state = self.state
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        sound = bool(torch.isfinite(state.terms.sums).all())
        finite = sound and bool(torch.isfinite(norm))
        # The scaler probes for the largest scale without overflow and skips the steps that do
        # overflow. At a scale of 1 an overflow has another cause.
        probing = sound and state.scaler.is_enabled() and state.scaler.get_scale() > 1
        if not self.world.any_rank(not finite and not probing):
            return
        what = "the loss or a gradient became NaN or infinite; the parameters were not updated"
        done = state.counters
        self._diverged(folder, f"epoch {done.epoch + 1}, batch {done.batch + 1}", what)

    def _diverged(self, folder: RunFolder, where: str, what: str) -> NoReturn:
        if self.world.is_main:
            folder.log_event("non-finite", step=self.state.counters.step, where=where)
        raise NonFiniteError(
            f"{what} ({where})",
            [Problem(str(folder.path), "its last checkpoint is intact", "try a smaller --lr")],
        )

    def _evaluate(self, epoch: int, folder: RunFolder, stop: Stop) -> Evaluation:
        size = self.recipe.batch_size
        total = n_batches(self.test_samples, size, drop_last=False)
        done = 0

        def on_batch() -> None:
            nonlocal done
            done += 1
            self.listener.batch("test", epoch, done, total)
            self._stop_if_requested(folder, stop)

        test = test_batches(self.recipe, self.test_samples, self.world, self.execution.workers)
        return evaluate(self.net, test, world=self.world, on_batch=on_batch)

    def _record(self, result: Evaluation, progress: float) -> dict[str, Any]:
        """The epoch's line of metrics.jsonl, without its times."""
        terms = Terms(self.world.all_reduce_sum(self.state.terms.sums))
        return {
            "epoch": self.state.counters.epoch,
            "step": self.state.counters.step,
            "lr": self.state.optimizer.param_groups[0]["lr"],
            "lambda": self.objective.weight(progress),
            **terms.means(),
            "test_accuracy": result.accuracy,
            "test_ce": result.loss,
            "quantization_error": result.quantization_error,
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
        folder.rewind(loaded.counters)
        reasons = [f"{name}: {reason}" for name, reason in loaded.rejected]
        differs = inexact_reasons(loaded, folder.events(), self.world)
        folder.log_event(
            "resume",
            step=loaded.counters.step,
            rejected=reasons,
            inexact=differs,
            command=list(self.execution.command),
        )
        for reason in reasons:
            self.listener.note(f"checkpoint rejected: {reason}")
        for reason in differs:
            self.listener.note(f"may differ from an unbroken run in the last bits: {reason}")

    def _stop_if_requested(self, folder: RunFolder, stop: Stop, saved: bool = False) -> None:
        if not self.world.any_rank(stop.requested):
            return
        if not saved:
            self.state.save(folder)
        if self.world.is_main:
            folder.log_event("interrupted", step=self.state.counters.step)
        command = f"rmploss train --resume {shlex.quote(str(folder.path))}"
        raise InterruptedRunError(
            f"stopped after step {self.state.counters.step}, checkpoint written; resume with\n"
            f"  {command}{self.execution.command_flags()}"
        )

    def _precision(self) -> AbstractContextManager[object]:
        if self.recipe.amp == "off":
            return nullcontext()
        return torch.autocast(self.world.device.type, PRECISIONS[self.recipe.amp])

    def _without_sync(self) -> AbstractContextManager[object]:
        ddp = self.ddp
        return ddp.no_sync() if isinstance(ddp, DistributedDataParallel) else nullcontext()
