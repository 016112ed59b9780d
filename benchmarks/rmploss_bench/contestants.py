"""The contestants: rmploss in four forms, every peer, and the dense bound; one line each.

A contestant is a library (`MAKERS`) and an execution of it: eager, compiled (`torch.compile`),
captured (the whole step as one CUDA graph), or compiled and captured.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rmploss.errors import Problem, UserError, unknown
from rmploss.registry import Registry
from rmploss_bench.capture import Captured
from rmploss_bench.runners import NetRunner, Runner
from rmploss_bench.workload import Workload

Make = Callable[[Workload, bool], Runner]
"""Makes a library's runner for a workload; the second argument is True for training."""
MAKERS: Registry[Make] = Registry(
    "library",
    {
        "rmploss+rmp": "rmploss_bench.ours:make_rmploss_with_rmp",
        "rmploss-engine+rmp": "rmploss_bench.engine_step:make_engine_step",
        "rmploss": "rmploss_bench.ours:make_rmploss",
        "rmploss-loaded": "rmploss_bench.ours:make_loaded",
        "rmploss-reference": "rmploss_bench.ours:make_reference",
        "dense-bound": "rmploss_bench.dense:make_dense_bound",
        "spikingjelly": "rmploss_bench.peers:make_spikingjelly",
        "spikingjelly-memopt": "rmploss_bench.peers:make_lean_spikingjelly",
        "snntorch": "rmploss_bench.peers:make_snntorch",
        "norse": "rmploss_bench.peers:make_norse",
        "onnxruntime": "rmploss_bench.onnx:make_onnx",
        "onnxruntime-int8": "rmploss_bench.onnx:make_onnx_int8",
    },
)
CAPTURED = ("rmploss+rmp", "rmploss-engine+rmp", "rmploss", "dense-bound", "spikingjelly")
"""The libraries that are measured captured, too."""
DENSE, RIVAL = "dense-bound", "spikingjelly"
"""The contestants that the two ratios of a row divide by."""
TRAINING_ONLY = ("rmploss+rmp", "rmploss-engine+rmp", "spikingjelly-memopt")
"""Left out of evaluation, which has no loss and no backward: there they equal other contestants."""
INFERENCE_ONLY = ("rmploss-loaded", "onnxruntime", "onnxruntime-int8")
"""Left out of training, and of `eval`: contestants of `latency`."""
UNGATED = (DENSE, "onnxruntime-int8")
"""The libraries that do not compute the network: its convolutions alone; other weights."""


@dataclass(frozen=True)
class Contestant:
    """A library and how its step is executed.

    library: a name in `MAKERS`.
    compiled: under `torch.compile`.
    captured: the whole step, or the whole forward in evaluation, is one CUDA graph.
    """

    library: str
    compiled: bool = False
    captured: bool = False

    @property
    def name(self) -> str:
        """The library's name, with "-compiled" and "-captured" where they apply."""
        return self.library + "-compiled" * self.compiled + "-captured" * self.captured

    @property
    def execution(self) -> str:
        """How a step is executed, in words: "eager", "compiled", "compiled+captured", ..."""
        words = ["compiled"] * self.compiled + ["captured"] * self.captured
        return "+".join(words) or "eager"

    @property
    def computes_the_network(self) -> bool:
        """False of what no gate could compare."""
        return self.library not in UNGATED

    def __call__(self, workload: Workload, train: bool) -> Runner:
        """The contestant for a workload, ready to run.

        train: True for training, False for evaluation.
        Raises `UserError` where it is captured and the workload is not on CUDA.
        """
        runner = self.uncaptured(workload, train)
        if not self.captured:
            return runner
        return Captured(runner, workload.conditions, train)

    def uncaptured(self, workload: Workload, train: bool) -> Runner:
        """The contestant before its capture, if it has one."""
        runner = MAKERS[self.library](workload, train)
        if self.compiled:
            assert isinstance(runner, NetRunner)
            runner.compile()
        return runner


def _all() -> Iterator[Contestant]:
    for library in MAKERS:
        yield Contestant(library)
        if library == "spikingjelly":
            yield Contestant(library, compiled=True)
        if library in CAPTURED:
            yield Contestant(library, captured=True)
        if library == "spikingjelly":
            yield Contestant(library, compiled=True, captured=True)


CONTESTANTS: dict[str, Contestant] = {contestant.name: contestant for contestant in _all()}
"""Everything that is measured, by name."""


def contestant(name: str) -> Contestant:
    """A contestant by name; raises `UserError` for an unknown one."""
    if name not in CONTESTANTS:
        raise UserError("no such contestant", [unknown("contestant", name, CONTESTANTS)])
    return CONTESTANTS[name]


def usual(*, capture: bool, train: bool = True) -> tuple[str, ...]:
    """The contestants that differ from each other in training or in evaluation.

    capture: with the captured ones, which need CUDA.
    train: True for training, False for evaluation.
    """
    left_out = INFERENCE_ONLY if train else (*TRAINING_ONLY, *INFERENCE_ONLY)
    return tuple(
        name
        for name, each in CONTESTANTS.items()
        if each.library not in left_out and (capture or not each.captured)
    )


def chosen(
    names: Iterable[str], otherwise: Iterable[str] = CONTESTANTS, *, capture: bool = True
) -> list[str]:
    """The contestants that were asked for, in the order of `CONTESTANTS`.

    names: the contestants asked for.
    otherwise: taken if `names` is empty.
    capture: whether the captured ones can run.
    Raises `UserError` for an unknown name, and for a captured one where none can run.
    """
    asked = list(names) or list(otherwise)
    wrong: list[Problem] = [
        unknown("--only", name, CONTESTANTS) for name in asked if name not in CONTESTANTS
    ]
    if wrong:
        raise UserError("no such contestant", wrong)
    if not capture and (stuck := [name for name in asked if CONTESTANTS[name].captured]):
        what = "is a CUDA graph, and capture is off"
        fix = "--device cuda --capture on"
        raise UserError("cannot capture", [Problem(f"--only {n}", what, fix) for n in stuck])
    return [name for name in CONTESTANTS if name in asked]
