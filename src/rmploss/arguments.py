"""`checked`: a function or constructor that tells its caller all wrong arguments at once.

The signature says which arguments there are and of which types; what a wrong one gets is a
`UserError` with what to type instead, not Python's `TypeError` and not a number taken for another.
"""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, wraps
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from rmploss.errors import Problem, UserError, not_scriptable, unknown
from rmploss.registry import fits, is_literal, spell

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


def checked(**advice: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: the names, number and types of the arguments are checked before the call.

    Wrong ones are reported together, and with them what the function itself refuses of the others.
    Numbers of NumPy become those of Python. Inside torch.compile the function is called as it is.

    advice: what to type instead, by the name of an argument, one that exists or one that users of
        other packages look for ("tau").

    The decorated function raises `UserError`.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling():
                return function(*args, **kwargs)
            places, names = tuple(map(_plain, args)), {k: _plain(v) for k, v in kwargs.items()}
            problems = _problems(function, places, names, advice)
            if problems:
                raise UserError(f"bad {_title(function, places)}", problems)
            return function(*places, **names)

        def script() -> NoReturn:
            raise not_scriptable(_title(function))

        setattr(run, "__prepare_scriptable__", script)  # noqa: B010  what torch.jit.script calls
        return run

    return decorate


def checked_fields(kind: C) -> C:
    """The class (a dataclass) with its constructor `checked`."""
    kind.__init__ = checked()(kind.__init__)
    return kind


def collect(problems: list[Problem], make: Callable[[], R]) -> R | None:
    """What `make` returns; None, with its problems appended, if it raises `UserError`."""
    try:
        return make()
    except UserError as error:
        problems += error.problems or (Problem("", error.title),)
        return None


class _Parameters(NamedTuple):
    """What a function takes: its hints by name, those that may be given by place, and the rest."""

    hints: dict[str, Any]
    by_place: tuple[str, ...]
    required: tuple[str, ...]
    more_places: bool
    more_names: bool


@cache
def _parameters(function: Callable[..., Any]) -> _Parameters:
    found = typing.get_type_hints(function)
    hints: dict[str, Any] = {}
    by_place: list[str] = []
    required: list[str] = []
    more_places = more_names = False
    for name, parameter in inspect.signature(function).parameters.items():
        hint = found.get(name, Any)
        if parameter.kind is parameter.VAR_POSITIONAL:
            more_places = True
        elif parameter.kind is parameter.VAR_KEYWORD:
            if typing.get_origin(hint) is typing.Unpack:
                hints |= typing.get_type_hints(typing.get_args(hint)[0])
            else:
                more_names = True
        else:
            hints[name] = hint
            if parameter.kind is not parameter.KEYWORD_ONLY:
                by_place.append(name)
            if parameter.default is parameter.empty:
                required.append(name)
    return _Parameters(hints, tuple(by_place), tuple(required), more_places, more_names)


def problems_of_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Problem]:
    """All problems of a call that the signature of a function does not allow; empty if it does."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return _problems(function, args, kwargs, {})
    return []


def _untraced(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which Dynamo leaves as it is, with all that it calls.

    Where a step breaks out of its graph, torch.compile enters each function that is called there,
    and fails in the reading of signatures. `torch.compiler.disable` would import the compiler.
    """
    with suppress(ImportError, AttributeError):  # versions of PyTorch that have no such switch
        dynamo: Any = importlib.import_module("torch._C._dynamo.eval_frame")
        skip = dynamo._FrameAction.SKIP
        dynamo.set_code_exec_strategy(function.__code__, dynamo._FrameExecStrategy(skip, skip))
    return function


