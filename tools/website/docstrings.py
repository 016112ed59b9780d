"""Docstrings as Markdown: sentences, lists of arguments, and indented equations or code."""

import re
from collections.abc import Callable, Iterator

ARGUMENTS = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*): (?=\S)")
"""The start of an entry, "k: ..." or "paper, code: ..."."""


def to_markdown(docstring: str, link: Callable[[str], str]) -> str:
    """A docstring, dedented, as Markdown.

    link: turns a name in backquotes into Markdown, a link where it is known.
    """
    return "\n\n".join(_block(block, link) for block in _blocks(docstring))


def inline(text: str, link: Callable[[str], str]) -> str:
    """A sentence: what is special in Markdown is escaped, quoted names are links."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        link(part[1:-1]) if part.startswith("`") and len(part) > 2 else _escaped(part)
        for part in parts
    )


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_\[\]<>|#~^$])", r"\\\1", text) if text else ""


def _blocks(docstring: str) -> Iterator[list[str]]:
    """Runs of lines: the indented ones, blank lines between them included, and paragraphs.

    An entry of an argument goes on in indented lines, which belong to its paragraph.
    """
    block: list[str] = []
    for line in docstring.splitlines():
        indented = line.startswith("    ")
        code = bool(block) and block[0].startswith("    ")
        entries = bool(block) and ARGUMENTS.match(block[0]) is not None and block[-1] != ""
        if not line:
            ends = not code
        elif indented:
            ends = not code and not entries
        else:
            ends = code or (entries is False and bool(block) and block[-1] == "")
        if ends and block:
            yield block
            block = []
        if line or block:
            block.append(line)
    if block:
        yield block


def _block(block: list[str], link: Callable[[str], str]) -> str:
    while block[-1] == "":
        block = block[:-1]
    if block[0].startswith("    "):
        return "\n".join(block)
    if not ARGUMENTS.match(block[0]):
        return inline(" ".join(block), link)
    entries: list[str] = []
    for line in block:
        if ARGUMENTS.match(line) or not entries:
            entries.append(line)
        else:
            entries[-1] += " " + line.strip()
    return "\n".join(_argument(entry, link) for entry in entries)


def _argument(entry: str, link: Callable[[str], str]) -> str:
    names, text = entry.split(": ", 1)
    quoted = ", ".join(f"`{name}`" for name in names.split(", "))
    return f"* {quoted}: {inline(text, link)}"
