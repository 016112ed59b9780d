"""Words of the command line become values; nothing in them is ever run."""

import errno
from pathlib import Path
from typing import Any

import pytest

from rmploss.cli.common import assignments, drop_none, literal
from rmploss.errors import UserError


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("1e-4", 1e-4),
        ("0.25", 0.25),
        ("True", True),
        ("false", False),
        ("none", None),
        ("'1'", "1"),
        ("('*.lif1',)", ("*.lif1",)),
        ("()", ()),
        ("code", "code"),
        ("", ""),
        ("a b", "a b"),
        ("nan", "nan"),
        ("{1: 2}", "{1: 2}"),
        ("[" * 10000, "[" * 10000),
    ],
)
def test_a_word_as_a_value(word: str, value: Any) -> None:
    found = literal(word)
    assert found == value
    assert type(found) is type(value)


def test_nothing_is_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for word in (f"open({str(canary)!r}, 'w')", "__import__('os').getcwd()", "(lambda: 1)()"):
        assert literal(word) == word
    assert not canary.exists()


def test_assignments() -> None:
    words = ["T=6", " objective.k = 1 ", "data.split=a=b", "neuron.v_reset=none"]
    expected = {"T": 6, "objective.k": 1, "data.split": "a=b", "neuron.v_reset": None}
    assert assignments(words) == expected


@pytest.mark.parametrize("word", ["k", "=3", ""])
def test_what_is_no_assignment(word: str) -> None:
    with pytest.raises(UserError, match="is not FIELD=VALUE"):
        assignments(["T=6", word])


def test_flags_that_were_given() -> None:
    assert drop_none({"T": None, "lr": 0.0, "amp": "off"}) == {"lr": 0.0, "amp": "off"}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_out_of_memory_says_what_to_lower(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rmploss.cli import main

    def fail() -> None:
        raise error

    monkeypatch.setattr("rmploss.cli.list._print_main_recipes", fail)
    assert main(["list"]) == 4
    said = capsys.readouterr().err
    assert "GB so far" in said
    assert "ulimit -v" in said if isinstance(error, ImportError) else "lower batch_size" in said
    assert "Traceback" not in said
