"""One page for each method, from its card; docs/methods.md has all of them one below the other."""

import re

import tables

from rmploss.recipes import METHODS


def titles() -> dict[str, str]:
    """The title of each method's page -> its place."""
    return {method.title: place(name) for name, method in METHODS.items()}


def place(name: str) -> str:
    """Where the page of a method lies."""
    return f"methods/{name}.md"


def page(name: str) -> str:
    """The idea of a method, its card, and its published numbers."""
    method = METHODS[name]
    card = tables.card(name).split("\n\n", 1)[1]
    parts = [f"# {method.title}", f"*{method.idea}*", card]
    if method.alone:
        parts.append(f"RMP-Loss is not added: {method.alone}.")
    if method.rows:
        lines = [
            "| table of the paper | recipe | T | accuracy (%) | quantization error |",
            "|---:|---|---:|---:|---:|",
        ]
        for row in method.rows:
            error = "" if row.error is None else f"{row.error:.3f}"
            lines.append(f"| {row.table} | `{row.recipe}` | {row.T} | {row.words} | {error} |")
        parts += ["## Published numbers", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def without_cards(text: str) -> str:
    """docs/methods.md with links to the methods' pages in place of their cards."""
    links = "\n".join(f"* [{title}](site:{place})" for title, place in titles().items())
    text = re.sub(r"<!-- cards -->.*<!-- /cards -->", lambda _: links, text, flags=re.DOTALL)
    return re.sub(r"^\| `(\w+)` \|", r"| [`\1`](site:methods/\1.md) |", text, flags=re.MULTILINE)
