"""Mistakes on the command line: exit code 2, a message with the fix, nothing written."""

from pathlib import Path

import pytest

from rmploss.cli import bench, main

WRONG = [
    ("train", ["no recipe was named"]),
    ("train digits-rpm", ["digits-rmp", "did you mean"]),
    ("train digits --epochs 0", ["epochs = 0", "at least 1"]),
    ("train digits --epochs many", ["many"]),
    ("train digits --lrr 1", ["--lr"]),
    ("train digits --lr -1", ["lr = -1.0", "positive"]),
    ("train digits --lr nan", ["lr = nan"]),
    ("train digits --T 0", ["T = 0"]),
    ("train digits --batch-size 0", ["batch_size = 0"]),
    ("train digits --batch-size 5000", ["batch_size = 5000", "1437"]),
    ("train digits --train-samples 0", ["train_samples = 0"]),
    ("train digits --train-samples 99999", ["1437"]),
    ("train digits --width 0", ["width"]),
    ("train digits --seed -1", ["seed = -1"]),
    ("train digits --seed 1 1", ["only once"]),
    ("train digits --set objective.k=1", ["objective.k", "no options"]),
    ("train digits --amp fp8", ["fp8"]),
    ("train digits --device tpu", ["tpu"]),
    ("train digits --device meta", ["meta", "not supported"]),
    ("train digits --workers -1", ["workers = -1"]),
    ("train digits --set k", ["FIELD=VALUE"]),
    ("train digits --set objektive=rmp", ["objective"]),
    ("train digits --set objective=rpm", ["rmp"]),
    ("train digits-rmp --set objective.k=-1", ["k = -1", "0.1"]),
    ("train digits-rmp --set objective.k=big", ["objective.k = 'big'", "a number"]),
    ("train digits-rmp --set objective.p=0", ["p = 0", "Eq. 9"]),
    ("train digits --set neuron.decay=1.25", ["decay = 1.25", "0.25 (Eq. 1)"]),
    ("train digits --set neuron.v_threshold=0", ["v_threshold", "0.5"]),
    ("train digits --set neuron.surrogate=tanh", ["surrogate"]),
    ("train digits --set norm.factor=inside", ["outside"]),
    ("train digits --set network=resnet21", ["resnet20"]),
    ("train digits --set weight_decay=2", ["weight_decay = 2"]),
    ("train cifar10-resnet20", ["cifar-10-batches-py", "rmploss data fetch cifar10"]),
    ("train imagenet-resnet18-rmp", ["imagenet", "wnid"]),
    ("train --resume nowhere", ["nowhere"]),
    ("train digits --resume nowhere", ["--resume"]),
    ("eval nowhere", ["nowhere"]),
    ("report nowhere", ["nowhere"]),
    ("table 9", ["no table 9"]),
    ("table one", ["one"]),
    ("table fair --runs-dir nowhere", ["nowhere", "is not a folder"]),
    ("search fair-best --pocket --only tdbm", ["tdbm", "tdbn"]),
    ("search fair", ["fair-best"]),
    ("list nurons", ["neurons"]),
    ("data fetch cifar11", ["cifar10"]),
    ("data fetch", ["rmploss data fetch cifar10"]),
    ("trian digits", ["train"]),
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; no data set is here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RMPLOSS_DATA", raising=False)
    return tmp_path


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=[words for words, _ in WRONG])
def test_a_mistake_is_reported_and_nothing_is_written(
    words: str, parts: list[str], empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    for part in parts:
        assert part in err + out
    assert "Traceback" not in err + out
    assert list(empty_folder.iterdir()) == []


def test_all_mistakes_are_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = "foo=1 T=0 neuron.decay=2 objective.kk=1 network.wdth=2 batch_size=7 accumulate=2"
    assert main(["train", "cifar10-resnet20-rmp", "--set", *wrong.split()]) == 2
    err = capsys.readouterr().err
    for part in ("foo", "T = 0", "decay = 2", "kk", "wdth", "accumulate = 2", "batches-py"):
        assert part in err


def test_a_corrupt_cifar_file_is_named(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = empty_folder / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(b"not what was published")
    assert main(["train", "cifar10-resnet20-pocket"]) == 2
    err = capsys.readouterr().err
    assert "data_batch_1" in err
    assert "Traceback" not in err
    assert not (empty_folder / "runs").exists()


def test_a_bug_of_ours_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rmploss.recipes.RECIPES", None)
    assert main(["list"]) == 1
    err = capsys.readouterr().err
    assert "TypeError" in err
    assert "rmploss doctor" in err


@pytest.mark.parametrize("words", [[], ["--help"], ["step", "--width", "0.25"]])
def test_without_the_benchmarks_it_says_what_to_install(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "PACKAGE", "a_package_that_is_not_installed")
    assert main(["bench", *words]) == 2
    out, err = capsys.readouterr()
    assert "rmploss-bench: is not installed" in err
    assert "pip install ./benchmarks" in err
    assert out == ""
