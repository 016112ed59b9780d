"""Every operation is measured at the network's shapes, with every backend that can run."""

from rmploss import ops
from rmploss_bench.operations import DENSITIES, operations
from tests.benchmarks.kits import tiny_workload
from tests.benchmarks.test_timing import silent


def test_every_shape_once_with_every_backend() -> None:
    results = operations(tiny_workload(), [], 1, silent)
    lif = [result for result in results if result.what == "lif [2, 2, 4, 32, 32] (s)"]
    assert {result.contestant for result in lif} == {*ops.BACKENDS[1:], "copy"}
    assert all(result.status == "green" for result in lif if result.figures)
    assert all(result.figures for result in lif if result.contestant in ("reference", "copy"))
    names = {result.what.partition(" ")[0] for result in results}
    assert names == {"lif", "norm_lif", "spike_conv2d"}
    convolutions = {result.what for result in results if result.what.startswith("spike_conv2d")}
    assert len(convolutions) % len(DENSITIES) == 0
    assert not any(result.red for result in results)
