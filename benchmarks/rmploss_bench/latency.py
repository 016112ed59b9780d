"""The time of one image, and images per second in batches, in evaluation without gradient.

    latency (s)         a call with the first image of the batch
    batched (images/s)  images of a batch over the time of a call with it

Both figures are of the same network, whose running statistics are those of the batch; on one
thread, on two, and so on up to all CPUs. Rounds are interleaved, and batches get a quarter as many.
`rmploss-loaded` is what `rmploss.load(run).logits` calls; `rmploss` is the same with folded norms.
"""

from collections.abc import Iterator
from dataclasses import replace

from rmploss_bench.conditions import Conditions, cpus
from rmploss_bench.contestants import contestant
from rmploss_bench.scale import powers
from rmploss_bench.timing import Act, Result, Ticker, admitted, rounds
from rmploss_bench.workload import Workload

USUAL = (
    *("rmploss-loaded", "rmploss", "onnxruntime", "onnxruntime-int8"),
    *("spikingjelly", "spikingjelly-compiled"),
)
"""The contestants, where `--only` names none."""
ONE, MANY = "latency (s)", "batched (images/s)"


def variations(base: Conditions) -> Iterator[Conditions]:
    """The conditions with 1, 2, 4, ... threads, up to all CPUs."""
    yield from (base.but(threads=count) for count in powers(cpus()))


def latency(workload: Workload, names: list[str], repeats: int, tick: Ticker) -> list[Result]:
    """Both figures of every contestant; arguments as in `timing.admitted` and `timing.rounds`."""
    runners, status = admitted(workload, names, train=False, tick=tick)
    one = replace(workload, images=workload.images[:1], labels=workload.labels[:1])
    acts: dict[tuple[str, str], Act] = {}
    for name, runner in runners.items():
        acts[name, ONE] = contestant(name)(one, False).infer
        acts[name, MANY] = runner.infer
    device = workload.conditions.device
    seconds = {}
    for what, times in ((ONE, repeats), (MANY, -(-repeats // 4))):
        some = {name: act for (name, kind), act in acts.items() if kind == what}
        found = rounds(some, times, tick, device)
        seconds |= {(name, what): figures for name, figures in found.items()}
    size = len(workload.labels)

    def result(name: str, what: str) -> Result:
        times = seconds.get((name, what), ())
        figures = times if what == ONE else tuple(size / s for s in times)
        return Result(name, what, figures, status[name])

    return [result(name, what) for what in (ONE, MANY) for name in names]
