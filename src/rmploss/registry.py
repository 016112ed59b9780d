"""Registries: names of neurons, losses, ... and the code of each, imported on first use.

A new method of this package is one new file and one line in the registry of its family; those of
other packages are registered from outside (`rmploss.register`).
"""

import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from rmploss import plugins
from rmploss.errors import Problem, UserError, unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to classes or functions, each imported on its first lookup.

    kind: the word for one entry, singular ("neuron").
    places: name -> "module:attribute".
    family: the word of `register` and of entry points; "": nothing is added from outside.
    needs: the attributes that an entry from outside must have.
    given: entries that are values, not places.
    Looking up an unknown name raises `UserError` with the nearest existing name.
    """

    def __init__(
        self,
        kind: str,
        places: Mapping[str, str],
        *,
        family: str = "",
        needs: tuple[str, ...] = (),
        given: Mapping[str, T] | None = None,
    ) -> None:
        self.kind = kind
        self.family = family
        self.given = dict(given or {})
        self._needs = needs
        self._places = dict(places)
        self._added: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name in self.given:
            return self.given[name]
        if name in self._places:
            module, _, attribute = self._places[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        if name not in self:
            raise UserError(f"unknown {self.kind}", [self._unknown(name)])
        if name not in self._added:
            self.add(name, plugins.load(self._points()[name]))
        return self._added[name]

    def __iter__(self) -> Iterator[str]:
        self._import_named()
        return iter(dict.fromkeys((*self._ours(), *self._added, *self._points())))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        if name in self._places or name in self.given or name in self._added:
            return True
        self._import_named()
        return name in self._added or name in self._points()

    def get(self, name: str, default: Any = None, /) -> Any:
        """The entry, or `default` for an unknown name."""
        return self[name] if name in self else default  # noqa: SIM401

    def add(self, name: str, entry: T) -> None:
        """Add an entry from outside of the package (`rmploss.register`).

        Raises `UserError` for a name that is taken, or that no command line could hold, and for
        an entry that lacks what its family needs.
        """
        where = f"{self.kind} {name!r}"
        problems = []
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
            fix = "letters, digits, '-' and '_'"
            problems.append(Problem(where, "is no name for a command line", fix))
        if name in self._places or name in self.given:
            problems.append(Problem(where, "is an entry of rmploss", "give yours another name"))
        elif name in self._added and _place(self._added[name]) != _place(entry):
            other = ":".join(_place(self._added[name]))
            problems.append(Problem(where, f"is {other} already", "give one another name"))
        problems += [
            Problem(where, f"lacks {part!r}", "docs/add-a-method.md shows one that is complete")
            for part in self._needs
            if not hasattr(entry, part)
        ]
        if problems:
            raise UserError(f"cannot register {where}", problems)
        self._added[name] = entry

    def origin(self, name: str) -> dict[str, str] | None:
        """Where an entry from outside came from (`plugins.record`); None for one of this package.

        None also for a name that is unknown.
        """
        if name in self._places or name in self.given or name not in self:
            return None
        return plugins.record(self.family, name, self[name], self._points().get(name))

    def _ours(self) -> Iterator[str]:
        yield from self._places
        yield from self.given

    def _import_named(self) -> None:
        if self.family:
            plugins.import_named()

    def _points(self) -> "dict[str, EntryPoint]":
        return plugins.points(self.family, {*self._ours()}) if self.family else {}

    def make(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        """Call the entry. Raises `UserError` for unknown options and options of a wrong type."""
        problems = self.problems(name, options)
        if problems:
            raise UserError(f"cannot make {self.kind} {name!r}", problems)
        return typing.cast("Callable[..., Any]", self[name])(*arguments, **options)

    def problems(self, name: str, options: Mapping[str, Any]) -> list[Problem]:
        """All problems of a name and its options, by the signature of the entry."""
        where = self.kind.replace(" ", "-")
        if name not in self:
            return [self._unknown(name)]
        hints = self.options(name)
        problems = [
            self._not_an_option(name, option, hints) for option in options if option not in hints
        ]
        problems += [
            Problem(f"{where}.{option}", "is missing", spell(hints[option]))
            for option, known in _options(self[name]).items()
            if known.default is inspect.Parameter.empty and option not in options
        ]
        problems += [
            Problem(
                f"{where}.{option} = {value!r}",
                f"must be {spell(hints[option])}",
                _listed(value) if hints[option] == tuple[str, ...] else "",
            )
            for option, value in options.items()
            if option in hints and not fits(value, hints[option])
        ]
        return problems

    def options(self, name: str) -> dict[str, Any]:
        """The options of an entry (its keyword-only parameters) -> their types, in order.

        `**options: Unpack[T]` of a constructor counts as the options that T names.
        """
        try:
            return {name: option.hint for name, option in _options(self[name]).items()}
        except NameError as error:  # of an annotation that names what is not imported
            problem = Problem(f"{self.kind} {name!r}", f"its annotations cannot be read: {error}")
            raise UserError("an entry cannot be used", [problem]) from error

    def complete(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options that a recipe can hold, in order: those given, else their defaults.

        An int becomes a float where the entry takes a float: k=1 and k=1.0 are one recipe.
        """
        full: dict[str, Any] = {}
        for key, option in _options(self[name]).items():
            if is_literal(option.hint) and (key in options or fits(option.default, option.hint)):
                value = options.get(key, option.default)
                whole = isinstance(value, int) and not isinstance(value, bool)
                full[key] = float(value) if whole and _takes_real(option.hint) else value
        return full

    def spelled_options(self, name: str) -> dict[str, str]:
        """The options of an entry that a recipe can hold -> their types in words."""
        hints = self.options(name).items()
        return {option: spell(hint) for option, hint in hints if is_literal(hint)}

    def _unknown(self, name: str) -> Problem:
        where = self.kind.replace(" ", "-")
        if words := plugins.how_to_get(self.family, name):
            return Problem(where, f'unknown "{name}"', words)
        return unknown(where, name, self)

    def _not_an_option(self, name: str, option: str, hints: Mapping[str, Any]) -> Problem:
        """The problem of an unknown option, or of one that its constructor takes by position."""
        where = f"{self.kind.replace(' ', '-')}.{option}"
        entry: Any = self[name]
        if name in self._added and option in inspect.signature(entry).parameters:
            what = "is a parameter by position; options are keyword-only"
            return Problem(where, what, "a `*` before it, or @dataclass(kw_only=True)")
        return unknown(where, option, hints)


def _place(entry: object) -> tuple[str, str]:
    """Module and name of a class or function; a value is at no place but its own."""
    name = getattr(entry, "__qualname__", None)
    return (getattr(entry, "__module__", ""), name or repr(entry))


def defaults(entry: Any) -> dict[str, Any]:
    """The options of an entry (its keyword-only parameters) -> their defaults, in order."""
    return {name: option.default for name, option in _options(entry).items()}


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


def _listed(value: object) -> str:
    """How to type the list that a text, with or without commas, may have meant; "": no text."""
    if not isinstance(value, str):
        return ""
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    return f'"{parts}", in quotes'
