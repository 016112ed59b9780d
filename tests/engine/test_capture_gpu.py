"""On a GPU: captured runs are the eager runs, to the last bit with deterministic kernels."""

import math
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rmploss.engine.after_training import is_analyzed
from rmploss.engine.capture import CaptureError, CudaGraphs, Repeated
from rmploss.engine.distributed import World
from rmploss.engine.evaluate import Evaluator, evaluate
from rmploss.engine.execution import Execution
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.errors import InterruptedRunError, NonFiniteError
from rmploss.models.dropout import Dropout
from rmploss.randomness import seeded
from rmploss.recipes import Recipe, use
from tests.engine.runs import TINY, Interrupting, digest_of
from tests.engine.test_capture import poisoned
from tests.engine.test_drawn import DROPPING
from tests.engine.test_evaluate import network, split

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = torch.device("cuda", 0)
RECIPES = {
    "rmp": TINY,
    "bf16": TINY.but(amp="bf16", clip_norm=1.0),
    "fp16": TINY.but(amp="fp16"),
    "adamw": TINY.but(optimizer=use("adamw")),
    "dropout, accumulate": DROPPING,
}


def execution(capture: str) -> Execution:
    return Execution(device="cuda", deterministic=True, capture=capture)  # pyright: ignore[reportArgumentType]


def run(recipe: Recipe, path: Path, capture: str) -> Path:
    return train(recipe, path, execution(capture))


@pytest.mark.parametrize("name", RECIPES)
def test_a_captured_run_is_the_eager_run(name: str, tmp_path: Path) -> None:
    eager = run(RECIPES[name], tmp_path / "eager", "off")
    captured = run(RECIPES[name], tmp_path / "captured", "on")
    events = [e for e in RunFolder.open(captured).events() if e["event"] == "capture"]
    assert [event["captured"] for event in events] == [True, True]
    assert digest_of(captured) == digest_of(eager)


def test_a_captured_run_resumes_within_an_epoch(tmp_path: Path) -> None:
    unbroken = run(DROPPING, tmp_path / "unbroken", "on")
    listener = Interrupting("train", 2, 2, signal.SIGTERM)
    with pytest.raises(InterruptedRunError):
        train(DROPPING, tmp_path / "stopped", execution("on"), listener)
    (path,) = (tmp_path / "stopped").iterdir()
    resume(path, execution("on"))
    assert digest_of(path) == digest_of(unbroken)
    (event,) = [e for e in RunFolder.open(path).events() if e["event"] == "resume"]
    assert event["inexact"] == []


def test_a_nan_inside_a_replay_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, 2, 3)
    with pytest.raises(NonFiniteError, match=r"\(epoch 1, batch 3\)"):
        run(TINY, tmp_path, "on")
    (path,) = tmp_path.iterdir()
    assert [p.name for p in (path / "ckpt").iterdir()] == ["step-00000000"]


def test_a_captured_evaluation_sees_new_weights() -> None:
    net = network().float().to(CUDA)
    batches = [(x.float().to(CUDA), y.to(CUDA)) for x, y in split(4, 4, 4, 1)]
    captured = Evaluator(
        net,
        World(device=CUDA),
        repeat=lambda run, tensors: Repeated(run, tensors, capturer=CudaGraphs(CUDA), mode="on"),
    )
    for _ in range(3):
        assert captured(batches) == evaluate(net, batches, world=World(device=CUDA))
        with torch.no_grad():
            for tensor in net.state_dict().values():
                tensor.mul_(1.25)


def test_a_replay_draws_by_the_seed_before_it() -> None:
    drop, x, out = Dropout(0.5), torch.ones(2, 3, 40, device=CUDA), torch.zeros(2, 3, 40).to(CUDA)

    def draw() -> None:
        out.copy_(drop(x))

    def drawn(function: object, seed: int) -> Tensor:
        assert callable(function)
        with seeded(seed, "step", device=CUDA):
            function()
        return out.clone()

    replay = Repeated(draw, lambda: [out], capturer=CudaGraphs(CUDA), mode="on")
    for seed in (0, 1, 0, 2):
        assert torch.equal(drawn(replay, seed), drawn(draw, seed))
    assert not torch.equal(drawn(replay, 0), drawn(replay, 1))


def test_a_read_on_the_host_is_found_before_the_capture() -> None:
    count = torch.zeros((), device=CUDA)

    def reads() -> None:
        count.add_(1)
        assert count.item() >= 0

    with pytest.raises(CaptureError, match="reads a value of a tensor"):
        CudaGraphs(CUDA)(reads, [count])
    assert count.item() == 0
    said: list[str] = []
    run = Repeated(reads, lambda: [count], capturer=CudaGraphs(CUDA), report=said.append)
    run()
    run()
    assert (count.item(), len(said)) == (2, 1)


def test_after_a_capture_that_breaks_dropout_draws_eagerly() -> None:
    drop, x, out = Dropout(0.5), torch.ones(2, 3, 40, device=CUDA), torch.zeros(2, 3, 40).to(CUDA)

    def breaks() -> None:
        out.copy_(drop(x))
        if torch.cuda.is_current_stream_capturing():
            out.sum().item()

    graphs = CudaGraphs(CUDA)
    said: list[str] = []
    run = Repeated(breaks, lambda: [out], capturer=graphs, report=said.append)
    with seeded(0, "step", device=CUDA):
        run()
    assert len(said) == 1
    assert "captur" in said[0]
    drawn = out.clone()
    with seeded(0, "step", device=CUDA):
        out.copy_(drop(x))
    assert torch.equal(drawn, out)

    def add() -> None:
        out.add_(1)

    replay = graphs(add, [out])
    before = out.clone()
    replay()
    assert torch.equal(out, before + 1)


def test_a_run_in_the_default_mode_ends_and_says_what_is_inexact(tmp_path: Path) -> None:
    asked = Execution(device="cuda", capture="on")
    stopping = Interrupting("train", 2, 2, signal.SIGTERM)
    with pytest.raises(InterruptedRunError):
        train(TINY, tmp_path, asked, stopping)
    (path,) = tmp_path.iterdir()
    resume(path, asked)
    folder = RunFolder.open(path)
    (event,) = [e for e in folder.events() if e["event"] == "resume"]
    assert event["inexact"]
    assert all(math.isfinite(line["train_loss"]) for line in folder.metrics())


def test_a_whole_split_on_the_device_is_analyzed(tmp_path: Path) -> None:
    recipe = TINY.but(epochs=1, test_samples=None)
    path = run(recipe, tmp_path, "on")
    assert is_analyzed(path)
