"""`rmploss bench`: seconds and memory of a training step, beside other libraries."""

import inspect
import json as json_module
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, Suppress

from rmploss.cli.common import WHOLE, DataDir, Flag
from rmploss.cli.wrapping import wrapped_help

if TYPE_CHECKING:  # these import torch, which `--help` shall not wait for
    from rmploss_bench.conditions import Conditions
    from rmploss_bench.rows import Race
    from rmploss_bench.timing import Result, Ticker

Topic = Literal[
    "step", "eval", "latency", "epoch", "train", "ops", "memory", "first-step", "scale", "methods"
]
REPEATS = {
    "step": 7,
    "eval": 7,
    "latency": 31,
    "epoch": 5,
    "train": 3,
    "ops": 7,
    "memory": 1,
    "first-step": 3,
    "scale": 3,
    "methods": 5,
}
"""Topic -> default number of rounds."""
IGNORED = {
    "ops": ("only", "precision", "capture"),
    "first-step": ("data_dir",),
    "methods": ("network", "precision", "capture"),
}
"""Topic -> the fields that it does not read; other topics read all."""
ALONE = ("ops", "methods")
"""The topics without other libraries."""
THREADS = {"latency": "1, 2, 4, ... all CPUs, one after the other"}
"""Topic -> the default of `--threads`, where it is another one."""
QUIET_S = 30
"""Seconds between two lines of progress where standard error is no terminal."""


def run(words: Sequence[str]) -> int:
    """Run `rmploss bench WORDS`.

    words: the command line behind `bench`.
    Returns the exit code; raises `UserError` for what cannot be measured.
    """
    config = (tyro.conf.FlagCreatePairsOff,)
    topic = words[0] if words and words[0] in REPEATS else None
    with wrapped_help():
        if topic is not None and {"-h", "--help"} & {*words}:
            kind, prog = _described(topic), f"rmploss bench {topic}"
            tyro.cli(kind, prog=prog, args=["--help"], config=config)
        bench = tyro.cli(Bench, prog="rmploss bench", args=words, config=config)
    return bench.run()


