"""Peers: other libraries, each building the same network in its own idiom; a file and a line each.

A peer is imported when its contestant is made. If it is not installed, `MissingPeerError` says what
to install, and the table of results shows that text in the peer's row.
"""

from typing import Any

import torch
from torch import nn

from rmploss.registry import Registry
from rmploss_bench.contestants import NetRunner, Runner
from rmploss_bench.peers._network import Kit, MissingPeerError, PeerNetwork
from rmploss_bench.peers.spikingjelly import SpikingJelly
from rmploss_bench.workload import Workload

PEERS: Registry[type[Kit]] = Registry(
    "peer",
    {
        "spikingjelly": "rmploss_bench.peers.spikingjelly:SpikingJelly",
        "snntorch": "rmploss_bench.peers.snntorch:SnnTorch",
        "norse": "rmploss_bench.peers.norse:Norse",
    },
)

__all__ = ["PEERS", "Kit", "MissingPeerError", "PeerNetwork", "peer_network"]


def peer_network(name: str, workload: Workload) -> tuple[Kit, PeerNetwork]:
    """A peer's kit and the workload's network built with it.

    Raises `MissingPeerError` if the peer is not installed.
    """
    kit: Kit = PEERS[name]()
    net = PeerNetwork(kit, workload.blueprint, workload.state, workload.conditions.T)
    net = net.to(workload.images.device, workload.images.dtype)
    return kit, net.to(memory_format=kit.memory_format)


def make_spikingjelly(workload: Workload, train: bool) -> Runner:
    """SpikingJelly in multi-step mode with its torch backend."""
    return _runner("spikingjelly", workload, train)


def make_compiled_spikingjelly(workload: Workload, train: bool) -> Runner:
    """The network of `make_spikingjelly` under `torch.compile`."""
    return _runner("spikingjelly", workload, train, compiled=True)


def make_lean_spikingjelly(workload: Workload, train: bool) -> Runner:
    """SpikingJelly with its memory optimization.

    Level 1 on a CPU: every layer is checkpointed, spikes are kept as bits. Level 4 on a GPU, which
    needs CUDA: it also splits layers and time steps by their measured peaks.
    """
    kit, net = _spikingjelly(workload, train)

    def forward(_: nn.Module) -> None:
        kit.reset(net)
        net(workload.images)

    kit.save_memory(net, forward, level=4 if workload.images.is_cuda else 1)
    return NetRunner(workload, net, reset=lambda: kit.reset(net))


def make_triton_spikingjelly(workload: Workload, train: bool) -> Runner:
    """SpikingJelly with its Triton kernels; raises `MissingPeerError` without a GPU."""
    if not workload.images.is_cuda:
        raise MissingPeerError("needs a GPU: --device cuda")
    kit, net = _spikingjelly(workload, train)
    kit.functional.set_backend(net, "triton")
    return NetRunner(workload, net, reset=lambda: kit.reset(net))


def _spikingjelly(workload: Workload, train: bool) -> tuple[SpikingJelly, PeerNetwork]:
    kit, net = peer_network("spikingjelly", workload)
    assert isinstance(kit, SpikingJelly)
    return kit, net.train(train)


def make_snntorch(workload: Workload, train: bool) -> Runner:
    """snnTorch, with a loop over time for each layer of neurons."""
    return _runner("snntorch", workload, train)


def make_norse(workload: Workload, train: bool) -> Runner:
    """Norse, with a lifted cell for each layer of neurons."""
    return _runner("norse", workload, train)


def _runner(name: str, workload: Workload, train: bool, *, compiled: bool = False) -> Runner:
    kit, net = peer_network(name, workload)
    net.train(train)
    run: Any = torch.compile(net) if compiled else net
    assert isinstance(run, nn.Module)
    return NetRunner(workload, run, reset=lambda: kit.reset(net))
