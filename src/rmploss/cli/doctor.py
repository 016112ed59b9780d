"""`rmploss doctor`: versions, devices, backends, a self-test and data sets of this machine."""

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from rmploss.cli.common import DataDir
from rmploss.cli.wrapping import say


def _native() -> str:
    """One line about the native kernels."""
    from rmploss.ops import native

    if native.MISSING:
        return native.MISSING
    others = ", ".join(
        name for name in native.instruction_sets() if name != native.instruction_set()
    )
    return f"{native.instruction_set()} in use" + (
        f" (this machine also runs {others})" * bool(others)
    )


@dataclass(frozen=True)
class Doctor:
    """Show versions, devices, the backend on each device, a self-test, and the data sets.

    Paste its output into a bug report.

    $ rmploss doctor
    """

    data_dir: DataDir = None
    """The folder of the data sets."""

    def run(self) -> int:
        """Print it; returns 0 if the self-test passes, else 1."""
        import torch

        from rmploss import ops
        from rmploss.cli.data import show
        from rmploss.engine.environment import environment
        from rmploss.selftest import agreement, selftest

        for name, value in environment().items():
            say(f"{name:<14}{value}", 14)
        print(f"{'disk':<14}{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free")
        print(f"{'machine':<14}{platform.machine()}")
        devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        print("\nbackends")
        for device in devices:
            picked, why = ops.choose("auto", torch.device(device))
            say(f"  on {device:<8}{picked:<11}{why}", 13)
        say(f"  native      {_native()}", 14)
        deviation, bound = selftest()
        good = deviation <= bound
        verdict = "ok" if good else "WRONG"
        what = "gradient of LIF + RMP-Loss against finite differences,"
        print()
        say(f"self-test       {verdict}: {what}", 16)
        say(f"                deviation {deviation:.1e}, bound {bound:.1e}", 16)
        for device in devices:
            for check in agreement(torch.device(device)):
                good = good and check.ok
                verdict = "ok" if check.ok else "WRONG"
                say(f"  on {device:<11}{verdict}: {check.what} against the reference,", 16)
                say(f"{'':16}deviation {check.deviation:.1e}, bound {check.bound:.1e}", 16)
        print("\ndata sets")
        show(self.data_dir)
        return 0 if good else 1
