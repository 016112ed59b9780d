"""Steps that are not finite leave a record; exceptions of other code say where training was."""

import json
import math
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rmploss import cli
from rmploss.cli.blame import foreign_frame
from rmploss.data import InMemory, batch_indices
from rmploss.engine import crash, step
from rmploss.engine.batches import RankBatches, open_splits
from rmploss.engine.build import make_dataset
from rmploss.engine.checkpoint import unseal
from rmploss.engine.crash import BINS, Trace, histogram
from rmploss.engine.execution import Execution
from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.engine.step import forward_backward
from rmploss.engine.train import resume, train
from rmploss.engine.verify import verify
from rmploss.errors import NonFiniteError, UserError
from rmploss.neurons import LIF
from rmploss.objectives.rmp import RMPLoss
from tests.engine.children import be_rank, finish, free_port, pipe, start
from tests.engine.runs import TINY, digest_of

BAD = 5
"""The step, from 0, whose number is not finite: the second of the second epoch."""


def test_a_histogram_counts_every_value_once() -> None:
    x = torch.tensor([0.0, -0.0, 2e-12, -0.5, 0.05, 7.0, -9e30, math.inf, -math.inf, math.nan])
    found = dict(zip(BINS, histogram(x).tolist(), strict=True))
    expected = {"0": 2, "1e-9": 1, "1e-1": 1, "1e-2": 1, "1e0": 1, "1e8": 1, "inf": 2, "nan": 1}
    assert {name: count for name, count in found.items() if count} == expected


def test_the_samples_of_a_batch_are_those_that_training_takes() -> None:
    samples, _ = open_splits(TINY, make_dataset(TINY), None, Listener())
    assert isinstance(samples, InMemory)
    taken = RankBatches(TINY).train(samples, epoch=1, skip=1, as_indices=True)
    found = batch_indices(len(samples), batch_size=32, epoch=1, seed=TINY.seed, batch=1)
    assert next(taken)[0].tolist() == found


