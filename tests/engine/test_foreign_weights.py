"""Starts from the weights of a run or of another library's checkpoint; frozen backbones."""

import hashlib
import json
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from rmploss import models, recipes
from rmploss.cli.train import Train
from rmploss.engine import checkpoint
from rmploss.engine.build import check
from rmploss.engine.execution import Execution
from rmploss.engine.foreign_weights import read_weights, take
from rmploss.engine.initial_weights import with_source
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.errors import InterruptedRunError, UserError
from rmploss.recipes import use
from tests.engine.runs import TINY, Interrupting, digest_of

PLAIN = TINY.but(name="plain", objective=use("none"), epochs=1, train_samples=64)
STARTED = PLAIN.but(start=use("weights"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run."""
    return train(PLAIN, tmp_path_factory.mktemp("source"))


def state_of(path: Path, step: int | None = None) -> dict[str, Tensor]:
    kept = RunFolder.open(path).recipe_hash
    if step is None:
        return checkpoint.load_latest(path, recipe_hash=kept).model_state
    return checkpoint.load_step(path, step, recipe_hash=kept).model_state


def begin_of(path: Path) -> dict[str, Any]:
    (event,) = [e for e in RunFolder.open(path).events() if e["event"] == "begin"]
    return event


def test_a_run_starts_with_the_weights_of_another(source: Path, tmp_path: Path) -> None:
    stop = Interrupting("train", 1, 1, signal.SIGTERM)  # its first checkpoint is still there
    with pytest.raises(InterruptedRunError):
        train(STARTED, tmp_path, Execution(start=source), stop)
    (path,) = tmp_path.iterdir()
    first, other = state_of(path, 0), state_of(source)
    assert first.keys() == other.keys()
    assert all(first[name].equal(other[name]) for name in first)
    event = begin_of(path)
    assert (event["run"], event["new"], event["unused"]) == (str(source), [], [])
    assert {*event["taken"]} == other.keys()
    stored = RunFolder.open(path).recipe().start.options["source"]
    assert event["sha256"].startswith(str(stored))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_is_as_good_as_the_run(source: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"epoch": 3, "state_dict": state_of(source)}, file)
    else:
        safetensors.torch.save_file(state_of(source), file)
    weights = read_weights(file)
    assert weights.record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert all(weights.tensors[name].equal(t) for name, t in state_of(source).items())
    net = models.create("convnet", in_channels=1, num_classes=10, T=2, width=0.125)
    assert take(net, weights.tensors, partial=False)["new"] == []
    assert all(net.state_dict()[name].equal(t) for name, t in weights.tensors.items())


def test_a_head_of_other_classes_stays_new(source: Path) -> None:
    net = models.create("convnet", in_channels=1, num_classes=3, T=2, width=0.125)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    found = take(net, read_weights(source).tensors, partial=False)
    assert {*found["new"]} == {*found["unused"]} == {"head.layer.weight", "head.layer.bias"}
    for name, tensor in net.state_dict().items():
        assert tensor.equal(before[name] if name in found["new"] else state_of(source)[name])


def test_what_does_not_fit_is_an_error_unless_stated(source: Path) -> None:
    net = models.create("convnet", in_channels=3, num_classes=10, T=2, width=0.125)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(UserError, match=r"start\.partial=true takes what fits") as caught:
        take(net, read_weights(source).tensors, partial=False)
    assert "in the source" in caught.value.problems[0].what
    assert all(t.equal(before[name]) for name, t in net.state_dict().items())
    found = take(net, read_weights(source).tensors, partial=True)
    assert len(found["new"]) == 1
    with pytest.raises(UserError, match=r"^0 of"):
        take(net, {"x": torch.zeros(1)}, partial=True)


@pytest.mark.parametrize("width", [0.25, 0.0625])
def test_weights_of_another_width_name_the_width(
    source: Path, tmp_path: Path, width: float
) -> None:
    other = STARTED.but(network=STARTED.network.but(width=width))
    with pytest.raises(UserError, match=r"network\.width: is .* here.*--width 0\.125") as caught:
        train(other, tmp_path, Execution(start=source))
    assert "start.partial" not in {problem.where for problem in caught.value.problems}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_tensor_of_torchvision_has_a_place(name: str, prefix: str) -> None:
    theirs: nn.Module = getattr(torchvision.models, name)(num_classes=7)
    for tensor in theirs.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor))
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    net = models.create(name, num_classes=7, T=2)
    found = take(net, state, partial=False)
    assert found["new"] == found["unused"] == []
    ours = net.state_dict()
    for mine, name_of_theirs in (
        ("conv1.conv.weight", "conv1.weight"),
        ("conv1.norm.running_var", "bn1.running_var"),
        ("layer2.0.conv2.norm.bias", "layer2.0.bn2.bias"),
        ("layer3.0.shortcut.conv.weight", "layer3.0.downsample.0.weight"),
        ("layer3.0.shortcut.norm.running_mean", "layer3.0.downsample.1.running_mean"),
        ("head.layer.weight", "fc.weight"),
    ):
        assert ours[mine].equal(theirs.state_dict()[name_of_theirs])


class Harmful:
    """An object whose pickle would run code."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched"),))


