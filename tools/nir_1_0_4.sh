#!/usr/bin/env bash
# Check a NIR file for nir 1.0.4, which sinabs and Rockpool need: written with the nir that is installed, read
# with 1.0.4, and run by its definition. The two exclude each other, so 1.0.4 goes into a folder of its own.
#
#   tools/nir_1_0_4.sh          from a clone, with the environment of the tests active
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip install --quiet --no-deps --target "$work/old" "nir==1.0.4"

"$python" - "$work" <<'PY'
import sys

import torch

from rmploss.export import to_nir
from rmploss.export.parity import reference
from tests.export.networks import network

work = sys.argv[1]
for name in ("convnet", "resnet20"):
    net, x = network(name)
    to_nir(net, x, f"{work}/{name}.nir", oldest="1.0.4")
    given = reference(net, x)
    torch.save({"x": x, "logits": given.logits, "spikes": given.spikes, "T": net.T}, f"{work}/{name}.pt")
PY

PYTHONPATH="$work/old" "$python" - "$work" <<'PY'
import sys
from importlib.metadata import version

import nir
import torch

from rmploss.export.nir_simulator import Simulator

assert version("nir") == "1.0.4" and "/old/" in nir.__file__, nir.__file__
work = sys.argv[1]
for name in ("convnet", "resnet20"):
    graph, given = nir.read(f"{work}/{name}.nir"), torch.load(f"{work}/{name}.pt")
    x = given["x"].unsqueeze(0).expand(given["T"], *given["x"].shape)
    outputs, spikes = Simulator(graph, 1e-4).run(x)
    differ = sum(
        int((spikes[layer.replace(".", "_")] != expected).sum())
        for layer, expected in given["spikes"].items()
    )
    count = sum(expected.numel() for expected in given["spikes"].values())
    apart = float((outputs.sum(0) - given["logits"]).abs().max())
    print(f"{name}: read by nir {version('nir')}; {differ} of {count} spikes differ, logits by {apart:.2g}")
    assert differ == 0
PY
