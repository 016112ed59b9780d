"""Training a recipe from its first epoch or from a checkpoint (Algorithm 1 and what surrounds it).

Everything random is derived from (seed, purpose, epoch, index), so a run that was interrupted and
resumed is, bit for bit, the run that was not.
"""

import json
import math
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rmploss import ops, store
from rmploss.data import data_root, n_batches
from rmploss.engine import checkpoint, distributed
from rmploss.engine.build import (
    check,
    make_dataset,
    make_loss,
    make_network,
    make_objective,
    make_optimizer,
)
from rmploss.engine.checkpoint import Loaded, Progress
from rmploss.engine.closing import close, is_closed
from rmploss.engine.distributed import World
from rmploss.engine.environment import versions
from rmploss.engine.evaluate import Evaluation, evaluate
from rmploss.engine.feed import open_splits, parts, test_batches, train_batches
from rmploss.engine.listener import Listener
from rmploss.engine.optimizer_state import optimizer_state, restore_optimizer
from rmploss.engine.optimizers import Moment, learning_rate
from rmploss.engine.run import RunFolder, recipe_hash
from rmploss.engine.signals import Stop
from rmploss.engine.start import begin, find
from rmploss.engine.step import Terms, forward_backward
from rmploss.errors import InterruptedRunError, NonFiniteError, Problem, UserError
from rmploss.lifecycle import constrain, evolve
from rmploss.randomness import seeded
from rmploss.recipes import Recipe

RESULT = "result.json"
"""The file that says that a run is finished, and what it came to."""


@dataclass(frozen=True)
class Setting:
    """Where and how a run is executed; none of it may change the result on one device.

    data_dir: the data sets; device: "auto", "cpu", "cuda"; workers: loader processes; backend: the
    provider of the operations (`ops.use_backend`); start: the run folder that a new run starts
    from, where its recipe asks for one.
    """

    data_dir: Path | None = None
    device: str = "auto"
    workers: int = 0
    backend: str = "auto"
    command: Sequence[str] = ()
    start: Path | None = None

    def words(self) -> str:
        """The flags of the command line that say the same."""
        flags = {"--data-dir": self.data_dir, "--workers": self.workers or None}
        if self.device != "auto":
            flags["--device"] = self.device
        if self.backend != "auto":
            flags["--backend"] = self.backend
        given = ((flag, value) for flag, value in flags.items() if value is not None)
        return "".join(f" {flag} {shlex.quote(str(value))}" for flag, value in given)

    def __post_init__(self) -> None:
        if self.workers < 0:
            problem = Problem(
                f"workers = {self.workers}", "must not be negative", "0: no processes"
            )
            raise UserError("nobody can load the data", [problem])


def train(
    recipe: Recipe,
    runs_dir: Path,
    setting: Setting | None = None,
    listener: Listener | None = None,
    world: World | None = None,
) -> Path:
    """Train a recipe in a new run folder, whose path is returned.

    world: that of `join`, for several runs one after the other; None: joined for this run alone.
    Raises `UserError` before anything is written if the recipe or its data are not right,
    `InterruptedRunError` after a signal, with a checkpoint written, and `NonFiniteError` if a loss
    or a gradient is NaN or infinite, before it reaches the parameters.
    """
    setting, listener = setting or Setting(), listener or Listener()
    with ops.use_backend(setting.backend), join(setting.device, world) as world:
        root = data_root(setting.data_dir)
        check(recipe, root, world.size)
        agree(world)
        origin = find(recipe, setting.start)
        run = _Run(recipe, setting, world, listener if world.is_main else Listener())
        begun = begin(origin, run.net, recipe, run.train_samples, world)
        path = None
        if world.is_main:
            plain = recipe.to_json()
            folder = RunFolder.create(runs_dir, recipe.name, plain, command=setting.command)
            path = folder.path
            if begun:
                folder.log_event("begin", **begun)
        return run.execute(Path(world.broadcast_text(str(path))), fresh=True)