def test_a_file_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Harmful()}, "a.pt")
    with pytest.raises(UserError, match="no weights to start from"):
        read_weights(Path("a.pt"))
    assert not Path("touched").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pt", b""),
        ("a.pt", b"\x80\x02garbage"),
        ("a.pt", pickle.dumps([1], protocol=2)),
        ("a.safetensors", b"short"),
        ("a.safetensors", b""),
    ],
)
def test_files_without_weights(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="no weights to start from"):
        read_weights(tmp_path / name)
    with pytest.raises(UserError, match="not a run"):
        read_weights(tmp_path / "nothing.pt")


def test_other_weights_make_another_run(source: Path, tmp_path: Path) -> None:
    safetensors.torch.save_file(state_of(source), tmp_path / "w.safetensors")
    one, other = (with_source(STARTED, path) for path in (source, tmp_path / "w.safetensors"))
    assert one.fingerprint() != other.fingerprint()
    assert with_source(PLAIN, source) == PLAIN


def test_a_frozen_backbone_stays_and_the_head_is_trained(source: Path, tmp_path: Path) -> None:
    recipe = PLAIN.but(start=use("weights", freeze="backbone"), epochs=2, weight_decay=0.1)
    path = train(recipe, tmp_path / "a", Execution(start=source))
    before, after = state_of(source), state_of(path)
    for name, tensor in after.items():
        assert tensor.equal(before[name]) == (not name.startswith("head.")), name
    loaded = checkpoint.load_latest(path, recipe_hash=RunFolder.open(path).recipe_hash)
    assert all(name.startswith("head.") for name in loaded.optimizer_state.tensors)

    stop = Interrupting("train", 2, 1, signal.SIGTERM)
    with pytest.raises(InterruptedRunError):
        train(recipe, tmp_path / "b", Execution(start=source), stop)
    (broken,) = (tmp_path / "b").iterdir()
    assert digest_of(resume(broken)) == digest_of(path)


def test_a_frozen_backbone_has_no_membranes_to_regularize() -> None:
    recipe = TINY.but(start=use("weights", freeze="backbone"))
    with pytest.raises(UserError, match="membranes of layers that are not trained"):
        check(recipe)
    with pytest.raises(UserError, match="no head to train"):
        check(recipe.but(objective=use("none"), network=use("tssl-cifarnet"), neuron=use("tssl")))


def test_the_flags(source: Path) -> None:
    (job,) = Train(recipe="digits", start=source, freeze="backbone")._jobs()
    assert job.start == use("weights", freeze="backbone")
    with pytest.raises(UserError, match="start"):
        Train(recipe="digits", freeze="backbone")._jobs()
    ann = "cifar10-diet-resnet20"
    assert recipes.get(ann).start.name == "hybrid"


def test_a_missing_start_says_what_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--start with a run folder, a \.safetensors or a \.pt"):
        train(STARTED, tmp_path)
    assert json.dumps([*tmp_path.iterdir()]) == "[]"