def usual(what: str) -> Any:
    """An option of tyro that shows `what` as the default in the help text."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {what})")


@dataclass(frozen=True)
class Bench:
    """Measure training steps, evaluation, memory or single operations, beside other libraries.

    * step: seconds of a training step of rmploss, SpikingJelly, snnTorch, Norse, the dense bound
    * eval: images per second without gradients
    * latency: seconds of one image, and images per second, beside ONNX Runtime, by threads
    * epoch: epochs of CIFAR-10 per hour, from loading, step and evaluation
    * train: images per second of `rmploss train` on CIFAR-10, and the share of the test in an epoch
    * ops: each operation of rmploss with each backend, beside a copy of the same bytes
    * memory: peak bytes of a step above the built model, in a process per contestant
    * first-step: seconds from the start of Python to the end of the first step
    * scale: the step over T, batch, width and threads
    * methods: a training step of every method of the fair comparison, in rmploss

    Other libraries come with `pip install './benchmarks[peers]'`. All compute the same network with
    the same weights on the same images. A contestant that computes something else gets no figure,
    and the exit code is 1.

    The flags of one topic: rmploss bench TOPIC --help.

    $ rmploss bench
    $ rmploss bench step --network vgg16 --threads 2 --out benchmarks/rows
    $ rmploss bench memory --only rmploss+rmp spikingjelly
    $ rmploss bench --device cuda --precision bf16 --capture on --batch 128
    $ rmploss bench ops --width 0.25 --repeats 3
    """

    topic: Annotated[Positional[Topic], tyro.conf.arg(metavar="TOPIC")] = "step"
    """What to measure, of the topics above."""
    network: Literal["resnet20", "resnet19", "vgg16", "resnet18"] = "resnet20"
    """The network; resnet18 gets noise of 224x224, the others images of 32x32."""
    T: Annotated[int | None, WHOLE, usual("4; resnet19: 2")] = None
    """Time steps."""
    batch: Annotated[int | None, WHOLE, usual("32; resnet19: 8, resnet18: 4")] = None
    """Images of a batch."""
    width: Annotated[float, tyro.conf.arg(metavar="X")] = 1.0
    """Factor on all channels."""
    threads: Annotated[int | None, WHOLE, usual("all CPUs, else $OMP_NUM_THREADS")] = None
    """Threads of torch."""
    repeats: Annotated[
        int | None,
        WHOLE,
        usual("7; latency 31; epoch, methods 5; first-step, scale, train 3; memory 1"),
    ] = None
    """Rounds; the figure is their median."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")] = ()
    """Contestants (or methods) to measure, instead of all."""
    device: Annotated[str, tyro.conf.arg(metavar="cpu|cuda|cuda:N")] = "cpu"
    """Where to compute."""
    precision: Literal["float32", "bf16"] = "float32"
    """Autocast to bfloat16, or not; on CUDA float32 convolutions take TF32."""
    capture: Annotated[Literal["auto", "on", "off"], usual("auto: on with CUDA")] = "auto"
    """Whether the contestants whose step is one CUDA graph take part."""
    data_dir: DataDir = None
    """The folder of CIFAR-10; without it the images are seeded noise."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Write DIR/TOPIC-NETWORK-HARDWARE.csv as well."""
    json: Flag = False
    """One JSON object per row on standard output, for programs."""

    def run(self) -> int:
        """Measure and print; 1 if a gate is red."""
        from rmploss import store
        from rmploss_bench import rows

        self._require_read()
        if self.out is not None:
            store.make_folder(self.out)  # an error comes now, not after the measurement
        every = [*self._conditions()]
        names, repeats = self._names(), self._repeats()
        command = "rmploss " + shlex.join(_words(self))
        races: list[Race] = []
        for index, conditions in enumerate(every, start=1):
            counted = f"[{index}/{len(every)}] " if len(every) > 1 else ""
            with ticker(counted) as tick:
                races.append(self._race(conditions, names, repeats, tick))
        if not self.json:
            _print(self.topic, races)
        else:
            for row in rows.rows(races, command):
                print(json_module.dumps(row))
        if self.out is not None:
            path = rows.write(self.out, self.topic, races, command)
            print(f"written: {path}", file=sys.stderr)
        return int(any(result.red for race in races for result in race.results))

    def _require_read(self) -> None:
        """Raise `UserError` for a flag that the topic does not read."""
        from rmploss.errors import Problem, UserError

        ignored = IGNORED.get(self.topic, ())
        given = [name for name in ignored if getattr(self, name) != getattr(Bench, name)]
        if given:
            fix = f"leave it out   (rmploss bench {self.topic} --help)"
            flags = [f"--{name.replace('_', '-')}" for name in given]
            what = f"is not read by {self.topic}"
            raise UserError("cannot benchmark", [Problem(flag, what, fix) for flag in flags])

    def _conditions(self) -> "Iterator[Conditions]":
        import torch

        from rmploss_bench import latency, scale
        from rmploss_bench.conditions import data_dir, make_conditions

        base = make_conditions(
            self.network,
            T=self.T,
            batch=self.batch,
            width=self.width,
            threads=torch.get_num_threads() if self.threads is None else self.threads,
            device=self.device,
            precision=self.precision,
            # The first step reads no images: their time would be the disk's.
            data_dir="" if self.topic == "first-step" else data_dir(self.data_dir),
        )
        if self.topic == "latency" and self.threads is None:
            yield from latency.variations(base)
        else:
            yield from scale.variations(base) if self.topic == "scale" else (base,)

    def _names(self) -> list[str]:
        from rmploss.errors import Problem, UserError
        from rmploss_bench import (
            contestants,
            epoch,
            latency,
            methods,
            processes,
            scale,
            whole_training,
        )

        if self.topic == "methods":
            return methods.chosen(self.only)
        on_cuda = self.device.startswith("cuda")
        if self.capture == "on" and not on_cuda:
            where = f"--device {self.device}"
            raise UserError(
                "cannot capture", [Problem(where, "has no CUDA graphs", "--device cuda")]
            )
        capture = on_cuda and self.capture != "off"
        everyone = contestants.usual(capture=capture, train=self.topic != "eval")
        trained = [name for name in whole_training.USUAL if name in everyone]
        few = {
            "first-step": processes.FIRST,
            "scale": scale.USUAL,
            "latency": latency.USUAL,
            "epoch": epoch.USUAL,
            "train": trained,
        }
        return contestants.chosen(self.only, few.get(self.topic, everyone), capture=capture)

    def _repeats(self) -> int:
        from rmploss.errors import Problem, UserError

        if self.repeats is not None and self.repeats < 1:
            where = f"--repeats {self.repeats}"
            raise UserError("cannot benchmark", [Problem(where, "must be at least 1")])
        return self.repeats or REPEATS[self.topic]

    def _race(
        self, conditions: "Conditions", names: list[str], repeats: int, tick: "Ticker"
    ) -> "Race":
        from rmploss_bench import (
            epoch,
            latency,
            methods,
            operations,
            processes,
            rows,
            timing,
            whole_training,
        )
        from rmploss_bench.conditions import settings
        from rmploss_bench.workload import make_workload

        measure = {
            "step": timing.steps,
            "scale": timing.steps,
            "eval": timing.images_per_second,
            "latency": latency.latency,
            "epoch": epoch.epochs_per_hour,
            "train": whole_training.whole_training,
            "ops": operations.operations,
            "memory": processes.memory,
            "first-step": processes.first_step,
            "methods": methods.methods,
        }[self.topic]
        with settings(conditions):
            workload = make_workload(conditions)
            images = f"{workload.source}, firing rate {timing.firing_rate(workload):.3f}"
            return rows.Race(conditions, images, measure(workload, names, repeats, tick))