@_untraced
def _problems(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    advice: Mapping[str, str],
) -> list[Problem]:
    """All problems of a call; empty if it can be made."""
    hints, by_place, required, more_places, more_names = _parameters(function)
    given = dict(zip(by_place, args, strict=False))
    problems: list[Problem] = []
    if not more_places:
        names = [name for name in hints if name not in by_place]
        for index, value in enumerate(args[len(by_place) :], len(by_place)):
            place = f"argument {index + (by_place[:1] != ('self',))} = {shown(value)}"
            fix = advice.get("", " or ".join(f"{name}=..." for name in names) or "leave it out")
            problems.append(Problem(place, "has no name", fix))
    if not more_names:
        for name in kwargs:
            if name not in hints and name in advice:
                problems.append(Problem(name, f'unknown "{name}"', advice[name]))
            elif name not in hints:
                known = [word for word in hints if word != "self"]
                problems.append(unknown(_title(function), name, known))
    problems += [
        Problem(name, "is given twice", "by place or by name") for name in kwargs if name in given
    ]
    given |= kwargs
    problems += [
        Problem(name, "is missing", advice.get(name, f"{name}=..."))
        for name in required
        if name not in given
    ]
    wrong = {name for name, value in given.items() if not _fits(value, hints.get(name, Any))}
    for name in sorted(wrong, key=list(given).index):
        what = f"must be {_spell(hints[name])}"
        fix = advice.get(name, f"{name}=({given[name]!r},)" if _is_item(given, hints, name) else "")
        problems.append(Problem(f"{name} = {shown(given[name])}", what, fix))
    if problems and function.__name__ == "__init__":
        problems += _of_the_rest(function, given, {*hints} - wrong, required)
    places = {name: place for place, name in enumerate(hints)}
    return sorted(problems, key=lambda problem: places.get(problem.where.partition(" = ")[0], -1))


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _is_item(given: Mapping[str, Any], hints: Mapping[str, Any], name: str) -> bool:
    """True for one name where a tuple of names is wanted."""
    return hints[name] == tuple[str, ...] and isinstance(given[name], str)


def _of_the_rest(
    make: Callable[..., Any], given: Mapping[str, Any], sound: set[str], required: tuple[str, ...]
) -> tuple[Problem, ...]:
    """What a constructor refuses of the arguments that have the right names and types."""
    rest = {name: value for name, value in given.items() if name in sound}
    if not set(required) <= set(rest):
        return ()
    with suppress(TypeError, ValueError, RuntimeError):
        try:
            make(**rest)
        except UserError as error:
            return error.problems
    return ()


def _fits(value: Any, hint: Any) -> bool:
    """True if a value has the annotated type; types that cannot be tested fit."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if hint is Any:
        return True
    if hint is Tensor:  # `Spikes` stand for a tensor
        return isinstance(value, Tensor) or hasattr(type(value), "__torch_function__")
    if origin is Callable or hint is Callable:
        return callable(value)
    if is_literal(hint) or hint is type(None):
        return fits(value, hint)
    tested = inspect.isclass(hint) and not typing.is_typeddict(hint)
    return not tested or getattr(hint, "_is_protocol", False) or isinstance(value, hint)


def _spell(hint: Any) -> str:
    """A type in words."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_spell, typing.get_args(hint)))
    if origin is Callable:
        return "a function"
    if hint is Tensor:
        return "a tensor"
    if inspect.isclass(hint) and not is_literal(hint) and hint is not type(None):
        return f"a {hint.__name__}"
    return spell(hint)


def shown(value: Any) -> str:
    """A value in a message: a tensor by its shape and type, others as Python writes them."""
    if isinstance(value, Tensor):
        return f"tensor {list(value.shape)} {value.dtype}"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def _title(function: Callable[..., Any], args: Sequence[Any] = ()) -> str:
    """`LIF` of `LIF.__init__`, the function's own name else.

    args: those of a call. An object that is called as a function may have a `__name__`, as
        functions do; that of its class is the title if it has none.
    """
    owner, _, name = function.__qualname__.rpartition(".")
    if name == "__call__" and isinstance(getattr(args[0] if args else None, "__name__", None), str):
        return args[0].__name__
    return owner.rpartition(".")[2] if name in ("__init__", "__call__") else name
