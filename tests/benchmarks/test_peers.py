"""A peer's network computes what ours does; a missing peer is named with what to install."""

import importlib.util

import pytest
import torch

from rmploss_bench.blueprint import NETWORKS
from rmploss_bench.contestants import contestant
from rmploss_bench.gate import gate
from rmploss_bench.peers import PEERS, MissingPeerError, PeerNetwork
from rmploss_bench.peers._network import peer_module
from rmploss_bench.runners import NetRunner
from tests.benchmarks.kits import Plain, tiny_workload


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_built_from_parts_is_our_network(network: str) -> None:
    workload = tiny_workload(network)
    built = PeerNetwork(Plain(), workload.blueprint, workload.state, workload.conditions.T).double()
    ours, images = workload.net.double().train(), workload.images.double()
    assert set(built.spiking) == {
        name for name, module in ours.named_modules() if hasattr(module, "layer_name")
    }
    with torch.no_grad():
        torch.testing.assert_close(built(images), ours(images), rtol=1e-12, atol=1e-12)


def test_a_missing_peer_says_what_to_install() -> None:
    with pytest.raises(MissingPeerError, match=r"pip install './benchmarks\[peers\]'"):
        peer_module("a_library_that_nobody_has.core")


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("train", [True, False])
def test_an_installed_peer_computes_what_we_do(peer: str, train: bool) -> None:
    if importlib.util.find_spec(PEERS._places[peer].rpartition(".")[2].partition(":")[0]) is None:
        pytest.skip(f"{peer} is not installed")
    for network in NETWORKS:
        if network == "resnet18" and (peer != "spikingjelly" or not train):
            continue  # 224x224 is slow, and the parts are those of the others
        workload = tiny_workload(network)
        assert gate(workload, train=train)(peer) == ""
        runner = contestant(peer)(workload, train)
        assert isinstance(runner, NetRunner)
        if network != "resnet18":  # oneDNN aborts in the backward of strided 1x1 with 4 channels
            runner.step() if train else runner.infer()
