"""The layout of an error: what, where, why, what to type."""

import pytest

from rmploss import errors
from rmploss.errors import Problem, UserError, closest, unknown


def test_the_text_of_an_error_is_a_table_of_its_problems() -> None:
    error = UserError(
        "2 problems in the recipe",
        [
            Problem("objective", 'unknown "rpm"', 'did you mean "rmp"?'),
            Problem("neuron.decay = 1.25", "must lie in [0, 1]"),
        ],
    )
    assert str(error).splitlines() == [
        "2 problems in the recipe",
        '  objective: unknown "rpm"                  did you mean "rmp"?',
        "  neuron.decay = 1.25: must lie in [0, 1]",
    ]
    assert error.title == "2 problems in the recipe"
    assert len(error.problems) == 2


def test_without_problems_it_is_its_title() -> None:
    assert str(UserError("no such thing")) == "no such thing"
    assert UserError("x").problems == ()


def test_a_long_problem_does_not_push_the_others_away() -> None:
    long = Problem("x" * 100, "is long", "cut it")
    text = str(UserError("title", [long, Problem("a", "b", "c")])).splitlines()
    assert text[1] == "  " + "x" * 100 + ": is long   cut it"
    assert text[2] == "  " + "a: b".ljust(60) + "   c"


def test_exit_codes_tell_the_errors_apart() -> None:
    codes = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, UserError)
    }
    mistakes = ("UserError", "DataError", "SmallMapError")
    assert all(codes[name] == 2 for name in mistakes)
    others = [code for name, code in codes.items() if name not in mistakes]
    assert len(set(others)) == len(others)
    assert not set(others) & {0, 1, 2}
    assert codes["InterruptedRunError"] == 75


@pytest.mark.parametrize(
    ("word", "guess"), [("rpm", "rmp"), ("resnet-20", "resnet20"), ("xyz", None), ("", None)]
)
def test_closest(word: str, guess: str | None) -> None:
    assert closest(word, ["rmp", "none", "resnet20", "vgg16"]) == guess


def test_swapped_words_are_the_closest() -> None:
    names = ["cifar10-resnet20-rmp-pocket", "cifar10-resnet20-rmp-fast-pocket"]
    assert closest("cifar10-resnet20-fast-rmp-pocket", names) == names[1]


def test_an_unknown_name_gets_a_guess_or_the_list() -> None:
    problem = unknown("objective", "rpm", ["rmp", "none"], see="rmploss list")
    assert problem == Problem("objective", 'unknown "rpm"', 'did you mean "rmp"?   (rmploss list)')
    assert unknown("neuron", "zzz", ["lif", "if"]).fix == "one of if, lif"
