"""A single process needs no group; two ranks connect and reduce; a bad environment is reported."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from rmploss.engine import distributed
from rmploss.engine.distributed import World
from rmploss.engine.execution import Execution, join
from rmploss.engine.train import resume, train
from rmploss.errors import UserError
from tests.engine.runs import TINY

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def place(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def without_a_word_for_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, "")  # so that it is set back, whatever a test does
    monkeypatch.delenv(CUBLAS)


def test_alone_every_collective_is_the_identity() -> None:
    world = distributed.init("cpu")
    assert world == World()
    assert world.is_main
    sums = torch.tensor([1.0, 2.0])
    total = world.all_reduce_sum(sums)
    assert torch.equal(total, sums)
    total += 1
    assert torch.equal(sums, torch.tensor([1.0, 2.0]))  # The argument is left alone here too.
    assert [world.any_rank(flag) for flag in (False, True)] == [False, True]
    assert world.broadcast_text("runs/λ") == "runs/λ"
    assert not torch.distributed.is_initialized()
    distributed.shutdown()


WORKER = """
import json, sys, torch
from rmploss.engine import distributed
world = distributed.init("cpu")
mine = torch.tensor([0.5, 1.0]) * (world.rank + 1)
print(json.dumps({
    "rank": world.rank,
    "main": world.is_main,
    "sum": world.all_reduce_sum(mine).tolist(),
    "mine": mine.tolist(),
    "count": world.all_reduce_sum(torch.tensor(2**40)).item(),
    "any": [world.any_rank(False), world.any_rank(world.rank == 1), world.any_rank(True)],
    "text": world.broadcast_text("runs/λ" if world.is_main else None),
    "empty": world.broadcast_text("" if world.is_main else "not read"),
}))
distributed.shutdown()
assert not torch.distributed.is_initialized()
"""


def test_two_ranks_connect_and_reduce() -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    common: dict[str, Any] = {
        "sum": [1.5, 3.0],
        "count": 2**41,
        "any": [False, True, True],
        "text": "runs/λ",
        "empty": "",
    }
    assert [json.loads(output) for output in outputs] == [
        {"rank": rank, "main": rank == 0, "mine": [0.5 * (rank + 1), 1.0 * (rank + 1)], **common}
        for rank in (0, 1)
    ]


def test_a_world_of_one_needs_no_rendezvous(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    assert distributed.init("cpu") == World()
    assert not torch.distributed.is_initialized()


def joined(world: World | None) -> None:
    with join(world=world, deterministic=True):
        distributed.init()


@pytest.mark.parametrize("where", ["join", "an outer block", "train", "resume"])
def test_cublas_is_told_to_be_deterministic_before_a_gpu_is_touched(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the variable when the process first uses the GPU."""
    without_a_word_for_cublas(monkeypatch)
    found: list[str | None] = []

    def init(*_: object) -> World:
        found.append(os.environ.get(CUBLAS))
        raise KeyboardInterrupt

    execution = Execution(deterministic=True)
    path = train(TINY.but(epochs=1), tmp_path) if where == "resume" else tmp_path
    start: Callable[[], object] = {
        "join": lambda: joined(None),
        "an outer block": lambda: joined(World()),
        "train": lambda: train(TINY, path, execution),
        "resume": lambda: resume(path, execution),
    }[where]
    monkeypatch.setattr(distributed, "init", init)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert found == [":4096:8"]


def test_a_word_for_cublas_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, ":16:8")
    with join("cpu", deterministic=True):
        assert os.environ[CUBLAS] == ":16:8"
    without_a_word_for_cublas(monkeypatch)
    with join("cpu"):
        assert CUBLAS not in os.environ


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({"RANK": "0"}, ["WORLD_SIZE: is not set", "LOCAL_RANK: is not set"]),
        ({"RANK": "x", "WORLD_SIZE": "-2", "LOCAL_RANK": "0"}, ["RANK: is 'x'", "is '-2'"]),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, ["RANK = 2: must be below"]),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_PORT": "1"},
            ["MASTER_ADDR: is not set"],
        ),
    ],
)
def test_a_wrong_environment_is_reported_whole(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], problems: list[str]
) -> None:
    place(monkeypatch, **values)
    with pytest.raises(UserError) as caught:
        distributed.init("cpu")
    assert all(problem in str(caught.value) for problem in problems)


def test_a_port_that_is_taken_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = str(server.getsockname()[1])
        place(monkeypatch, RANK="0", WORLD_SIZE="2", LOCAL_RANK="0")
        place(monkeypatch, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        with pytest.raises(UserError, match=f"cannot connect to the 1 other ranks\n.*:{port}"):
            distributed.init("cpu", timeout=timedelta(seconds=5))


def test_a_rank_without_others_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")
    place(monkeypatch, MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
    with pytest.raises(UserError, match="rank 1 cannot connect"):
        distributed.init("cpu", timeout=timedelta(seconds=1))


def test_a_program_of_another_kind_at_the_port_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        place(monkeypatch, RANK="1", WORLD_SIZE="2", LOCAL_RANK="1", MASTER_ADDR="127.0.0.1")
        place(monkeypatch, MASTER_PORT=str(server.getsockname()[1]))
        with pytest.raises(UserError, match="no answer within 2 s"):
            distributed.init("cpu", timeout=timedelta(seconds=1))


@pytest.mark.parametrize("word", ["gpu", "cuda:99"])
def test_no_such_device(word: str) -> None:
    with pytest.raises(UserError, match=f"device = '{word}'"):
        distributed.init(word)
