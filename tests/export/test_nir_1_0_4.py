"""Files for nir 1.0.4 in the libraries that need it: tools/nir_1_0_4.sh makes their environment."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nir_1_0_4
import pytest
import torch

from rmploss.export.graph import graph_of
from rmploss.export.parity import Parity, reference
from rmploss.export.to_nir import nir_bytes
from tests.export.networks import NEURONS, network

pytestmark = pytest.mark.skipif(
    not nir_1_0_4.is_there(), reason="no environment of nir 1.0.4: tools/nir_1_0_4.sh"
)


def read(name: str, reader: str, style: str, folder: Path, neuron: str = "LIF") -> Parity:
    net, x = network(name, neuron=NEURONS[neuron])
    graph, given = graph_of(net, x), reference(net, x)
    content = nir_bytes(graph, reader=style, oldest="1.0.4")
    return nir_1_0_4.compare(content, graph, given, reader, folder, "a.nir")


@pytest.mark.parametrize("reader", ["nir", "norse", "sinabs"])
@pytest.mark.parametrize("name", ["convnet", "resnet20"])
def test_the_readers_compute_the_spikes_of_the_network(
    reader: str, name: str, tmp_path: Path
) -> None:
    found = read(name, reader, reader, tmp_path)
    assert found.failure == ""
    assert "1.0.4" in found.runtime
    assert sum(found.spikes_that_differ.values()) == 0 < sum(found.spikes.values())
    assert found.max_logit_difference <= 1e-5 * max(found.largest_logit, 1)


def test_a_soft_reset_in_sinabs(tmp_path: Path) -> None:
    found = read("convnet", "sinabs", "sinabs", tmp_path, "soft reset")
    assert found.failure == ""
    assert sum(found.spikes_that_differ.values()) == 0


def test_rockpool_refuses_convolutions(tmp_path: Path) -> None:
    """Whoever sees this fail: a newer Rockpool may read our networks, docs/deploy.md says not."""
    found = read("convnet", "rockpool", "nir", tmp_path)
    assert "Conv2d" in found.failure


def test_what_the_document_shows_runs(tmp_path: Path) -> None:
    document = (nir_1_0_4.ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```py\n(.*?)```", document, re.DOTALL)
    (example,) = [block for block in blocks if "sinabs" in block]
    net, x = network("convnet")
    (tmp_path / "model-sinabs.nir").write_bytes(nir_bytes(graph_of(net, x), reader="sinabs"))
    torch.save(x[:1].expand(net.T, *x.shape[1:]).contiguous(), tmp_path / "x.pt")
    lines = ["import torch", "x = torch.load('x.pt')", example, "torch.save(outputs, 'y.pt')"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(lines)],
        env=os.environ | {"PYTHONPATH": str(nir_1_0_4.FOLDER.resolve())},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "y.pt").sum(0), net(x[:1])[0])
