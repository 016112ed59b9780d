"""Registries: lazy imports, and errors that name the nearest entry and every wrong option."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal, TypedDict, Unpack, get_args, get_origin, get_type_hints

import pytest

from rmploss.data import DATASETS
from rmploss.errors import UserError
from rmploss.models import MODELS
from rmploss.neurons import NEURONS
from rmploss.norm import NORMS
from rmploss.objectives import AUXILIARIES, LOSSES, OBJECTIVES, SCHEDULES
from rmploss.registry import Registry, fits, is_literal, spell
from rmploss.surrogate import SURROGATES

FAMILIES = {
    registry.kind: registry
    for registry in (DATASETS, MODELS, NEURONS, NORMS, OBJECTIVES, SCHEDULES, SURROGATES)
}
ENTRIES = [(kind, name) for kind, registry in FAMILIES.items() for name in registry]


class Widget:
    """An entry with an option of every type that a registry checks."""

    def __init__(
        self,
        size: int,
        *,
        width: float = 1.0,
        mode: Literal["a", "b"] = "a",
        limit: int | None = None,
        parts: tuple[str, ...] = (),
        on: bool = False,
    ) -> None:
        self.size, self.width, self.mode = size, width, mode
        self.limit, self.parts, self.on = limit, parts, on


class Shared(TypedDict, total=False):
    """Options that a gadget passes on."""

    limit: int | None
    width: float


class Gadget(Widget):
    """A widget of size 1 with an option more, another default, and without `parts` and `on`."""

    def __init__(
        self, *, colour: str = "red", mode: Literal["a", "b"] = "b", **options: Unpack[Shared]
    ) -> None:
        super().__init__(1, mode=mode, **options)
        self.colour = colour


class SmallGadget(Gadget):
    """A gadget without a constructor of its own."""


WIDGETS: Registry[Any] = Registry(
    "test widget",
    {"widget": f"{__name__}:Widget", "missing": "rmploss.no_such_module:Thing"},
)
GADGETS: Registry[Any] = Registry(
    "test gadget",
    {"gadget": f"{__name__}:Gadget", "small": f"{__name__}:SmallGadget"},
)


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_imports_and_has_a_card(kind: str, name: str) -> None:
    entry = FAMILIES[kind][name]
    assert callable(entry)
    assert entry.__doc__
    assert entry.__doc__.strip()


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_the_defaults_of_every_entry_fit_their_types(kind: str, name: str) -> None:
    registry = FAMILIES[kind]
    assert registry.problems(name, {}) == []
    assert registry.problems(name, {"no_such_option": 1})[0].what == 'unknown "no_such_option"'


def test_it_is_a_mapping() -> None:
    assert list(WIDGETS) == ["widget", "missing"]
    assert len(WIDGETS) == 2
    assert "widget" in WIDGETS
    assert "gadget" not in WIDGETS
    assert WIDGETS["widget"] is Widget


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    with pytest.raises(ModuleNotFoundError):
        WIDGETS["missing"]
    code = (
        "import sys, rmploss.models, rmploss.data;"
        "print([m for m in sys.modules if m in ('rmploss.models.vgg', 'rmploss.data.cifar')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name() -> None:
    with pytest.raises(UserError) as caught:
        WIDGETS["wigdet"]
    assert str(caught.value).splitlines() == [
        "unknown test widget",
        '  test-widget: unknown "wigdet"   did you mean "widget"?',
    ]
    assert WIDGETS.problems("wigdet", {"x": 1}) == list(caught.value.problems)


def test_make() -> None:
    widget = WIDGETS.make("widget", 3, width=2, mode="b", limit=None, parts=("x",), on=True)
    assert (widget.size, widget.width, widget.mode, widget.parts) == (3, 2, "b", ("x",))


def test_all_wrong_options_at_once() -> None:
    options = {
        "widht": 2, "width": "wide", "mode": "c", "limit": 1.5, "parts": ("x", 1), "on": 1,
        "size": 3,
    }  # fmt: skip
    with pytest.raises(UserError) as caught:
        WIDGETS.make("widget", 3, **options)
    lines = [(p.where, p.what) for p in caught.value.problems]
    assert lines == [
        ("test-widget.widht", 'unknown "widht"'),
        ("test-widget.size", 'unknown "size"'),
        ("test-widget.width = 'wide'", "must be a number"),
        ("test-widget.mode = 'c'", "must be one of 'a', 'b'"),
        ("test-widget.limit = 1.5", "must be a whole number or none"),
        ("test-widget.parts = ('x', 1)", "must be a list of text"),
        ("test-widget.on = 1", "must be true or false"),
    ]
    assert caught.value.problems[0].fix == 'did you mean "width"?'


@pytest.mark.parametrize(
    ("given", "fix"),
    [("a, b", "\"('a', 'b')\", in quotes"), ("a", "\"('a',)\", in quotes"), (("x", 1), "")],
)
def test_a_list_that_was_typed_as_text_is_spelled_out(given: object, fix: str) -> None:
    (problem,) = WIDGETS.problems("widget", {"parts": given})
    assert problem.fix == fix


def test_options_are_the_keyword_only_parameters() -> None:
    assert list(WIDGETS.options("widget")) == ["width", "mode", "limit", "parts", "on"]


@pytest.mark.parametrize("name", GADGETS)
def test_options_that_are_passed_on_are_those_of_the_base_class(name: str) -> None:
    assert list(GADGETS.options(name)) == ["colour", "mode", "width", "limit"]
    assert GADGETS.options(name)["limit"] == int | None
    complete = GADGETS.complete(name, {"width": 2})
    assert complete == {"colour": "red", "mode": "b", "width": 2.0, "limit": None}
    made = GADGETS.make(name, width=2, limit=3)
    assert (made.size, made.mode, made.width, made.limit, made.parts) == (1, "b", 2, 3, ())
    problems = GADGETS.problems(name, {"widht": 2, "parts": ("x",), "limit": "no"})
    assert [(p.where, p.what) for p in problems] == [
        ("test-gadget.widht", 'unknown "widht"'),
        ("test-gadget.parts", 'unknown "parts"'),
        ("test-gadget.limit = 'no'", "must be a whole number or none"),
    ]
    assert problems[0].fix == 'did you mean "width"?'


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_a_class_passes_on_what_its_base_class_takes(kind: str, name: str) -> None:
    entry = FAMILIES[kind][name]
    for owner in entry.__mro__ if inspect.isclass(entry) else ():
        place = f"{owner.__module__}:{owner.__qualname__}"
        registry: Registry[Any] = Registry("class", {"it": place})
        for hint in get_type_hints(owner.__init__).values():
            if get_origin(hint) is Unpack:
                (passed,) = get_args(hint)
                assert get_type_hints(passed).items() <= registry.options("it").items()


def test_options_completed_by_their_defaults() -> None:
    complete = WIDGETS.complete("widget", {"on": True, "width": 2})
    assert complete == {"width": 2.0, "mode": "a", "limit": None, "parts": (), "on": True}
    assert isinstance(complete["width"], float)
    assert complete["on"] is True
    assert isinstance(WIDGETS.complete("widget", {"limit": 2})["limit"], int)


def test_options_in_words_leave_out_what_only_code_can_give() -> None:
    words = SURROGATES.spelled_options("sigmoid") | NEURONS.spelled_options("if")
    assert words["alpha"] == "a number"
    assert words["surrogate"] == "text"
    assert words["v_reset"] == "a number or none"
    assert "neuron" not in MODELS.spelled_options("convnet")


@pytest.mark.parametrize(
    ("value", "hint", "good"),
    [
        (1, float, True), (1.5, float, True), (True, float, False), ("1", float, False),
        (1, int, True), (1.0, int, False), (True, int, False),
        (True, bool, True), (1, bool, False), ("x", str, True),
        (None, float | None, True), (None, float, False), (2, float | None, True),
        ("a", Literal["a", 1], True), (1, Literal["a", 1], True), (True, Literal["a", 1], False),
        ((), tuple[str, ...], True), (["x"], tuple[str, ...], True), ("x", tuple[str, ...], False),
        ((1, "x"), tuple[int, str], True), ((1,), tuple[int, str], False),
    ],
)  # fmt: skip
def test_fits(value: object, hint: object, good: bool) -> None:
    assert fits(value, hint) == good


def test_types_are_spelled_for_readers() -> None:
    assert spell(float | None) == "a number or none"
    assert spell(Literal["a", "b"]) == "one of 'a', 'b'"
    assert spell(bool) == "true or false"
    assert spell(tuple[str, ...]) == "a list of text"
    assert spell(str | Widget) == "text"


def test_what_a_recipe_can_write() -> None:
    literals = [int, float | None, bool, str, Literal["a"], tuple[str, ...], str | Widget]
    assert all(map(is_literal, literals))
    assert not any(map(is_literal, [Widget, Callable[[], Widget], type(None)]))


def described() -> list[tuple[str, type]]:
    """The classes of the tables with an `__init__` of their own, by table and name."""
    tables: tuple[Registry[Any], ...] = (NEURONS, NORMS, OBJECTIVES, LOSSES, AUXILIARIES)
    found = [(f"{table.kind} {name}", table[name]) for table in tables for name in table]
    return [(name, entry) for name, entry in found if "__init__" in vars(entry)]


@pytest.mark.parametrize(("name", "entry"), described())
def test_a_docstring_has_a_line_for_every_argument_and_the_errors(name: str, entry: type) -> None:
    """Whoever writes `--set neuron.NAME=...` finds there what NAME is."""
    doc = inspect.getdoc(entry) or ""
    lines = re.findall(r"^([A-Za-z_, ]+):", doc, re.MULTILINE)
    told = {word.strip() for line in lines for word in line.split(",")}
    named = inspect.signature(entry).parameters.values()
    assert {p.name for p in named if p.kind is not p.VAR_KEYWORD} <= told, name
    if set(told) - {"channels"}:
        assert "`UserError`" in doc, name
