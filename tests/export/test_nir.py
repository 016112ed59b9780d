"""NIR files compute the network's spikes, by NIR's definition and in libraries that read them."""

import io
from typing import Any

import numpy as np
import pytest
import torch

from rmploss.errors import UserError
from rmploss.export import nir_readers
from rmploss.export.graph import graph_of
from rmploss.export.parity import of_nir, reference
from rmploss.export.to_nir import DT, STYLES, nir_bytes, nir_graph
from rmploss.neurons import LIF
from tests.export.networks import NEURONS, network

nir = pytest.importorskip("nir", reason="pip install 'rmploss[export]'")
h5py = pytest.importorskip("h5py", reason="pip install 'rmploss[export]'")
HARD = ("LIF", "IF", "decay 0.9", "PLIF", "RealSpike")
"""The neurons of `NEURONS` with a reset to 0."""


def check(net: Any, x: torch.Tensor, reader: str, style: str) -> None:
    """A file in the form `style` has the network's spikes in a reader."""
    graph, given = graph_of(net, x), reference(net, x)
    found = of_nir("a", nir_bytes(graph, reader=style), graph, given, reader)
    assert found.failure == ""
    assert found.spikes_that_differ.keys() == {node.name for node in graph.neurons}
    assert sum(found.spikes_that_differ.values()) == 0
    assert found.max_logit_difference <= 1e-5 * max(found.largest_logit, 1)
    assert found.top1_agreement == 1
    assert found.largest_logit > 0


@pytest.mark.parametrize("name", ["convnet", "resnet20", "vggsnn"])
@pytest.mark.parametrize("static", [True, False], ids=["image", "sequence"])
def test_networks_by_the_definition(name: str, static: bool) -> None:
    check(*network(name, static), "nir", "nir")


@pytest.mark.parametrize("neuron", HARD)
@pytest.mark.parametrize("style", ["nir", "norse"])
def test_neurons_by_the_definition(neuron: str, style: str) -> None:
    check(*network("convnet", neuron=NEURONS[neuron]), "nir", style)


@pytest.mark.parametrize("reader", [reader for reader in STYLES if reader != "nir"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("convnet", {}), ("convnet", {"neuron": NEURONS["PLIF"]}), ("resnet20", {})],
    ids=str,
)
def test_libraries_that_read_nir(reader: str, name: str, options: Any) -> None:
    if reader not in nir_readers.installed():
        pytest.skip(f"{reader} is not installed")
    net, x = network(name, **options)
    if reader == "norse" and name == "resnet20":
        with pytest.raises(UserError, match="runs before layer2_0_shortcut_1_conv"):
            nir_bytes(graph_of(net, x), reader=reader)
        return
    check(net, x, reader, reader)


@pytest.mark.parametrize(
    ("neuron", "named"),
    [
        ("soft reset", "lif1: v_reset=None"),
        ("Diet", "v_reset=None"),
        ("InfLoR", "v_reset=None"),
        ("reset below rest", r"lif3: v_reset=-0\.1: our membranes begin at it"),
    ],
)
def test_other_resets_are_refused(neuron: str, named: str) -> None:
    net, x = network("convnet", neuron=NEURONS[neuron])
    with pytest.raises(UserError, match=named) as refused:
        nir_bytes(graph_of(net, x))
    assert len(refused.value.problems) == 3  # every layer


def test_a_leakless_neuron_is_refused_where_the_reader_gives_it_a_leak() -> None:
    net, x = network("convnet", neuron=NEURONS["IF"])
    with pytest.raises(UserError, match="lif2: decay=1"):
        nir_bytes(graph_of(net, x), reader="snntorch")


def test_products_of_spikes_are_refused() -> None:
    net, x = network("resnet20", connect="iand")
    with pytest.raises(UserError, match="mul: mul has no node"):
        nir_bytes(graph_of(net, x))


def test_a_neuron_that_meets_its_threshold_fires() -> None:
    """NIR fires above v_threshold, Eq. 2 at it."""
    net, x = network("convnet", neuron=LIF)
    node = nir_graph(graph_of(net, x)).nodes["lif1"]
    threshold = np.float32(node.v_threshold.flat[0])
    assert np.float32(0.5) > threshold
    assert np.nextafter(threshold, np.float32(1)) == np.float32(0.5)
    assert node.tau.flat[0] == DT / 0.75
    assert node.r.flat[0] == 1 / 0.75


def test_a_file_for_nir_1_0_4_has_no_v_reset() -> None:
    net, x = network("convnet")
    graph = graph_of(net, x)
    old, new = (nir_bytes(graph, oldest=oldest) for oldest in ("1.0.4", "1.0.8"))
    with h5py.File(io.BytesIO(old)) as before, h5py.File(io.BytesIO(new)) as after:
        assert "v_reset" not in before["node/nodes/lif1"]
        assert "v_reset" in after["node/nodes/lif1"]
    read = nir.read(io.BytesIO(old))
    assert float(np.abs(read.nodes["lif1"].v_reset).max()) == 0
    given = reference(net, x)
    assert sum(of_nir("a", old, graph, given, "nir").spikes_that_differ.values()) == 0


def test_what_the_file_says_of_itself() -> None:
    net, x = network("convnet")
    read = nir.read(io.BytesIO(nir_bytes(graph_of(net, x))))
    assert read.metadata["readout"] in ("sum", b"sum")
    assert float(read.metadata["dt"]) == DT
    with pytest.raises(UserError, match='did you mean "norse"'):
        nir_bytes(graph_of(net, x), reader="nrose")
