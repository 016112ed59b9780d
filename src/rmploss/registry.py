"""Registries: names of neurons, losses, ... and the code of each, imported on first use.

A new method is one new file and one line in the registry of its family.
"""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from rmploss.errors import Problem, UserError, unknown

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to classes or functions, each imported on its first lookup.

    kind: the word for one entry, singular ("neuron").
    places: name -> "module:attribute".
    Looking up an unknown name raises `UserError` with the nearest existing name.
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
        """Call the entry. Raises `UserError` for unknown options and options of a wrong type."""
        problems = self.problems(name, options)
        if problems:
            raise UserError(f"cannot make {self.kind} {name!r}", problems)
        return typing.cast("Callable[..., Any]", self[name])(*arguments, **options)

    def problems(self, name: str, options: Mapping[str, Any]) -> list[Problem]:
        """All problems of a name and its options, by the signature of the entry."""
        where = self.kind.replace(" ", "-")
        if name not in self._places:
            return [self._unknown(name)]
        hints = self.options(name)
        problems = [
            unknown(f"{where}.{option}", option, hints) for option in options if option not in hints
        ]
        problems += [
            Problem(
                f"{where}.{option} = {value!r}",
                f"must be {spell(hints[option])}",
                f"\"('{value}',)\", in quotes" if hints[option] == tuple[str, ...] else "",
            )
            for option, value in options.items()
            if option in hints and not fits(value, hints[option])
        ]
        return problems

    def options(self, name: str) -> dict[str, Any]:
        """The options of an entry (its keyword-only parameters) -> their types, in order.

        `**options: Unpack[T]` of a constructor counts as the options that T names.
        """
        return {name: option.hint for name, option in _options(self[name]).items()}

    def complete(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options that a recipe can hold, in order: those given, else their defaults.

        An int becomes a float where the entry takes a float: k=1 and k=1.0 are one recipe.
        """
        full: dict[str, Any] = {}
        for key, option in _options(self[name]).items():
            if is_literal(option.hint):
                value = options.get(key, option.default)
                whole = isinstance(value, int) and not isinstance(value, bool)
                full[key] = float(value) if whole and _takes_real(option.hint) else value
        return full

    def spelled_options(self, name: str) -> dict[str, str]:
        """The options of an entry that a recipe can hold -> their types in words."""
        hints = self.options(name).items()
        return {option: spell(hint) for option, hint in hints if is_literal(hint)}

    def _unknown(self, name: str) -> Problem:
        return unknown(self.kind.replace(" ", "-"), name, self._places)


class _Option(NamedTuple):
    """The type of an option, and its default."""

    hint: Any
    default: Any


def _options(entry: Any) -> dict[str, _Option]:
    """The keyword-only parameters of an entry, in order.

    A class that takes `**options: Unpack[T]` passes the keys of T to the next class in its
    resolution order, whose signature has their types and defaults.
    """
    options: dict[str, _Option] = {}
    passed: set[str] | None = None  # the names that this constructor receives; None: all
    for function in _constructors(entry):
        hints = typing.get_type_hints(function)
        rest = None
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = hints.get(name)
            elif parameter.kind is parameter.KEYWORD_ONLY and (passed is None or name in passed):
                options.setdefault(name, _Option(hints.get(name, Any), parameter.default))
        if typing.get_origin(rest) is not typing.Unpack:
            break
        keys = set(typing.get_type_hints(*typing.get_args(rest)))
        passed = keys if passed is None else passed & keys
    return options


def _constructors(entry: Any) -> Iterator[Callable[..., Any]]:
    """The function itself; of a class, the constructors in its resolution order."""
    if not inspect.isclass(entry):
        yield entry
        return
    for kind in entry.__mro__:
        if "__init__" in vars(kind):
            yield vars(kind)["__init__"]


def fits(value: Any, hint: Any) -> bool:
    """True if a literal (bool, int, float, str, None, tuple) has the annotated type."""
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
    # No literal is a module or a callable: the entry itself checks those.
    return True


def _takes_real(hint: Any) -> bool:
    return hint is float or float in typing.get_args(hint)


def is_literal(hint: Any) -> bool:
    """True if a value of this type can be a literal, so that a recipe can hold it."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(map(is_literal, parts))
    return typing.get_origin(hint) in (typing.Literal, tuple) or hint in (int, float, bool, str)


def spell(hint: Any) -> str:
    """A type in the words of the command line's messages."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if is_literal(part) or part is type(None)]
        return " or ".join(map(spell, parts))
    if origin is tuple:
        return f"a list of {spell(typing.get_args(hint)[0])}"
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(word) for word in typing.get_args(hint))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return "none" if hint is type(None) else names.get(hint, str(hint))
