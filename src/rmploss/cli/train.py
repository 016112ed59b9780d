"""`rmploss train`: train a recipe in a new run folder, or resume an interrupted run."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from rmploss import recipes
from rmploss.cli.common import (
    OWN,
    DataDir,
    Device,
    Flag,
    RecipeFloat,
    RecipeInt,
    Workers,
    assignments,
    drop_none,
    is_main,
)
from rmploss.errors import Problem, UserError
from rmploss.recipes import Recipe

if TYPE_CHECKING:
    from rmploss.engine.listener import Listener

AUTO = Path("auto")
"""The word of `--resume` that is no run folder."""


@dataclass(frozen=True)
class Train:
    """Train a recipe in a new run folder, or resume an interrupted run.

    $ rmploss train cifar10-resnet20-rmp --T 4 --seed 1 --data-dir data
    $ rmploss train cifar10-resnet20-rmp-pocket --seed 0 1 2 --set objective.k=1
    $ rmploss train images-resnet20-rmp --data my_photos
    $ rmploss train --resume runs/NAME
    $ rmploss train cifar10-resnet20-rmp --resume auto    go on, or begin
    $ rmploss train --fork runs/NAME --lr 0.05 --epochs 500
    $ torchrun --nproc-per-node 2 -m rmploss train cifar10-resnet19-rmp
    """

    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help_behavior_hint="")] = ""
    """Its name: `rmploss list` shows the main ones, `rmploss list all` all."""
    resume: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Resume this run folder instead; `auto`: that of RECIPE, or begin it if there is none."""
    fork: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Begin a new run from the newest checkpoint of this one, with the changes given. One that has
    ended goes on for as many epochs again, if no --epochs is given."""
    name: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Name the run folder, instead of by recipe, seed and hash."""
    start: Annotated[Path | None, arg(metavar="RUN|FILE", help_behavior_hint="")] = None
    """Initialize from the weights of this run, or of a .safetensors or .pt file."""
    freeze: Annotated[
        Literal["backbone"] | None, arg(metavar="backbone", help_behavior_hint="")
    ] = None
    """With --start: train the head alone."""
    data: Annotated[str | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """Your own images or event recordings instead of the recipe's data; or tonic:NAME."""
    seed: Annotated[tuple[int, ...], arg(metavar="N ...")] = (0,)
    """One run per seed, one after the other."""
    T: RecipeInt = None
    """Time steps."""
    epochs: RecipeInt = None
    """Passes over the training images."""
    lr: RecipeFloat = None
    """Peak learning rate."""
    batch_size: RecipeInt = None
    """Images per step, over all ranks."""
    accumulate: RecipeInt = None
    """Process a batch in that many parts, for less memory."""
    width: RecipeFloat = None
    """Multiply the channels of the network by this."""
    amp: Annotated[Literal["off", "bf16", "fp16"] | None, arg(metavar="off|bf16|fp16"), OWN] = None
    """Run convolutions in half precision; membranes stay float32."""
    train_samples: RecipeInt = None
    """Train on a class-balanced subset."""
    test_samples: RecipeInt = None
    """Test on a class-balanced subset."""
    mode: Annotated[Literal["paper", "code"], arg(metavar="paper|code")] = "paper"
    """Where the paper and its authors' code differ: `rmploss list readings`."""
    set: Annotated[tuple[str, ...], arg(metavar="FIELD=VALUE ...", help_behavior_hint="")] = ()
    """Any other field: --set objective.k=1 neuron.decay=0.5."""
    data_dir: DataDir = None
    """The folder of the data sets."""
    runs_dir: Annotated[Path, arg(metavar="DIR")] = Path("runs")
    """The folder for run folders."""
    device: Device = "auto"
    """The device to compute on."""
    backend: Annotated[
        Literal["auto", "reference", "cpu", "triton"], arg(metavar="auto|reference|cpu|triton")
    ] = "auto"
    """The kernels to compute with; `rmploss doctor` shows the choice of auto."""
    workers: Workers = None
    """Processes that load samples too many for memory; the result does not depend on it."""
    capture: Annotated[Literal["auto", "on", "off"], arg(metavar="auto|on|off")] = "auto"
    """Run each step on a GPU as one captured CUDA graph; `on` fails where auto runs eagerly."""
    save_minutes: Annotated[float, arg(metavar="MINUTES")] = 9.0
    """Minutes between two checkpoints, beside those of the epoch ends."""
    timeout: Annotated[float, arg(metavar="SECONDS")] = 60.0
    """How long to wait for another rank or a loader process."""
    deterministic: Flag = False
    """On a GPU take only kernels whose results repeat bit for bit; slower."""
    track: Annotated[
        Literal["tensorboard", "wandb"] | None,
        arg(metavar="tensorboard|wandb", help_behavior_hint=""),
    ] = None
    """Show the curves there, too: pip install 'rmploss[track]'."""
    json: Flag = False
    """One JSON object per line on standard output, for programs."""

    def run(self) -> int:
        """Train; returns 0."""
        from rmploss.cli.terminal import listener

        shown = listener(self.json, waits_for="preparing the run")
        try:
            if self.track is not None and is_main():
                from rmploss.track import Several, tracker

                shown = Several(shown, tracker(self.track, shown.note))
            done = self._train(self._jobs(), shown)
        finally:
            shown.close()
        if not self.json and is_main():
            shown.note("report: rmploss report " + " ".join(shlex.quote(str(p)) for p in done))
        return 0

    def _train(self, jobs: list[Recipe], shown: "Listener") -> list[Path]:
        """The run folders of the jobs, or of the run that is resumed."""
        from rmploss.engine.execution import Execution, join, require_same_run
        from rmploss.engine.train import resume, train

        execution = Execution(
            data_dir=self.data_dir,
            device=self.device,
            workers=self.workers,
            backend=self.backend,
            command=("rmploss", *sys.argv[1:]),
            start=self.start,
            capture=self.capture,
            deterministic=self.deterministic,
            timeout_s=self.timeout,
            save_minutes=self.save_minutes,
            track=self.track or "",
        )
        if self.resume is not None and not self._may_resume:
            return [resume(self.resume, execution, shown)]
        with join(self.device, timeout_s=self.timeout, deterministic=self.deterministic) as world:
            require_same_run(world, runs=[job.to_json() for job in jobs])
            return [
                train(
                    job,
                    self.runs_dir,
                    execution,
                    shown,
                    world,
                    name=self.name,
                    fork=self.fork,
                    or_resume=self._may_resume,
                )
                for job in jobs
            ]

    def _jobs(self) -> list[Recipe]:
        """The recipes to train, one per seed; all flags are checked before the first run starts."""
        from rmploss.data import data_root
        from rmploss.engine.build import check, restore_none_words
        from rmploss.engine.own_data import changes_for

        changes = self._changes()
        if self.resume is not None and not self._may_resume:
            others = self.recipe or changes or self.start or self.data or self.mode != "paper"
            if others or self.seed != (0,) or self.name or self.fork:
                what = "cannot be combined with a recipe or a change of one"
                fix = (
                    f"a new run with the change goes on from it: --fork {self.resume} --epochs ..."
                )
                raise UserError(
                    "a run is resumed as it was started", [Problem("--resume", what, fix)]
                )
            return []
        if self.name and len(self.seed) > 1:
            problem = Problem("--name", "names one run folder", "one --seed, or leave --name out")
            raise UserError(f"{len(self.seed)} seeds are {len(self.seed)} runs", [problem])
        if self.fork is not None:
            return [self._forked(self.fork, changes)]
        if not self.recipe:
            names = ", ".join(list(recipes.RECIPES)[:4])
            raise UserError(
                "no recipe was named",
                [Problem("recipe", "is missing", f"one of {names}, ...   (rmploss list)")],
            )
        if not self.seed or len(set(self.seed)) < len(self.seed):
            raise UserError("--seed needs at least one number, and each only once")
        base = recipes.get(self.recipe)
        if self.data is not None:
            changes = {**changes_for(base, self.data, data_root(self.data_dir)), **changes}
        if self.start is not None and base.start.name == "none":
            changes = {"start": "weights", **changes}
        recipe, problems = recipes.apply(base, changes)
        if self.mode != "paper":  # flags take precedence over the reading
            recipe, _ = recipes.apply(recipes.read_as(recipe, self.mode), changes)
        recipe = restore_none_words(recipe)
        jobs = [recipe.but(seed=seed) for seed in self.seed]
        lowest = min(jobs, key=lambda job: job.seed)  # the only one that can be negative
        check(lowest, data_root(self.data_dir), earlier=problems)
        return jobs

    @property
    def _may_resume(self) -> bool:
        return self.resume == AUTO

    def _forked(self, run: Path, changes: dict[str, recipes.Value]) -> Recipe:
        """The recipe of a run with changes; of one that has ended, for twice its epochs."""
        from rmploss.data import data_root
        from rmploss.engine.build import check, loosen, restore_none_words
        from rmploss.engine.go_on import is_finished
        from rmploss.engine.run import RunFolder

        others = {
            f"recipe {self.recipe}": self.recipe,
            "--seed": self.seed != (0,),
            "--start": self.start,
            "--data": self.data,
            "--mode": self.mode != "paper",
        }
        problems = [
            Problem(where, "is that of the forked run", "leave it out; --set changes other fields")
            for where, given in others.items()
            if given
        ]
        if problems:
            raise UserError("a fork has the recipe of its run, with changes", problems)
        before = loosen(RunFolder.open(run).recipe())
        if is_finished(run):  # so that a command that a run named while it trained works later, too
            changes = {"epochs": 2 * before.epochs, **changes}
        recipe, problems = recipes.apply(before, changes)
        recipe = restore_none_words(recipe.but(expect=""))
        check(recipe, data_root(self.data_dir), earlier=problems)
        return recipe

    def _changes(self) -> dict[str, recipes.Value]:
        flags = {
            "T": self.T,
            "epochs": self.epochs,
            "lr": self.lr,
            "batch_size": self.batch_size,
            "accumulate": self.accumulate,
            "network.width": self.width,
            "amp": self.amp,
            "start.freeze": self.freeze,
            "train_samples": self.train_samples,
            "test_samples": self.test_samples,
        }
        typed, named = drop_none(flags), assignments(self.set)
        problems = [
            Problem(f"--set {field}", "is given as a flag, too", "give it once")
            for field in named
            if field in typed
        ]
        if "seed" in named:
            problems.append(Problem("--set seed", "has its own flag", "--seed N ..."))
        if problems:
            raise UserError("cannot read --set", problems)
        return {**typed, **named}
