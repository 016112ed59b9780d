"""Peers: other libraries, each building the same network in its own idiom; a file and a line each.

A peer is imported when its contestant is made. If it is not installed, `MissingPeerError` says what
to install, and the table of results shows that text in the peer's row.
"""

import torch
from torch import Tensor, nn

from rmploss.registry import Registry
from rmploss_bench.peers._format import FORMATS, faster
from rmploss_bench.peers._network import Kit, MissingPeerError, PeerNetwork
from rmploss_bench.peers.spikingjelly import SpikingJelly
from rmploss_bench.runners import NetRunner, Runner, autocast
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


def peer_network(
    name: str, workload: Workload, memory_format: torch.memory_format | None = None
) -> tuple[Kit, PeerNetwork]:
    """A peer's kit and the workload's network built with it.

    name: of the peer.
    workload: gives blueprint, weights, device and type.
    memory_format: of the convolutions; None: the kit's.
    Raises `MissingPeerError` if the peer is not installed.
    """
    kit: Kit = PEERS[name]()
    net = PeerNetwork(kit, workload.blueprint, workload.state, workload.conditions.T)
    net = net.to(workload.images.device, workload.images.dtype)
    return kit, net.to(memory_format=memory_format or kit.memory_format)


def make_spikingjelly(workload: Workload, train: bool) -> Runner:
    """SpikingJelly in multi-step mode. On CUDA its neurons take their Triton kernels themselves."""

    def build(memory_format: torch.memory_format | None) -> NetRunner:
        return _runner("spikingjelly", workload, train, memory_format)

    conditions = workload.conditions
    if not conditions.on_cuda or workload.images.dtype == torch.float64:  # float64: of the gate
        return build(None)
    return build(faster("spikingjelly", conditions, train, build))


def make_lean_spikingjelly(workload: Workload, train: bool) -> Runner:
    """SpikingJelly with its memory optimization.

    Level 1 on a CPU: every layer is checkpointed, spikes are kept as bits. Level 4 on a GPU, which
    needs CUDA: it also splits layers and time steps by their measured peaks.
    """
    kit, net = peer_network("spikingjelly", workload)
    net.train(train)
    assert isinstance(kit, SpikingJelly)

    def forward(example: nn.Module) -> Tensor:
        kit.reset(example)
        with autocast(workload.conditions):
            return example(workload.images)

    kit.save_memory(net, forward, level=4 if workload.images.is_cuda else 1)
    return NetRunner(workload, net, reset=lambda: kit.reset(net))


def make_snntorch(workload: Workload, train: bool) -> Runner:
    """snnTorch, with a loop over time for each layer of neurons."""
    return _runner("snntorch", workload, train)


def make_norse(workload: Workload, train: bool) -> Runner:
    """Norse, with a lifted cell for each layer of neurons."""
    return _runner("norse", workload, train)


def _runner(
    name: str, workload: Workload, train: bool, memory_format: torch.memory_format | None = None
) -> NetRunner:
    kit, net = peer_network(name, workload, memory_format)
    net.train(train)
    runner = NetRunner(workload, net, reset=lambda: kit.reset(net))
    used = memory_format or kit.memory_format
    runner.layout = next(word for word, kind in FORMATS.items() if kind == used)
    return runner
