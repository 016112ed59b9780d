"""Eager and captured steps are one function: same digests, no reads on the host, one NaN rule."""

import itertools
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmploss import ops
from rmploss.engine import capture
from rmploss.engine.capture import CaptureError, Function, Repeated
from rmploss.engine.distributed import World
from rmploss.engine.evaluate import Evaluator, evaluate
from rmploss.engine.execution import Execution
from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.errors import InterruptedRunError, NonFiniteError, UserError
from rmploss.recipes import use
from tests.engine.runs import TINY, Interrupting, digest_of, untimed_metrics
from tests.engine.tape import tape, taped
from tests.engine.test_drawn import DROPPING
from tests.engine.test_evaluate import network, split

REFERENCE = Execution(device="cpu", backend="reference")
RECIPES = {
    "rmp": TINY,
    "dropout, accumulate, bn_step, plif": DROPPING,
    "clipped adamw": TINY.but(optimizer=use("adamw"), clip_norm=0.5, objective=use("several")),
    "evolving": TINY.but(neuron=use("evolving"), epochs=3),
    "diet adam": TINY.but(
        neuron=use("diet"), optimizer=use("adam", amsgrad=True), objective=use("none")
    ),
    "tssl": TINY.but(
        network=use("tssl-cifarnet", width=1 / 32, image_size=8),
        T=5,
        neuron=use("tssl"),
        norm=use("none"),
        loss=use("van_rossum"),
        objective=use("none"),
        optimizer=use("adamw"),
    ),
    "averaged": TINY.but(
        average=use("swa", start=0.25),
        loss=use("ce", smoothing=0.1),
        auxiliary=use("several"),
    ),
    "fp16": TINY.but(amp="fp16"),
    "bf16": TINY.but(amp="bf16", optimizer=use("sgd", momentum=0.0)),
}


@pytest.fixture(autouse=True)
def reference() -> Any:
    """The tape records PyTorch's own operations only."""
    with ops.use_backend("reference"):
        yield


@pytest.mark.parametrize("name", RECIPES)
def test_a_captured_run_is_the_eager_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = train(RECIPES[name], tmp_path / "eager", REFERENCE)
    taped(monkeypatch)
    captured = train(RECIPES[name], tmp_path / "captured", REFERENCE)
    assert digest_of(captured) == digest_of(eager)
    events = [e for e in RunFolder.open(captured).events() if e["event"] == "capture"]
    whats = [event["what"] for event in events]
    # What evolves is a number of Python, so each of its three epochs captures again.
    # Trained and averaged weights are networks of their own.
    extra = {"evolving": ["training step", "evaluation"] * 2, "averaged": ["evaluation"]}
    assert whats == ["training step", "evaluation", *extra.get(name, [])]
    assert [event.get("reason") for event in events] == [None] * len(events)


def test_a_captured_run_resumes_within_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = train(DROPPING, tmp_path / "unbroken", REFERENCE)
    taped(monkeypatch)
    listener = Interrupting("train", 2, 2, signal.SIGTERM)
    with pytest.raises(InterruptedRunError):
        train(DROPPING, tmp_path / "stopped", REFERENCE, listener)
    (path,) = (tmp_path / "stopped").iterdir()
    resume(path, REFERENCE)
    assert digest_of(path) == digest_of(unbroken)
    assert untimed_metrics(path) == untimed_metrics(unbroken)


class Reads(nn.Identity):
    """A module of a user that looks at its values."""

    def forward(self, input: Tensor) -> Tensor:
        assert input.sum().item() < math.inf
        return input


def with_a_reading_module(monkeypatch: pytest.MonkeyPatch) -> None:
    from rmploss.engine import loop

    make = loop.make_network

    def made(*arguments: Any) -> Any:
        net: Any = make(*arguments)
        net.head.layer = nn.Sequential(Reads(), net.head.layer)
        return net

    monkeypatch.setattr(loop, "make_network", made)


