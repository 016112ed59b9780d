"""Explicit lazy tables: a name and the place that implements it, imported when first asked for.

A new method is one new file and one line in the table of its family.
"""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from rmploss.errors import Problem, UserError, unknown

T = TypeVar("T")


class Table(Mapping[str, T], Generic[T]):
    """Names and the things they stand for, imported when first looked up.

    kind: what the table holds, in the singular ("neuron"); places: name -> "module:attribute".
    Looking up an unknown name raises `UserError` with the nearest name that exists.
    """

    def __init__(self, kind: str, places: Mapping[str, str]) -> None:
        self.kind = kind
        self._places = dict(places)

    def __getitem__(self, name: str) -> T:
        if name not in self._places:
            raise UserError(f"unknown {self.kind}", [self._unknown(name)])
        module, _, attribute = self._places[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def make(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        """Call the entry; options it does not take or of a wrong type raise `UserError`."""
        problems = self.problems(name, options)
        if problems:
            raise UserError(f"cannot make {self.kind} {name!r}", problems)
        return typing.cast("Callable[..., Any]", self[name])(*arguments, **options)

    def problems(self, name: str, options: Mapping[str, Any]) -> list[Problem]:
        """What is wrong with a name and its options, judged by the entry's signature."""
        where = self.kind.replace(" ", "-")
        if name not in self._places:
            return [self._unknown(name)]
        hints = self.options(name)
        found = [
            unknown(f"{where}.{option}", option, hints) for option in options if option not in hints
        ]
        found += [
            Problem(
                f"{where}.{option} = {value!r}",
                f"must be {spell(hints[option])}",
                f"\"('{value}',)\", in quotes" if hints[option] == tuple[str, ...] else "",
            )
            for option, value in options.items()
            if option in hints and not fits(value, hints[option])
        ]
        return found

    def options(self, name: str) -> dict[str, Any]:
        """The options of an entry (its keyword-only parameters) and their types, in order.

        `**options: Unpack[...]` of a constructor stands for those that it passes to its base class.
        """
        return {option: found.hint for option, found in _options(self[name]).items()}

    def complete(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options with the defaults of those not given, in order: what plain data can say of them.

        A whole number where the entry takes a real one is made one, so that equal is equal.
        """
        full: dict[str, Any] = {}
        for option, found in _options(self[name]).items():
            if is_plain(found.hint):
                value = options.get(option, found.default)
                whole = isinstance(value, int) and not isinstance(value, bool)
                full[option] = float(value) if whole and _takes_real(found.hint) else value
        return full

    def spelled_options(self, name: str) -> dict[str, str]:
        """The options of an entry and their types in words; what only code can give is left out."""
        hints = self.options(name).items()
        return {option: spell(hint) for option, hint in hints if is_plain(hint)}

    def _unknown(self, name: str) -> Problem:
        return unknown(self.kind.replace(" ", "-"), name, self._places)


class _Option(NamedTuple):
    """The type of an option, and its default."""

    hint: Any
    default: Any


def _options(entry: Any) -> dict[str, _Option]:
    """The keyword-only parameters of an entry, in order.

    A class that takes `**options: Unpack[T]` passes the keys of T to the next class in its
    resolution order, which says their types and defaults.
    """
    found: dict[str, _Option] = {}
    passed: set[str] | None = None  # names that have come so far; None: all
    for function in _constructors(entry):
        hints = typing.get_type_hints(function)
        rest = None
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = hints.get(name)
            elif parameter.kind is parameter.KEYWORD_ONLY and (passed is None or name in passed):
                found.setdefault(name, _Option(hints.get(name, Any), parameter.default))
        if typing.get_origin(rest) is not typing.Unpack:
            break
        keys = set(typing.get_type_hints(*typing.get_args(rest)))
        passed = keys if passed is None else passed & keys
    return found


def _constructors(entry: Any) -> Iterator[Callable[..., Any]]:
    """The function that is called, and behind a class's those of its base classes."""
    if not inspect.isclass(entry):
        yield entry
        return
    for kind in entry.__mro__:
        if "__init__" in vars(kind):
            yield vars(kind)["__init__"]


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value (bool, int, float, str, None, tuple) has the annotated type."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in typing.get_args(hint))
    if origin is typing.Literal:
        return any(value == word and type(value) is type(word) for word in typing.get_args(hint))
    if origin is tuple:
        parts = typing.get_args(hint)
        if not isinstance(value, tuple | list):
            return False
        if len(parts) == 2 and parts[1] is Ellipsis:
            return all(fits(item, parts[0]) for item in value)
        return len(parts) == len(value) and all(map(fits, value, parts))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint is type(None):
        return value is None
    # Types that only code can build (modules, callables) are judged by the entry itself.
    return True


def _takes_real(hint: Any) -> bool:
    return hint is float or float in typing.get_args(hint)


def is_plain(hint: Any) -> bool:
    """Whether an option of this type can be written in a recipe."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(map(is_plain, parts))
    return typing.get_origin(hint) in (typing.Literal, tuple) or hint in (int, float, bool, str)


def spell(hint: Any) -> str:
    """A type as a reader of the command line knows it."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        plain = [part for part in typing.get_args(hint) if is_plain(part) or part is type(None)]
        return " or ".join(map(spell, plain))
    if origin is tuple:
        return f"a list of {spell(typing.get_args(hint)[0])}"
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(word) for word in typing.get_args(hint))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return "none" if hint is type(None) else names.get(hint, str(hint))