def _described(topic: str) -> type:
    """`Bench` as the help of one topic shows it: its line, its flags, its defaults."""
    _, topics, others, *_ = inspect.cleandoc(Bench.__doc__ or "").split("\n\n")
    (line,) = (line for line in topics.splitlines() if line.startswith(f"* {topic}:"))
    kinds: dict[str, Any] = {
        name: Suppress[Bench.__annotations__[name]] for name in ("topic", *IGNORED.get(topic, ()))
    }
    kinds["repeats"] = Annotated[int | None, WHOLE, usual(str(REPEATS[topic]))]
    if topic in THREADS:
        kinds["threads"] = Annotated[int | None, WHOLE, usual(THREADS[topic])]
    defaults = {name: getattr(Bench, name) for name in kinds}
    example = f"$ rmploss bench {topic} --repeats 3"
    parts = (line.removeprefix("* "), "" if topic in ALONE else others, example)
    text = "\n\n".join(filter(None, parts))
    return dataclass(frozen=True)(
        type("Topic", (Bench,), {"__doc__": text, "__annotations__": kinds, **defaults})
    )


def _words(asked: Bench) -> list[str]:
    """The command line that measures the same, without the flags that have their default."""
    words = ["bench", asked.topic, "--network", asked.network]
    for flag in ("T", "batch", "width", "threads", "repeats", "device", "precision", "capture"):
        if (value := getattr(asked, flag)) != getattr(Bench, flag):
            words += [f"--{flag}", str(value)]
    return [*words, *(["--only", *asked.only] if asked.only else [])]


def _print(topic: Topic, races: "Sequence[Race]") -> None:
    from rich.console import Console

    from rmploss_bench import table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(table.title(races[0]), markup=False, soft_wrap=True)
    if topic == "latency":
        for race in races:
            console.print(table.size(race), style="bold")
            console.print(table.table(race))
        return
    if topic not in ("ops", "scale"):
        console.print(table.table(races[0]))
        return
    lines: dict[str, list[Result]] = {}
    for race in races:
        for result in race.results:
            head = table.size(race) if topic == "scale" else result.what.removesuffix(" (s)")
            lines.setdefault(head, []).append(result)
    console.print(table.grid(lines))
    for reason in table.reasons(result for race in races for result in race.results):
        console.print(reason, markup=False, soft_wrap=True)


@contextmanager
def ticker(counted: str) -> "Iterator[Ticker]":
    """Show progress on standard error: a bar on a terminal, else a line every `QUIET_S` seconds.

    counted: stands before every line, such as "[2/9] ".
    """
    if not sys.stderr.isatty():
        yield _line_ticker(counted)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, phase = bar.add_task(counted), ""

        def tick(what: str, done: int, total: int) -> None:
            nonlocal phase
            if what.split()[0] != phase:  # the new phase has its own pace: estimate its time anew
                phase = what.split()[0]
                bar.reset(task)
            bar.update(task, description=counted + what, completed=done, total=total)

        yield tick


def _line_ticker(counted: str) -> "Ticker":
    last = time.monotonic()

    def tick(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_S:
            last = time.monotonic()
            print(f"{counted}{what} {done}/{total}", file=sys.stderr, flush=True)

    return tick
