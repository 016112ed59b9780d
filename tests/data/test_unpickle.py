import codecs
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from rmploss.data._unpickle import unpickle
from rmploss.errors import DataError


class _Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments) -> None:
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


def _legacy(pixels: np.ndarray) -> bytes:
    """As Python 2 with numpy 1 wrote it: protocol 2, text and raw bytes alike, old module name."""
    n, side = pixels.shape
    raw = pixels.tobytes()
    return b"".join([
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b",
        b"\x87R(K\x01M", n.to_bytes(2, "little"), b"M", side.to_bytes(2, "little"), b"\x86",
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t",
        b"b\x89T", len(raw).to_bytes(4, "little"), raw, b"tbU\x06labels](K\x07K\x08eu.",
    ])  # fmt: skip


def test_reads_arrays_of_old_and_new_numpy() -> None:
    pixels = np.arange(512, dtype=np.uint8).reshape(2, 256)
    for data in (_legacy(pixels), pickle.dumps({b"data": pixels, b"labels": [7, 8]}, protocol=3)):
        content = unpickle(data, "batch")
        assert content[b"labels"] == [7, 8]
        assert content[b"data"].dtype == np.uint8
        np.testing.assert_array_equal(content[b"data"], pixels)
    assert pickle.loads(_legacy(pixels), encoding="bytes")[b"labels"] == [7, 8]  # a sound pickle


@pytest.mark.parametrize(
    ("what", "named"),
    [
        (_Call(os.system, "touch canary"), "system"),
        (_Call(eval, "__import__('pathlib').Path('canary').touch()"), "builtins.eval"),
        (_Call(io.open, "canary", "w"), "open"),
        (_Call(getattr, 1, "real"), "builtins.getattr"),
        (_Call(codecs.encode, "x", "latin1"), "_codecs.encode"),
        (_Call(np.load, "canary"), "numpy.load"),
        (np.array([_Call(os.system, "touch canary")], dtype=object), "'O8', not uint8"),
        (np.zeros(3), "'f8', not uint8"),
        (np.asfortranarray(np.zeros((2, 3), np.uint8)), "Fortran"),
    ],
)
@pytest.mark.parametrize("depth", [0, 3])
def test_refuses_whatever_else_is_named_and_runs_nothing(
    what: object, named: str, depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        what = [{b"data": what}]
    with pytest.raises(DataError) as caught:
        unpickle(pickle.dumps({b"data": what}, protocol=3), "some/batch")
    assert named in str(caught.value)
    assert "some/batch" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_allowed_names_cannot_be_turned_into_others() -> None:
    """Setting the state of a stand-in must not reach a real function."""
    setattr_on_class = (
        b"\x80\x02cnumpy\ndtype\nN}U\x08__init__cnumpy.core.multiarray\n_reconstruct\ns\x86b."
    )
    with pytest.raises(DataError):
        unpickle(setattr_on_class, "batch")
    pixels = np.arange(512, dtype=np.uint8).reshape(2, 256)
    np.testing.assert_array_equal(unpickle(_legacy(pixels), "batch")[b"data"], pixels)
    bad_codes = _legacy(pixels).replace(b"U\x02u1", b"U\x02O8")
    with pytest.raises(DataError, match="not uint8"):
        unpickle(bad_codes, "batch")


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x80\x02.", b"\x80\x04\x95" + b"\xff" * 8])
def test_refuses_what_is_no_pickle(data: bytes) -> None:
    with pytest.raises(DataError, match="batch"):
        unpickle(data, "batch")


def test_refuses_a_pickle_cut_off_anywhere() -> None:
    data = _legacy(np.zeros((2, 256), np.uint8))
    for length in range(0, len(data) - 1, 7):
        with pytest.raises(DataError):
            unpickle(data[:length], "batch")


def test_refuses_what_is_not_a_dictionary() -> None:
    with pytest.raises(DataError, match="holds a list"):
        unpickle(pickle.dumps([1]), "batch")
    with pytest.raises(DataError, match="persistent"):
        unpickle(b"\x80\x02U\x01aQ.", "batch")
