"""The loop of Algorithm 1 over epochs and batches, and what surrounds it: tests, records, stops."""

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
from rmploss.engine.checkpoint import Progress
from rmploss.engine.distributed import World
from rmploss.engine.evaluate import Evaluation, evaluate
from rmploss.engine.execution import Execution, inexact_reasons, placement
from rmploss.engine.listener import Listener
from rmploss.engine.optimizers import Moment, learning_rate
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
"""The file that says that a run is finished, and what it came to."""
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Loop:
    """One execution of a recipe, from its start or from where its folder says it stands."""

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
        """Train until the last epoch is done; returns the run's folder.

        fresh: a new run, whose first checkpoint is written now; else its newest one is loaded.
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
            self.listener.begin(self.recipe, path, epoch=state.at.epoch, device=device)
            while state.at.epoch < self.recipe.epochs:
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
        n = state.at.epoch + 1  # Algorithm 1 counts from 1, so that lambda(N) = 0
        progress = n / recipe.epochs
        self.ddp.train()
        evolve(self.net, progress)
        for images, labels in train_batches(
            recipe,
            self.train_samples,
            self.world,
            self.execution.workers,
            epoch=state.at.epoch,
            skip=state.at.batch,
        ):
            self._step(images, labels, progress, folder)
            numbers = {"loss": state.terms.means()["train_loss"]}
            self.listener.batch("train", n, state.at.batch, self.batches, **numbers)
            self._leave_if_asked(folder, stop)
        trained, cpu_trained = time.monotonic(), time.process_time()
        result = self._evaluate(n, folder, stop)
        if not math.isfinite(result.loss + result.quantization_error):
            # The last update of the epoch did it: no later step is there to notice.
            self._diverged(folder, f"test of epoch {n}", "the network gives NaN or infinities")
        state.at = Progress(epoch=n, step=state.at.step, batch=0)
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
            self._leave_if_asked(folder, stop, saved=True)

    def _step(self, images: Tensor, labels: Tensor, progress: float, folder: RunFolder) -> None:
        """One optimizer step on one global batch, in `accumulate` micro-batches."""
        recipe, state, device = self.recipe, self.state, self.world.device
        at, count = state.at, recipe.accumulate
        for index, (x, y) in enumerate(micro_batches(images, labels, count)):
            last = index == count - 1
            # What a network draws (dropout) is a function of where training stands, and of the
            # rank; so a resumed run draws the same.
            drawn = seeded(recipe.seed, "step", at.epoch, at.batch, index, self.world.rank)
            with drawn, nullcontext() if last else self._without_sync():
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
        self._refuse_non_finite(folder)
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip_norm)
        moment = Moment(at.epoch, recipe.epochs, at.batch, self.batches)
        rate = learning_rate(recipe.lr, recipe.lr_schedule, moment)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.scaler.step(state.optimizer)  # line 9
        state.scaler.update()
        constrain(self.net)
        state.optimizer.zero_grad(set_to_none=True)
        state.at = Progress(at.epoch, at.step + 1, at.batch + 1)

    def _refuse_non_finite(self, folder: RunFolder) -> None:
        state = self.state
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        sound = bool(torch.isfinite(state.terms.sums).all())
        finite = sound and bool(torch.isfinite(norm))
        # Loss scaling probes for the largest scale that does not overflow: then the step is left
        # out by the scaler, which is how it learns. At a scale of 1 it is not the scale's fault.
        probing = sound and state.scaler.is_enabled() and state.scaler.get_scale() > 1
        if not self.world.any_rank(not finite and not probing):
            return
        what = "the loss or a gradient became NaN or infinite; the parameters were not updated"
        self._diverged(folder, f"epoch {state.at.epoch + 1}, batch {state.at.batch + 1}", what)

    def _diverged(self, folder: RunFolder, where: str, what: str) -> NoReturn:
        if self.world.is_main:
            folder.log_event("non-finite", step=self.state.at.step, where=where)
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
            self._leave_if_asked(folder, stop)

        test = test_batches(self.recipe, self.test_samples, self.world, self.execution.workers)
        return evaluate(self.net, test, world=self.world, on_batch=on_batch)

    def _record(self, result: Evaluation, progress: float) -> dict[str, Any]:
        """The epoch's line of metrics.jsonl, but for the times."""
        terms = Terms(self.world.all_reduce_sum(self.state.terms.sums))
        return {
            "epoch": self.state.at.epoch,
            "step": self.state.at.step,
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
        folder.rewind(loaded.progress)
        reasons = [f"{name}: {reason}" for name, reason in loaded.rejected]
        differs = inexact_reasons(loaded, folder.events(), self.world)
        folder.log_event(
            "resume",
            step=loaded.progress.step,
            rejected=reasons,
            inexact=differs,
            command=list(self.execution.command),
        )
        for reason in reasons:
            self.listener.note(f"checkpoint refused: {reason}")
        for reason in differs:
            self.listener.note(f"not bit for bit the unbroken run: {reason}")

    def _leave_if_asked(self, folder: RunFolder, stop: Stop, saved: bool = False) -> None:
        if not self.world.any_rank(stop.requested):
            return
        if not saved:
            self.state.save(folder)
        if self.world.is_main:
            folder.log_event("interrupted", step=self.state.at.step)
        command = f"rmploss train --resume {shlex.quote(str(folder.path))}"
        raise InterruptedRunError(
            f"stopped after step {self.state.at.step}, checkpoint written; resume with\n"
            f"  {command}{self.execution.command_flags()}"
        )

    def _precision(self) -> AbstractContextManager[object]:
        if self.recipe.amp == "off":
            return nullcontext()
        return torch.autocast(self.world.device.type, PRECISIONS[self.recipe.amp])

    def _without_sync(self) -> AbstractContextManager[object]:
        ddp = self.ddp
        return ddp.no_sync() if isinstance(ddp, DistributedDataParallel) else nullcontext()