def resume(path: Path, setting: Setting | None = None, listener: Listener | None = None) -> Path:
    """Go on with an interrupted run from its newest checkpoint that verifies; returns its path.

    A run that is finished is left alone, unless its closing look is still to come.
    """
    setting, listener = setting or Setting(), listener or Listener()
    folder = RunFolder.open(path)
    recipe = Recipe.from_json(folder.recipe())
    with ops.use_backend(setting.backend), join(setting.device) as world:
        if (path / RESULT).is_file() and is_closed(path):
            if world.is_main:
                listener.note(f"{path} is finished: nothing to do")
                listener.end(summarize(folder.metrics()))
            return path
        check(recipe, data_root(setting.data_dir), world.size)
        agree(world)
        run = _Run(recipe, setting, world, listener if world.is_main else Listener())
        return run.execute(path, fresh=False)


def agree(world: World) -> None:
    """Raise `UserError` on all ranks unless all run the same kernels: their collectives differ."""
    ours = ops.describe(world.device)
    main = world.broadcast_text(ours)
    others = world.all_reduce_sum(torch.tensor([float(ours != main)], dtype=torch.float64))
    if others.item():
        raise UserError(
            f"rank 0 runs on {main!r}, {int(others.item())} other ranks do not (rank {world.rank}: "
            f"{ours!r}): install alike, or choose with --backend"
        )


