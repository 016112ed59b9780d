"""`rmploss eval RUN --attack`: what attacks on the pixels leave of the accuracy."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rmploss.cli.wrapping import say
from rmploss.errors import Problem, UserError

if TYPE_CHECKING:
    from rmploss.analysis import Robustness


def sizes(words: Sequence[str]) -> list[float]:
    """The sizes of attacks in pixels: "8/255", "0.03". Raises `UserError`."""
    found, problems = [], []
    for word in words:
        try:
            white, slash, levels = word.partition("/")
            found.append(float(white) / float(levels if slash else "1"))
        except (ValueError, ZeroDivisionError):
            problems.append(Problem(f"--attack {word}", "is no size of a pixel's change", "8/255"))
    if problems:
        raise UserError("cannot read --attack", problems)
    return found


def print_attacks(
    words: Sequence[str], results: Sequence["Robustness"], split: str, as_json: bool
) -> None:
    """Print the results of the sizes that were given as words.

    split: the word for the split of the images, `Recipe.tested_on`.
    """
    if as_json:
        for result in results:
            more = {"masked": result.masked, "standard_error": result.standard_error}
            more["split"] = split
            print(json.dumps({**asdict(result), **more}))
        return
    first = results[0]
    say(f"attacks on {first.samples} {split} images, accuracy in %", 2)
    say(
        f"standard error: at most {first.standard_error:.1f} points, as of {first.samples} images",
        2,
    )
    heads = ("eps", "clean", "noise", "FGSM", "PGD", "transfer")
    print("  ".join(f"{head:>8}" for head in heads))
    for word, o in zip(words, results, strict=True):
        known = (o.clean, o.noise, o.fgsm, o.pgd, o.transfer)
        cells = [f"{'-' if value is None else format(value, '.2f'):>8}" for value in known]
        print("  ".join([f"{word:>8}", *cells]))
    for word, result in zip(words, results, strict=True):
        for why in result.masked:
            say(f"eps {word}: gradients may be masked: {why}", 2)
