"""Registers, spills and widths of loads of the GPU kernels, compiled for sm_90. No GPU is needed.

    python benchmarks/registers.py

A table in Markdown, for docs/log.md: of each kernel and type registers of a thread, bytes of
spilled ones, loads and stores by their width. A residual is bits, moments are taken, T = 4.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS = {
    "statistics": ("norm", 8),
    "combine": ("norm", 0),
    "fold": ("norm", 0),
    "norm_gradient": ("norm", 8),
    "lif_forward": ("neurons", 8),
    "lif_backward": ("neurons", 0),
}
"""Kernel -> its file, and the rows of its tile of float32; half precision has twice as many. 0: the
tile is that of the test."""


def main() -> None:
    """Print the table."""
    sys.path.insert(0, str(ROOT))
    import triton.backends.nvidia

    from tests.ops.test_triton import compile_for_hopper

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    print("| kernel | type | registers | spilled (B) | loads | stores |")
    print("|---|---|---:|---:|---|---|")
    for name, (of, rows) in KERNELS.items():
        for kind in ("fp32", "bf16"):
            tile = {"BLOCK_R": rows * (2 if kind == "bf16" else 1)} if rows else {}
            code = compile_for_hopper(of, name, kind, **tile)
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(code["cubin"])
                file.flush()
                command = [str(tool), "-res-usage", file.name]
                used = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = re.search(r"REG:(\d+) STACK:(\d+)", used)
            assert found, used
            registers, stack = found.groups()
            widths = [
                ", ".join(f"{n} x {width}" for width, n in Counter(
                    int(bits or 32) for bits in re.findall(rf"{op}\.E(?:\.(64|128))?", code["sass"])
                ).most_common())
                for op in ("LDG", "STG")
            ]  # fmt: skip
            print(f"| `{name}` | {kind} | {registers} | {stack} | {' | '.join(widths)} |")


if __name__ == "__main__":
    main()