def test_what_cannot_be_captured_says_so_once_and_runs_eagerly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_reading_module(monkeypatch)
    eager = train(TINY, tmp_path / "eager", REFERENCE)
    taped(monkeypatch)
    path = train(TINY, tmp_path / "captured", REFERENCE)
    assert digest_of(path) == digest_of(eager)
    events = [e for e in RunFolder.open(path).events() if e["event"] == "capture"]
    assert [(event["what"], event["captured"]) for event in events] == [
        ("training step", False),
        ("evaluation", False),
    ]
    assert all("reads a tensor" in event["reason"] for event in events)
    asked = Execution(device="cpu", backend="reference", capture="on")
    with pytest.raises(UserError, match="the training step cannot be captured"):
        train(TINY, tmp_path / "asked", asked)


def test_an_evaluation_that_cannot_be_captured_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: Reads, x: Tensor) -> Tensor:
        assert self.training or x.sum().item() < math.inf
        return x

    monkeypatch.setattr(Reads, "forward", forward)
    with_a_reading_module(monkeypatch)
    taped(monkeypatch)
    events = RunFolder.open(train(TINY, tmp_path / "auto", REFERENCE)).events()
    captured = [(e["what"], e["captured"]) for e in events if e["event"] == "capture"]
    assert captured == [("training step", True), ("evaluation", False)]
    asked = Execution(device="cpu", backend="reference", capture="on")
    with pytest.raises(UserError, match="the evaluation cannot be captured") as caught:
        train(TINY, tmp_path / "asked", asked)
    assert "--capture auto" in str(caught.value)
    (path,) = (tmp_path / "asked").iterdir()
    assert resume(path, REFERENCE) == path


def test_a_capture_that_was_asked_for_needs_a_gpu(tmp_path: Path) -> None:
    asked = Execution(device="cpu", capture="on")
    with pytest.raises(UserError, match="needs a CUDA device"):
        train(TINY, tmp_path / "runs", asked)
    assert not (tmp_path / "runs").exists()
    assert asked.command_flags() == " --device cpu --capture on"


def test_a_failed_capture_leaves_the_tensors_as_they_were() -> None:
    count = torch.zeros(())

    def failing(function: Function, tensors: Sequence[Tensor]) -> Function:
        raise CaptureError("no")

    def add() -> None:
        count.add_(1)

    said: list[str] = []
    run = Repeated(add, lambda: [count], capturer=failing, report=said.append)
    for _ in range(3):
        run()
    assert (count.item(), said) == (3, ["no"])


def test_the_tape_holds_what_python_computed_and_reads_what_tensors_hold() -> None:
    """A replay that ran Python again would prove nothing."""
    number, held, out = [1.0], torch.ones(()), torch.zeros(())

    def run() -> None:
        out.copy_(held * number[0])

    replay = tape(run, [out])
    assert out == 0
    number[0] = 5.0
    held.fill_(3.0)
    replay()
    assert out == 3


def test_a_captured_evaluation_sees_new_weights() -> None:
    """Replay, evaluate, change the weights, evaluate: nothing of the old ones was kept."""
    net, batches = network(), split(4, 4, 4, 1)
    captures: list[int] = []

    def counting(function: Function, tensors: Sequence[Tensor]) -> Function:
        captures.append(len(tensors))
        return tape(function, tensors)

    captured = Evaluator(
        net, World(), repeat=lambda run, tensors: Repeated(run, tensors, capturer=counting)
    )
    found = []
    for _ in range(3):
        found.append(evaluate(net, batches))
        assert captured(batches) == found[-1]
        with torch.no_grad():  # as an update, a load or an average does
            for tensor in net.state_dict().values():
                tensor.mul_(1.25)
    assert captures == [1 + len(found[0].layers)]
    assert len({each.loss for each in found}) == 3