class _Run:
    """One execution of a recipe: its parts, and where it stands."""

    def __init__(self, recipe: Recipe, setting: Setting, world: World, listener: Listener) -> None:
        self.recipe, self.setting, self.world, self.listener = recipe, setting, world, listener
        dataset = make_dataset(recipe)
        self.train_samples, self.test_samples = open_splits(
            recipe, dataset, setting.data_dir, listener
        )
        self.net = make_network(recipe, dataset).to(world.device)
        self.ddp: nn.Module = self.net
        if world.size > 1:
            self.ddp = DistributedDataParallel(self.net)
        self.loss = make_loss(recipe)
        self.objective = make_objective(recipe)
        self.optimizer = make_optimizer(recipe, self.net)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.amp == "fp16")
        self.batches = n_batches(self.train_samples, recipe.batch_size, drop_last=True)
        if not self.batches:
            count = len(self.train_samples)
            what = f"only {count} training samples, so no batch is full"
            problem = Problem(f"batch_size = {recipe.batch_size}", what, f"at most {count}")
            raise UserError("no batch to train on", [problem])
        self.at = Progress(epoch=0, step=0, batch=0)
        self.terms = Terms.zero()
        self.best = -math.inf

    def execute(self, path: Path, *, fresh: bool) -> Path:
        folder = RunFolder.open(path)
        with folder.lock() if self.world.is_main else nullcontext(), Stop() as stop:
            if fresh:
                self._save(folder)
            else:
                self._load(folder)
            if self.world.is_main:
                folder.log_event("execute", **self._where())
            self.listener.begin(
                self.recipe, path, epoch=self.at.epoch, device=str(self.world.device)
            )
            while self.at.epoch < self.recipe.epochs:
                self._epoch(folder, stop)
            if self.world.is_main:
                summary = summarize(folder.metrics())
                store.write_text(path / RESULT, json.dumps(summary, indent=2) + "\n")
                # Only now: whatever becomes of these, the run is finished.
                close(path, self.net, self.recipe, self.test_samples, self.setting.workers)
                self.listener.end(summary)
        return path

    def _where(self) -> dict[str, Any]:
        """Where this execution runs, and on which backend."""
        return {
            "device": str(self.world.device),
            "ranks": self.world.size,
            "threads": torch.get_num_threads(),
            "backend": ops.describe(self.world.device),
            "versions": versions(),
        }

    def _moved(self, folder: RunFolder) -> list[str]:
        """In what this execution differs from the one before it, and so in the last bits."""
        before = [event for event in folder.events() if event["event"] == "execute"]
        here = self._where()
        return [
            f"{name} {before[-1][name]} is now {here[name]}"
            for name in ("device", "ranks", "backend")
            if before and before[-1].get(name) != here[name]
        ]

    def _epoch(self, folder: RunFolder, stop: Stop) -> None:
        began = time.monotonic()
        n = self.at.epoch + 1  # Algorithm 1 counts from 1, so that lambda(N) = 0
        progress = n / self.recipe.epochs
        self.ddp.train()
        evolve(self.net, progress)
        for images, labels in train_batches(
            self.recipe,
            self.train_samples,
            self.world,
            self.setting.workers,
            epoch=self.at.epoch,
            start=self.at.batch,
        ):
            self._step(images, labels, progress, folder)
            numbers = {"loss": self.terms.means()["train_loss"]}
            self.listener.batch("train", n, self.at.batch, self.batches, **numbers)
            self._leave_if_asked(folder, stop)
        trained = time.monotonic()
        result = self._evaluate(n, folder, stop)
        if not math.isfinite(result.loss + result.quantization_error):
            # The last update of the epoch did it: no later step is there to notice.
            self._diverged(folder, f"test of epoch {n}", "the network gives NaN or infinities")
        self.at = Progress(epoch=n, step=self.at.step, batch=0)
        record = self._record(result, progress, trained - began, time.monotonic() - trained)
        self.terms = Terms.zero()
        self.best = max(self.best, result.accuracy)
        if self.world.is_main:
            folder.log_metrics(record)
        self._save(folder)
        self.listener.epoch(record)
        if n < self.recipe.epochs:
            self._leave_if_asked(folder, stop, saved=True)

    def _step(self, images: Tensor, labels: Tensor, progress: float, folder: RunFolder) -> None:
        """One optimizer step on one global batch, in `accumulate` parts."""
        recipe, device = self.recipe, self.world.device
        count = recipe.accumulate
        for index, (x, y) in enumerate(parts(images, labels, count)):
            last = index == count - 1
            # What a network draws (dropout) is a function of where training stands, and of the
            # rank; so a resumed run draws the same.
            drawn = seeded(
                recipe.seed, "step", self.at.epoch, self.at.batch, index, self.world.rank
            )
            with drawn, nullcontext() if last else self._without_sync():
                self.terms += forward_backward(
                    self.ddp,
                    self.objective,
                    x.to(device, non_blocking=True),
                    y.to(device, non_blocking=True),
                    progress=progress,
                    loss=self.loss,
                    precision=self._precision,
                    scale=lambda loss: self.scaler.scale(loss) / count,
                )
        self.scaler.unscale_(self.optimizer)
        self._refuse_non_finite(folder)
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip_norm)
        at = Moment(self.at.epoch, recipe.epochs, self.at.batch, self.batches)
        rate = learning_rate(recipe.lr, recipe.lr_schedule, at)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)  # line 9
        self.scaler.update()
        constrain(self.net)
        self.optimizer.zero_grad(set_to_none=True)
        self.at = Progress(self.at.epoch, self.at.step + 1, self.at.batch + 1)

    def _refuse_non_finite(self, folder: RunFolder) -> None:
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(self.terms.sums).all())
        # Loss scaling probes for the largest scale that does not overflow: then the step is left
        # out by the scaler, which is how it learns. At a scale of 1 it is not the scale's fault.
        sound = bool(torch.isfinite(self.terms.sums).all())
        probing = sound and self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if not self.world.agree(not finite and not probing):
            return
        what = "the loss or a gradient became NaN or infinite; the parameters were not updated"
        self._diverged(folder, f"epoch {self.at.epoch + 1}, batch {self.at.batch + 1}", what)

    def _diverged(self, folder: RunFolder, where: str, what: str) -> NoReturn:
        if self.world.is_main:
            folder.log_event("non-finite", step=self.at.step, where=where)
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

        test = test_batches(self.recipe, self.test_samples, self.world, self.setting.workers)
        return evaluate(self.net, test, world=self.world, on_batch=on_batch)

    def _record(
        self, result: Evaluation, progress: float, train_s: float, test_s: float
    ) -> dict[str, Any]:
        """The epoch's line of metrics.jsonl."""
        terms = Terms(self.world.all_reduce_sum(self.terms.sums))
        return {
            "epoch": self.at.epoch,
            "step": self.at.step,
            "lr": self.optimizer.param_groups[0]["lr"],
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
            "train_s": round(train_s, 3),
            "test_s": round(test_s, 3),
        }

    def _save(self, folder: RunFolder) -> None:
        terms = self.world.all_reduce_sum(self.terms.sums)
        if not self.world.is_main:
            return
        best = [r["step"] for r in folder.metrics() if r["test_accuracy"] >= self.best]
        checkpoint.save(
            folder.path,
            model_state=self.net.state_dict(),
            optimizer_state=optimizer_state(self.optimizer, self.net),
            progress=self.at,
            recipe_hash=recipe_hash(self.recipe.to_json()),
            versions=versions(),
            extra={"terms": terms},
            scaler_state=self.scaler.state_dict() or None,
            best=self.best,
            spare=best[:1],
        )

    def _load(self, folder: RunFolder) -> None:
        loaded = checkpoint.load_latest(
            folder.path,
            recipe_hash=recipe_hash(self.recipe.to_json()),
            owner=self.world.is_main,
        )
        self.net.load_state_dict(loaded.model_state)
        restore_optimizer(self.optimizer, self.net, loaded.optimizer_state)
        if loaded.scaler_state:
            self.scaler.load_state_dict(dict(loaded.scaler_state))
        self.at = loaded.progress
        self.best = -math.inf if loaded.best is None else loaded.best
        if self.world.is_main:  # the sums were those of all ranks
            self.terms = Terms(loaded.extra["terms"])
            folder.rewind(loaded.progress)
            reasons = [f"{name}: {reason}" for name, reason in loaded.rejected]
            inexact = [*_inexact(loaded), *self._moved(folder)]
            folder.log_event(
                "resume",
                step=self.at.step,
                rejected=reasons,
                inexact=inexact,
                command=list(self.setting.command),
            )
            for reason in reasons:
                self.listener.note(f"checkpoint refused: {reason}")
            for reason in inexact:
                self.listener.note(f"not bit for bit the unbroken run: {reason}")

    def _leave_if_asked(self, folder: RunFolder, stop: Stop, saved: bool = False) -> None:
        if not self.world.agree(stop.requested):
            return
        if not saved:
            self._save(folder)
        if self.world.is_main:
            folder.log_event("interrupted", step=self.at.step)
        raise InterruptedRunError(
            f"stopped after step {self.at.step}, checkpoint written; go on with\n"
            f"  rmploss train --resume {shlex.quote(str(folder.path))}{self.setting.words()}"
        )

    def _precision(self) -> AbstractContextManager[object]:
        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        if self.recipe.amp == "off":
            return nullcontext()
        return torch.autocast(self.world.device.type, kinds[self.recipe.amp])

    def _without_sync(self) -> AbstractContextManager[object]:
        ddp = self.ddp
        return ddp.no_sync() if isinstance(ddp, DistributedDataParallel) else nullcontext()


