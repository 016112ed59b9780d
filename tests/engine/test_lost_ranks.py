"""A rank of another kind is told at the start; one that ends or stops is named by the others."""

import os
import shutil
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from rmploss.engine import build, environment, execution, step, train
from rmploss.engine.execution import Execution
from rmploss.engine.step import forward_backward
from rmploss.errors import UserError
from tests.engine.children import be_rank, finish, free_port, pipe, start
from tests.engine.runs import TINY

TIMEOUT_S = 15.0
"""For a rank that stops. The others get a minute: on a busy machine one may start late."""


def in_third_step(number: signal.Signals) -> None:
    """Let this process get a signal in its third step."""
    calls = 0

    def troubled(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), number)
        return forward_backward(*arguments, **options)

    step.forward_backward = troubled


def changed_copy(folder: Path) -> Path:
    """Another installation of the same version, in which one file differs."""
    shutil.copytree(environment._PACKAGE, folder, ignore=shutil.ignore_patterns("*.so"))
    file = folder / "functional.py"
    file.write_text(file.read_text() + "\n# changed\n")
    return folder


def run(rank: int, port: str, runs: Path, trouble: str, answer: Connection) -> None:
    """A run on one of two ranks; rank 1 has the trouble. Sends the error of the other."""
    be_rank(rank, port)
    recipe = TINY
    if rank == 1:
        match trouble:
            case "version":
                execution.versions = lambda: {"rmploss": "9.9"}
            case "source":
                environment._PACKAGE = changed_copy(runs.parent / "other")
            case "recipe":
                recipe = TINY.but(lr=0.5)
            case "dies":
                in_third_step(signal.SIGKILL)
            case "stops":
                in_third_step(signal.SIGSTOP)
            case _:
                raise ValueError(trouble)
    try:
        seconds = TIMEOUT_S if trouble == "stops" else 60.0
        train.train(recipe, runs, Execution(device="cpu", timeout_s=seconds))
    except UserError as error:
        if rank == 0:
            answer.send_bytes(str(error).encode())
        raise


def outcome(runs: Path, trouble: str) -> tuple[int, str, int]:
    """Exit code and message of rank 0, and the exit code of rank 1."""
    here, there = pipe()
    port = free_port()
    ranks = [start(run, rank, port, runs, trouble, there) for rank in range(2)]
    code = finish(ranks[0])
    if trouble == "stops":
        ranks[1].kill()
    return code, here.recv_bytes().decode() if here.poll(0) else "", finish(ranks[1])


def test_a_rank_lost_in_the_rehearsal_is_no_problem_of_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rehearsal's batch statistics are those of all ranks, too."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:9")

    monkeypatch.setattr("rmploss.engine.build.weighted", broken)
    with pytest.raises(RuntimeError, match="closed by peer"):
        build.check(TINY)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("version", "rmploss of rank 1: is '9.9', that of rank 0 is"),
        ("source", "source of rank 1: is '"),
        ("recipe", "lr of rank 1: is 0.5, that of rank 0 is"),
    ],
)
def test_a_rank_of_another_kind_is_told_on_all(trouble: str, message: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    code, text, other = outcome(runs, trouble)
    assert (code, other) == (2, 2)
    assert message in text
    assert not runs.exists()


@pytest.mark.parametrize(
    ("trouble", "what"), [("dies", "has ended"), ("stops", f"has not answered for {TIMEOUT_S:g} s")]
)
def test_a_rank_that_is_lost_is_named_with_the_last_step(
    trouble: str, what: str, tmp_path: Path
) -> None:
    code, text, other = outcome(tmp_path, trouble)
    assert (code, other) == (11, -signal.SIGKILL)
    assert "cannot go on without rank 1 (last step 2)" in text
    assert f"rank 1: {what}" in text
