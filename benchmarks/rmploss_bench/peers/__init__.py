"""Other libraries, each with the same network built in its own idiom; one file and one line each.

A peer is imported when its contestant is made; one that is not installed raises `MissingPeerError`,
which the table of results shows in its row.
"""

from typing import Any

import torch
from torch import nn

from rmploss.tables import Table
from rmploss_bench.case import Case
from rmploss_bench.contestants import NetRunner, Runner
from rmploss_bench.peers._network import Kit, MissingPeerError, PeerNetwork
from rmploss_bench.peers.spikingjelly import SpikingJelly

PEERS: Table[type[Kit]] = Table(
    "peer",
    {
        "spikingjelly": "rmploss_bench.peers.spikingjelly:SpikingJelly",
        "snntorch": "rmploss_bench.peers.snntorch:SnnTorch",
        "norse": "rmploss_bench.peers.norse:Norse",
    },
)

__all__ = ["PEERS", "Kit", "MissingPeerError", "PeerNetwork", "peer_network"]


def peer_network(name: str, case: Case) -> tuple[Kit, PeerNetwork]:
    """A peer's kit and the case's network built with it; raises `MissingPeerError`."""
    kit: Kit = PEERS[name]()
    net = PeerNetwork(kit, case.parts, case.state, case.setting.T)
    net = net.to(case.images.device, case.images.dtype)
    return kit, net.to(memory_format=kit.memory_format)


def make_spikingjelly(case: Case, train: bool) -> Runner:
    """SpikingJelly, multi-step, torch backend."""
    return _runner("spikingjelly", case, train)


def make_compiled_spikingjelly(case: Case, train: bool) -> Runner:
    """The same network under `torch.compile`."""
    return _runner("spikingjelly", case, train, compiled=True)


def make_lean_spikingjelly(case: Case, train: bool) -> Runner:
    """SpikingJelly at its memory level 1: every layer checkpointed, kept spikes as bits.

    On a GPU level 4, which also splits layers and steps by measured peaks; it needs CUDA.
    """
    kit, net = _spikingjelly(case, train)

    def forward(_: nn.Module) -> None:
        kit.reset(net)
        net(case.images)

    kit.save_memory(net, forward, level=4 if case.images.is_cuda else 1)
    return NetRunner(case, net, reset=lambda: kit.reset(net))


def make_triton_spikingjelly(case: Case, train: bool) -> Runner:
    """SpikingJelly with its Triton kernels, on a GPU."""
    if not case.images.is_cuda:
        raise MissingPeerError("needs a GPU: --device cuda")
    kit, net = _spikingjelly(case, train)
    kit.functional.set_backend(net, "triton")
    return NetRunner(case, net, reset=lambda: kit.reset(net))


def _spikingjelly(case: Case, train: bool) -> tuple[SpikingJelly, PeerNetwork]:
    kit, net = peer_network("spikingjelly", case)
    assert isinstance(kit, SpikingJelly)
    return kit, net.train(train)


def make_snntorch(case: Case, train: bool) -> Runner:
    """snnTorch."""
    return _runner("snntorch", case, train)


def make_norse(case: Case, train: bool) -> Runner:
    """Norse."""
    return _runner("norse", case, train)


def _runner(name: str, case: Case, train: bool, *, compiled: bool = False) -> Runner:
    kit, net = peer_network(name, case)
    net.train(train)
    run: Any = torch.compile(net) if compiled else net
    assert isinstance(run, nn.Module)
    return NetRunner(case, run, reset=lambda: kit.reset(net))