class Broken:
    """Breaks one number of step `BAD`, whenever that step is run.

    place: "input", "state", "output", "regularizer" or "gradient".
    """

    def __init__(self, place: str) -> None:
        self.place, self.calls = place, 0

    def __call__(self, net: Any, objective: Any, x: Tensor, y: Tensor, **options: Any) -> Any:
        self.calls += 1
        handles: list[Any] = []
        if self.calls > BAD:  # that step, and the same one once more
            handles = self._break(net, x)
        terms = forward_backward(net, objective, x, y, **options)
        for handle in handles:
            handle.remove()
        if self.calls > BAD and self.place == "regularizer":
            terms.sums[1] = math.nan
        return terms

    def _break(self, net: Any, x: Tensor) -> list[Any]:
        broken = torch.tensor(math.nan)
        match self.place:
            case "input":
                x.view(-1)[0] = broken
            case "state":
                net.conv2.conv.weight.data.view(-1)[:2] = broken
            case "output":
                hooked = net.conv2.norm
                return [hooked.register_forward_hook(lambda m, a, y: y / 0.0, prepend=True)]
            case "gradient":
                return [net.conv2.conv.weight.register_hook(lambda g: g * math.inf)]
        return []


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("input", ("input", "images", "")),
        ("state", ("state", "conv2.conv.weight", "")),
        ("output", ("output", "conv2.norm", "TDBatchNorm2d")),
        ("regularizer", ("loss", "regularizer", "")),
        ("gradient", ("gradient", "conv2.conv.weight", "")),
    ],
)
def test_the_record_names_batch_and_first_bad_place(
    place: str, found: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmploss.engine.step.forward_backward", Broken(place))
    if place == "input":  # read before it is broken: the images of the second time
        add = Trace.add_before
        monkeypatch.setattr(Trace, "add_before", lambda s, x: add(s, x * math.nan))
    with pytest.raises(NonFiniteError) as caught:
        train(TINY, tmp_path)
    (path,) = tmp_path.iterdir()
    (file,) = crash.records(path)
    record = unseal(file.read_bytes())
    assert file.name == "step-00000005.json"
    assert (record["step"], record["epoch"], record["batch"]) == (BAD, 2, 2)
    assert record["samples"] == batch_indices(128, batch_size=32, epoch=1, seed=0, batch=1)
    bad = record["first_bad"]
    assert (bad["what"], bad["name"], bad["kind"]) == found
    assert bad["nan"] + bad["infinite"] > 0
    spikes = sum(record["histograms"]["membrane"]["lif1"].values())
    assert spikes == sum(record["histograms"]["output"]["lif1"].values())
    message = str(caught.value)
    assert str(file) in message
    assert f"rmploss train --fork {path} --lr 0.01" in message
    event = RunFolder.open(path).events()[-1]
    assert (event["event"], event["record"]) == ("non-finite", "crash/step-00000005.json")
    result = verify(path)
    assert "crash/step-00000005.json" in result.verified
    file.write_bytes(file.read_bytes().replace(b'"batch": 2', b'"batch": 3'))
    assert [damage.file for damage in verify(path).damages] == ["crash/step-00000005.json"]


def test_a_record_changes_nothing_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running statistics included: the run that goes on is the unbroken one."""
    monkeypatch.setattr("rmploss.engine.step.forward_backward", Broken("gradient"))
    with pytest.raises(NonFiniteError):
        train(TINY, tmp_path / "a")
    monkeypatch.undo()
    (path,) = (tmp_path / "a").iterdir()
    resume(path)
    assert digest_of(path) == digest_of(train(TINY, tmp_path / "b"))
    assert "crash/step-00000005.json" in json.loads((path / "manifest.json").read_bytes())["files"]
    assert verify(path).damages == []


def test_what_was_finite_the_second_time_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Once(Broken):
        def _break(self, net: Any, x: Tensor) -> list[Any]:
            return super()._break(net, x) if self.calls == BAD + 1 else []

    monkeypatch.setattr("rmploss.engine.step.forward_backward", Once("gradient"))
    with pytest.raises(NonFiniteError, match="nothing: run again, all numbers were finite"):
        train(TINY, tmp_path)


def test_a_second_time_that_raises_does_not_hide_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken("regularizer")

    def raising(*arguments: Any, **options: Any) -> Any:
        if broken.calls > BAD:
            raise RuntimeError("no second time")
        return broken(*arguments, **options)

    monkeypatch.setattr("rmploss.engine.step.forward_backward", raising)
    with pytest.raises(NonFiniteError, match="could not be run again: RuntimeError: no second"):
        train(TINY, tmp_path)


def broken_rank(rank: int, port: str, runs: Path, answer: Connection) -> None:
    """A rank of a run in which rank 1 alone has a bad image."""
    be_rank(rank, port)
    if rank == 1:
        step.forward_backward = Broken("input")
    try:
        train(TINY, runs, Execution(device="cpu"))
    except NonFiniteError:
        answer.send_bytes(b"told")


def test_the_record_adds_up_the_ranks(tmp_path: Path) -> None:
    here, there = pipe()
    port = free_port()
    ranks = [start(broken_rank, rank, port, tmp_path, there) for rank in range(2)]
    assert [finish(rank) for rank in ranks] == [0, 0]
    assert [here.recv_bytes() for _ in range(2)] == [b"told"] * 2
    (path,) = tmp_path.iterdir()
    (file,) = crash.records(path)
    record = unseal(file.read_bytes())
    # Of rank 1, in the record of rank 0: that of one image, before the norm mixes it with others.
    assert record["first_bad"]["name"] == "conv1.conv"
    assert sum(record["histograms"]["input"]["images"].values()) == 32 * 64


def failing(*arguments: Any, **options: Any) -> Any:
    raise ZeroDivisionError("a fault in a neuron")


@pytest.mark.parametrize("part", ["neuron", "objective", "data"])
def test_an_exception_of_other_code_says_where_training_was(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = {
        "neuron": (LIF, "forward"),
        "objective": (RMPLoss, "value"),
        "data": (InMemory, "batch"),
    }[part]
    usual, calls = getattr(owner, name), 0

    def sometimes(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        training = torch.is_grad_enabled() if part != "data" else True
        calls += training
        if training and calls > {"neuron": 15, "objective": 5, "data": 7}[part]:
            failing()
        return usual(self, *arguments, **options)

    monkeypatch.setattr(owner, name, sometimes)
    with pytest.raises(ZeroDivisionError) as caught:
        train(TINY, tmp_path)
    (path,) = tmp_path.iterdir()
    (note,) = caught.value.__notes__
    event = RunFolder.open(path).events()[-1]
    assert event["event"] == "failed"
    assert f"in training digits-rmp: epoch {event['epoch']}, batch {event['batch']}" in note
    assert ", ".join(map(str, event["samples"])) in note
    assert f"rmploss train --resume {path}" in note
    place = foreign_frame(caught.value)
    assert place is not None
    assert place.startswith(__file__)


def test_the_command_line_tells_our_faults_from_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_run", failing)
    assert cli.main(["list"]) == 1
    assert f"The error is not in rmploss, but in {__file__}" in capsys.readouterr().err

    def ours(words: Any) -> None:
        histogram(None)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(cli, "_run", ours)
    assert cli.main(["list"]) == 1
    assert "This is a bug of rmploss" in capsys.readouterr().err


def test_errors_with_a_message_of_their_own_get_no_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: Any, *arguments: Any) -> Any:
        raise UserError("a wrong image")

    monkeypatch.setattr(InMemory, "batch", wrong)
    with pytest.raises(UserError, match=r"^a wrong image$") as caught:
        train(TINY, tmp_path)
    assert not hasattr(caught.value, "__notes__")