def summarize(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """What a run came to: its last and its best epoch, and the time it took."""
    if not metrics:
        return {"epochs": 0}
    last = metrics[-1]
    best = max(metrics, key=lambda record: record["test_accuracy"])
    return {
        "epochs": last["epoch"],
        "last_accuracy": last["test_accuracy"],
        "best_accuracy": best["test_accuracy"],
        "best_epoch": best["epoch"],
        "quantization_error": last["quantization_error"],
        "firing_rate": last["firing_rate"],
        "train_s": round(sum(record["train_s"] for record in metrics), 3),
        "test_s": round(sum(record["test_s"] for record in metrics), 3),
    }


@contextmanager
def join(device: str = "auto", world: World | None = None) -> Iterator[World]:
    """The processes that train together, this one among them, until the block ends.

    world: those of an outer block, to stay with.
    """
    if world is not None:
        yield world
        return
    world = distributed.start(device)
    try:
        yield world
    finally:
        distributed.stop()


def _inexact(loaded: Loaded) -> list[str]:
    """Why a resumed run may differ from an unbroken one in the last bits; empty: it does not."""
    here = versions()
    reasons = [
        f"{name} {there} is now {here.get(name)}"
        for name, there in loaded.versions.items()
        if here.get(name) != there
    ]
    if loaded.threads != torch.get_num_threads():
        reasons.append(f"{loaded.threads} threads are now {torch.get_num_threads()}")
    return reasons
