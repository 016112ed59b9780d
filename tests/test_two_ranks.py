"""Two ranks with half a batch each equal one process with the whole: every number of a step."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from rmploss import RMPLoss, checkpoint, membrane_stats
from rmploss.models import create
from rmploss.norm import TDBatchNorm2d
from rmploss.stats import MembraneStats
from tests.given import labels, normal

BATCH, RANKS = 4, 2
CASES = {"images": (BATCH, 2, 8, 8), "sequences": (3, BATCH, 2, 8, 8)}
SECONDS = 600


class Checkpointed(nn.Module):
    """A network whose activations are computed again in backward."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.net, x)


def network() -> nn.Module:
    """The same float64 network on every rank."""
    net = create("convnet", in_channels=2, num_classes=3, T=3, width=0.125).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(0.3 * normal(*parameter.shape, name=name) + 0.2 * ("norm" in name))
    return net


def results(net: nn.Module, parallel: nn.Module, case: str, share: slice) -> dict[str, Any]:
    """Two forwards and backwards of one rank on its share of the batch; the second's numbers."""
    step(net, parallel, case, share, seed=0)
    net.zero_grad()
    return step(net, parallel, case, share, seed=1)


def step(
    net: nn.Module, parallel: nn.Module, case: str, share: slice, *, seed: int
) -> dict[str, Any]:
    """One forward and backward; parallel: the network as it is called."""
    rmp = RMPLoss(k=5.0)
    shape = CASES[case]
    x = normal(*shape, name="x", seed=seed)[(slice(None),) * (len(shape) - 4) + (share,)]
    with membrane_stats(net, rmp.spec) as stats:
        logits = parallel(x)
    loss = cross_entropy(logits, labels(BATCH, 3, seed)[share]) + rmp(stats, progress=0.5)
    loss.backward()
    return {
        "logits": logits.detach(),
        "loss": loss.detach(),
        "rmp": rmp.value(stats).detach(),
        "moments": sums(stats),
        "gradients": {name: p.grad for name, p in net.named_parameters()},
        "buffers": dict(net.named_buffers()),
    }


def sums(stats: MembraneStats) -> dict[str, Tensor]:
    """The moments by layer."""
    return {entry.name: entry.moments.detach() for entry in stats}


def work(rank: int, folder: str) -> None:
    """What one rank does: every case, its results to a file, and a step without synchronization."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=RANKS)
    share = slice(rank * BATCH // RANKS, (rank + 1) * BATCH // RANKS)
    found = {}
    for case in CASES:
        for wrap in (None, Checkpointed):
            net = network()
            parallel = DistributedDataParallel(net if wrap is None else wrap(net))
            found[case, wrap is not None] = results(net, parallel, case, share)
    alone = network()
    for module in alone.modules():
        if isinstance(module, TDBatchNorm2d):
            module.sync = False
    found["not synchronized"] = alone(normal(*CASES["images"], name="x")[share]).detach()
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """What two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    started = start_processes(work, (str(folder),), nprocs=RANKS, join=False)
    assert started is not None
    deadline = time.monotonic() + SECONDS
    try:
        while not started.join(timeout=1):
            if time.monotonic() > deadline:
                pytest.fail(f"the ranks have not finished in {SECONDS} s")
    finally:
        for process in filter(None, started.processes):
            process.kill()
            process.join()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


def assert_equal(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    """Equal up to the order of float64 sums."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_two_halves_are_the_whole(
    ranks: list[dict[Any, Any]], case: str, checkpointed: bool
) -> None:
    net = network()
    whole = results(net, net, case, slice(None))
    halves = [rank[case, checkpointed] for rank in ranks]
    assert (whole["moments"]["lif3"][3] > 0).any()

    logits = torch.cat([half["logits"] for half in halves])
    torch.testing.assert_close(logits, whole["logits"], rtol=1e-12, atol=1e-12)
    for scalar in ("loss", "rmp"):
        mean = (halves[0][scalar] + halves[1][scalar]) / 2
        torch.testing.assert_close(mean, whole[scalar], rtol=1e-12, atol=1e-12)
    together = {name: sum(half["moments"][name] for half in halves) for name in whole["moments"]}
    assert_equal(together, whole["moments"])  # pyright: ignore[reportArgumentType]
    for half in halves:
        assert_equal(half["gradients"], whole["gradients"])
        assert_equal(half["buffers"], whole["buffers"])


def test_without_synchronization_every_rank_is_its_own(ranks: list[dict[Any, Any]]) -> None:
    halves = torch.cat([rank["not synchronized"] for rank in ranks])
    net = network()
    x = normal(*CASES["images"], name="x")
    assert (halves - net(x)).abs().max() > 1e-3
    own = [network()(x[: BATCH // 2]), network()(x[BATCH // 2 :])]
    torch.testing.assert_close(halves, torch.cat(own), rtol=1e-12, atol=1e-12)
