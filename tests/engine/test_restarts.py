"""`torchrun --max-restarts` starts all ranks again after one died: the run is the unbroken one.

One store serves all starts of the ranks. `RMPLOSS_FUZZ=all` takes the real `torchrun` as well,
whose processes import PyTorch seven times.
"""

import os
import subprocess
import sys
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from torch._C._distributed_c10d import TCPStore

from rmploss.engine import step
from rmploss.engine.execution import Execution
from rmploss.engine.run import RunFolder
from rmploss.engine.train import train
from tests.engine.children import be_rank, check_sound, die, finish, start
from tests.engine.runs import TINY, digest_of
from tests.engine.test_ranks import together

RECIPE = TINY.but(train_samples=72, test_samples=24, batch_size=24)
"""Two epochs of three steps."""
DEATHS = [(1, 2), (0, 3)]
"""The rank that dies in each start, and its forward in which it does."""
EVERY_STEP = Execution(device="cpu", save_minutes=0)


def rank_of_start(rank: int, size: int, port: int, runs: Path, forward: int) -> None:
    """A rank, which dies in the given forward; 0: it does not."""
    be_rank(rank, str(port), size)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    if forward:
        die(step, "forward_backward", "before", forward)
    train(RECIPE, runs, EVERY_STEP, name="night", or_resume=True)


def launch(runs: Path, size: int) -> list[list[int]]:
    """The exit codes of all ranks of each start; when a rank fails, the others are stopped."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    codes = []
    for died, forward in [*DEATHS, (-1, 0)]:
        ranks = [
            start(rank_of_start, rank, size, store.port, runs, forward if rank == died else 0)
            for rank in range(size)
        ]
        wait([rank.sentinel for rank in ranks])
        if died >= 0:
            for rank in ranks:
                rank.terminate()
        codes.append([finish(rank) for rank in ranks])
    return codes


def check_unbroken(path: Path, size: int) -> None:
    """Assert that a run is sound, was resumed twice, and is the unbroken one of as many ranks."""
    check_sound(path)
    events = [event["event"] for event in RunFolder.open(path).events()]
    assert (events.count("start"), events.count("resume")) == (1, 2)
    unbroken = path.parent / "unbroken"
    assert together(unbroken, recipe=RECIPE, size=size) == [0] * size
    assert digest_of(path) == digest_of(next(unbroken.iterdir()))


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_start_again_end_as_the_unbroken_run(size: int, tmp_path: Path) -> None:
    *failed, last = launch(tmp_path, size)
    assert last == [0] * size
    assert [codes[rank] for codes, (rank, _) in zip(failed, DEATHS, strict=True)] == [-9, -9]
    check_unbroken(tmp_path / "night", size)


SCRIPT = """
import os, sys
import torch
from tests.engine.test_restarts import DEATHS, die, step
from rmploss.cli import main

torch.set_num_threads(1)
for start, (rank, forward) in enumerate(DEATHS):
    if (start, rank) == tuple(int(os.environ[n]) for n in ("TORCHELASTIC_RESTART_COUNT", "RANK")):
        die(step, "forward_backward", "before", forward)
sys.exit(main(sys.argv[1:]))
"""
TRAIN = (
    "train digits-rmp --T 2 --width 0.125 --batch-size 24 --train-samples 72 --test-samples 24 "
    "--epochs 2 --device cpu --save-minutes 0 --resume auto --name night --runs-dir ."
)


@pytest.mark.skipif(
    os.environ.get("RMPLOSS_FUZZ") != "all", reason="takes a minute: RMPLOSS_FUZZ=all"
)
@pytest.mark.parametrize("how", ["--standalone", "--master-port 29571"])
def test_ranks_that_torchrun_restarts_end_as_the_unbroken_run(how: str, tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(SCRIPT)
    torchrun = f"-m torch.distributed.run {how} --nproc-per-node 2 --max-restarts 2"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *torchrun.split(), str(script), *TRAIN.split()],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}:{root / 'tools'}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check_unbroken(tmp_path / "night", 2)
