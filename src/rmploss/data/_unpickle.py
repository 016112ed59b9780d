"""Read the pickles of CIFAR without calling any function that they name.

A pickle may name any importable function and call it. Here four names are allowed, and each is
replaced by a harmless stand-in of this file: nothing is imported and nothing of numpy is called.
Any other name is refused.
"""

import io
import pickle
from typing import Any

import numpy as np

from rmploss.errors import DataError, Problem


def unpickle(data: bytes, source: str) -> dict[bytes, Any]:
    """Decode a pickled dictionary of numbers, bytes and uint8 arrays; text becomes bytes.

    source: the file's name, for messages.
    Raises `DataError` for any other content.
    """
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a hostile pickle can make pickle's interpreter raise anything
        raise _pickle_error(source, str(error) or type(error).__name__) from error
    if not isinstance(content, dict):
        raise _pickle_error(source, f"it holds a {type(content).__name__}, not a dictionary")
    return {name: v.array if isinstance(v, _Array) else v for name, v in content.items()}


def _pickle_error(source: str, why: str) -> DataError:
    fix = "delete it and get it again from its publisher"
    return DataError("a damaged or altered file", [Problem(source, why, fix)])


class _Array:
    """The stand-in for `numpy.ndarray`, uint8 only."""

    array: np.ndarray

    def __setstate__(self, state: tuple[int, tuple[int, ...], object, bool, bytes]) -> None:
        _, shape, _, fortran_order, data = state
        if fortran_order:
            raise pickle.UnpicklingError("an array in Fortran order")
        self.array = np.frombuffer(data, np.uint8).reshape(shape)


class _Dtype:
    """The stand-in for `numpy.dtype`, uint8 only; its state is ignored."""

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
            raise pickle.UnpicklingError(f"it names {name}, which is not allowed")
        return _ALLOWED[name]