def poisoned(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Let lambda(n) be NaN in these steps, counted from 0."""
    from rmploss.engine.loop import Loop

    step, calls = Loop._step, itertools.count()

    def poison(loop: Any, *batch: Tensor) -> None:
        weights = loop.step.weights.clone()
        if next(calls) in steps:
            loop.step.weights.fill_(math.nan)
        step(loop, *batch)
        loop.step.weights.copy_(weights)

    monkeypatch.setattr(Loop, "_step", poison)


def state_after(loop: Any) -> list[Tensor]:
    """Copies of everything that a step changes, without the tally."""
    return [tensor.detach().clone() for tensor in loop.step.tensors()[1:]]


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("bad", [(0,), (1,), (1, 2)])
def test_after_a_nan_nothing_changes_until_it_is_read(
    bad: tuple[int, ...], captured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tally is read at the end of the epoch only; parameters, moments, statistics stand."""
    from rmploss.engine.loop import Loop

    if captured:
        taped(monkeypatch)
    # The first step is read at once, for the loss of the start (`Health`): here it is not.
    monkeypatch.setattr("rmploss.engine.tally.Watch.after_step", lambda watch: None)
    poisoned(monkeypatch, *bad)
    states: list[list[Tensor]] = []
    step = Loop._step

    def recorded(loop: Any, *batch: Tensor) -> None:
        if not states:
            states.append(state_after(loop))
        step(loop, *batch)
        states.append(state_after(loop))

    monkeypatch.setattr(Loop, "_step", recorded)
    recipe = TINY.but(optimizer=use("adamw"), average=use("ema"))
    with pytest.raises(NonFiniteError, match=rf"\(epoch 1, batch {bad[0] + 1}\)"):
        train(recipe, tmp_path, REFERENCE)
    assert len(states) == 5
    before = states[bad[0]]
    for after in states[bad[0] + 1 :]:
        for ours, theirs in zip(after, before, strict=True):
            assert torch.equal(ours, theirs)
    if bad[0]:
        assert any(not torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True))
    (path,) = tmp_path.iterdir()
    event = RunFolder.open(path).events()[-1]
    assert (event["event"], event["step"]) == ("non-finite", bad[0])
    assert [p.name for p in (path / "ckpt").iterdir()] == ["step-00000000"]


def test_a_signal_after_an_unread_nan_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmploss.engine.tally.Watch.after_step", lambda watch: None)
    poisoned(monkeypatch, 1)
    with pytest.raises(NonFiniteError, match="batch 2"):
        train(TINY, tmp_path, REFERENCE, Interrupting("train", 1, 3, signal.SIGTERM))
    (path,) = tmp_path.iterdir()
    assert [p.name for p in (path / "ckpt").iterdir()] == ["step-00000000"]


def test_no_rank_captures_beside_others() -> None:
    device = torch.device("cuda", 0)
    assert capture.impossible(World(device=device)) == ""
    assert "2 ranks" in capture.impossible(World(size=2, device=device))


def test_ranks_that_run_eagerly_on_gpus_are_told_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = World(size=2, device=torch.device("cuda", 0))
    why = capture.eager_note("auto", several)
    assert why == "2 ranks run eagerly: collectives are not captured"
    assert not capture.eager_note("off", several)
    assert not capture.eager_note("auto", World(size=2))
    assert not capture.eager_note("auto", World(device=torch.device("cuda", 0)))
    monkeypatch.setattr("rmploss.engine.loop.eager_note", lambda mode, world: why)
    said: list[str] = []

    class Told(Listener):
        def note(self, text: str) -> None:
            said.append(text)

    train(TINY, tmp_path, REFERENCE, Told())
    assert said.count(why) == 1


def test_no_reading_of_an_epoch_arrives_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where a reading arrives steps after it was sent: here 3 of the 4 of an epoch."""
    from rmploss.engine.loop import Loop
    from rmploss.engine.tally import Watch

    class Slow:
        def __init__(self) -> None:
            self.asked = itertools.count(1)

        def query(self) -> bool:
            return next(self.asked) >= 3

    monkeypatch.setattr(Watch, "_send", lambda watch: (watch.tally.numbers.clone(), Slow()))
    after, steps, done = Watch.after_step, list[float](), list[int]()

    def noted(watch: Watch) -> Any:
        watch.wait, watch.every = False, 4
        reading = after(watch)
        if reading is not None:
            steps.append(reading.terms.sums[3].item() / TINY.batch_size)
            done.append(states[-1])
        return reading

    step, states = Loop._step, list[int]()

    def counted(loop: Any, *batch: Tensor) -> None:
        step(loop, *batch)
        states.append(loop.state.counters.batch)

    monkeypatch.setattr(Watch, "after_step", noted)
    monkeypatch.setattr(Loop, "_step", counted)
    train(TINY, tmp_path, REFERENCE)
    assert steps
    assert all(of <= batch for of, batch in zip(steps, done, strict=True))
