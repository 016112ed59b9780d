"""Reads the one kind of pickle CIFAR is published as, without running anything that it names.

A pickle may name any importable function and call it. Here every name it may use stands for a
harmless look-alike of this file: nothing is imported, nothing of numpy is called, and any other
name is refused.
"""

import io
import pickle
from typing import Any

import numpy as np

from rmploss.errors import DataError, Problem


def unpickle(data: bytes, source: str) -> dict[bytes, Any]:
    """A pickled dictionary of numbers, bytes and uint8 arrays; text comes as bytes.

    source: the file's name, for messages. Raises `DataError` for anything else.
    """
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a hostile pickle can make the machine underneath raise anything
        raise _refusal(source, str(error) or type(error).__name__) from error
    if not isinstance(content, dict):
        raise _refusal(source, f"it holds a {type(content).__name__}, not a dictionary")
    return {name: v.array if isinstance(v, _Array) else v for name, v in content.items()}


def _refusal(source: str, why: str) -> DataError:
    fix = "delete it and get it again from its publisher"
    return DataError("a file is not what it should be", [Problem(source, why, fix)])


class _Array:
    """Stands for a uint8 `numpy.ndarray`."""

    array: np.ndarray

    def __setstate__(self, state: tuple[int, tuple[int, ...], object, bool, bytes]) -> None:
        _, shape, _, fortran_order, data = state
        if fortran_order:
            raise pickle.UnpicklingError("an array in Fortran order")
        self.array = np.frombuffer(data, np.uint8).reshape(shape)


class _Dtype:
    """Stands for `numpy.dtype`, of which only uint8 is allowed: its state tells nothing more."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of type {code!r}, not uint8")

    def __setstate__(self, _: object) -> None:
        pass


def _reconstruct(*_: object) -> _Array:
    return _Array()


_ALLOWED = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,  # its name since numpy 2
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {name}, which is not allowed")
        return _ALLOWED[name]
