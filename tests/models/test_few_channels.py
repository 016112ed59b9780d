"""Strided 1x1 convolutions of few channels: oneDNN writes past its memory for channels-last maps.

A child process runs them, so that one that ends the process is a failure with a name.
"""

import subprocess
import sys

import pytest

CHILD = """
import sys, torch
from rmploss import IF, LIF, SpikeConv2d
from rmploss.models.layers import ConvNorm, OverTime
from rmploss.norm import TDBatchNorm2d

torch.manual_seed(0)
torch.set_num_threads(1)
options = {
    "unequal": dict(stride=(2, 1)), "other": dict(stride=(1, 2)), "square": dict(stride=2),
    "valid": dict(stride=2, padding="valid"), "dilated": dict(stride=2, dilation=2),
    "reflected": dict(stride=2, padding_mode="reflect"),
    "circular": dict(stride=2, padding=1, padding_mode="circular"),
}
for C in (1, 4, 15):
    x = (torch.rand(4, C, 32, 32) < 0.2).float().to(memory_format=torch.channels_last)
    layers = {name: SpikeConv2d(C, 16, 1, **given) for name, given in options.items()}
    plain = torch.nn.Conv2d(C, 16, 1, stride=2)
    first = SpikeConv2d(C, C, 3, padding=1)
    layers["plain behind neurons"] = lambda x: plain(LIF(C)(x[None])[0])
    layers["plain behind IF"] = lambda x: plain(IF(C)(x[None])[0])
    layers["plain behind a convolution"] = lambda x: plain(first(x))
    spiking, norm = LIF(C), TDBatchNorm2d(C)
    layers["plain behind norm and neurons"] = lambda x: plain(spiking(norm(first(x)[None]))[0])
    block, later = ConvNorm(first, TDBatchNorm2d(C)), ConvNorm(plain, TDBatchNorm2d(16))
    layers["plain in a network"] = lambda x: later.fire(block.fire(x[None], spiking), LIF(16))
    over = OverTime(plain)
    layers["plain over time"] = lambda x: over.forward_spikes(block.fire(x[None], spiking))
    for name, layer in layers.items():
        print(C, name, file=sys.stderr, flush=True)
        for _ in range(6):
            given = x.clone().requires_grad_()
            y = layer(given)
            y.sum().backward()
        if name in options:
            with torch.backends.mkldnn.flags(enabled=False):
                expected = torch.nn.Conv2d.forward(layer, x.contiguous())
            torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
print("ok")
"""


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_no_layer_and_no_layer_of_a_user_behind_ours_ends_the_process(backend: str) -> None:
    code = f"import rmploss.ops\nwith rmploss.ops.use_backend({backend!r}):\n"
    code += "".join(f"    {line}\n" for line in CHILD.strip().splitlines())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), f"after: {last}"
