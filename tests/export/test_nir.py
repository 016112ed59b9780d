"""NIR files compute the network's spikes, by NIR's definition and in libraries that read them."""

import io
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from rmploss.errors import UserError
from rmploss.export import nir_readers
from rmploss.export.graph import graph_of
from rmploss.export.nir_path import window
from rmploss.export.nir_styles import STYLES
from rmploss.export.parity import of_nir, reference
from rmploss.export.to_nir import DT, nir_bytes, nir_graph
from rmploss.neurons import IF, LIF
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
    [("convnet", {}), ("convnet", {"neuron": NEURONS["PLIF"]}), ("resnet20", {}), ("vgg16", {})],
    ids=str,
)
def test_libraries_that_read_nir(reader: str, name: str, options: Any) -> None:
    if reader not in nir_readers.installed():
        pytest.skip(f"{reader} is not installed")
    net, x = network(name, **options)
    check(net, x, reader, reader)


@pytest.mark.parametrize("name", ["resnet20", "resnet18-cifar", "resnet19"])
def test_readers_that_go_depth_first_meet_every_source_before(name: str) -> None:
    """Preorder over the edges as they stand, which is how nirtorch runs a graph."""
    net, x = network(name)
    graph = nir_graph(graph_of(net, x), reader="norse")
    seen: list[str] = []

    def walk(node: str) -> None:
        if node in seen:
            return
        early = [source for source, target in graph.edges if target == node and source not in seen]
        assert early == [], node
        seen.append(node)
        for source, target in graph.edges:
            if source == node:
                walk(target)

    walk("input")
    assert seen == [*graph.nodes]
    added = [name for name in seen if name.startswith("zeros_before_")]
    assert 3 <= len(added) <= 6  # at most two for each shortcut with a layer of its own
    assert not any(graph.nodes[name].weight.any() for name in added)


@pytest.mark.parametrize(("size", "into"), [(32, 16), (16, 32), (7, 4), (4, 7), (8, 8), (5, 1)])
def test_a_window_has_the_size_that_is_wanted(size: int, into: int) -> None:
    kernel, stride, padding = window(size, into)
    assert (size + 2 * padding - kernel) // stride + 1 == into


def test_a_soft_reset_in_sinabs() -> None:
    if "sinabs" not in nir_readers.installed():
        pytest.skip("sinabs is not installed")
    check(*network("convnet", neuron=NEURONS["soft reset"]), "sinabs", "sinabs")


@pytest.mark.parametrize(
    ("neuron", "named"),
    [
        (partial(LIF, decay=0.2), r"lif1: decay=0\.2: no float32 tau"),
        (IF, "lif1: decay=1: the reader gives IF a lowest membrane"),
        (partial(LIF, v_reset=-0.1), r"lif1: v_reset=-0\.1"),
        (NEURONS["InfLoR"], "lif1: the reset subtracts another number"),
    ],
    ids=["decay", "IF", "reset", "InfLoR"],
)
def test_what_sinabs_cannot_say_is_named(neuron: Any, named: str) -> None:
    net, x = network("convnet", neuron=neuron)
    with pytest.raises(UserError, match=named):
        nir_bytes(graph_of(net, x), reader="sinabs")


def test_a_file_is_compared_in_the_readers_that_take_it() -> None:
    installed = nir_readers.installed()
    assert {*nir_readers.that_read("nir")} == {*installed} - {"norse", "sinabs"}
    assert nir_readers.that_read("norse") == [name for name in installed if name == "norse"]


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


def test_a_package_that_knows_no_reset_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As sinabs installs it: nir 1.0.4."""

    class OldLIF:
        def __init__(self, tau: object, r: object, v_leak: object, v_threshold: object) -> None:
            """The fields of nir 1.0.4."""

    monkeypatch.setattr(nir, "LIF", OldLIF)
    graph = graph_of(*network("convnet"))
    with pytest.raises(UserError, match="too old") as caught:
        nir_graph(graph)
    assert "pip install -U 'nir>=1.0.8'" in str(caught.value)
