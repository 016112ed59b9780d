"""Write the Markdown and the files that the site is built from into a folder.

The documents are those of the repository, with links that lead into the site, to another page or to
a page of the file's source. "site:" before a link's target stands for the site, "repo:" for the
repository; every other target is relative to its document.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import latex2mathml.converter
from source_map import ROOT

from rmploss.recipes import METHODS
from website import api, methods, pages, sources

LINK = re.compile(r"(?<=\]\()((?!https?:)[^)#\s]*)(#[^)\s]*)?(?=\))")
IMAGES = (".png", ".svg")


class Stage:
    """A folder that is filled; `sources`: the files of the repository that a link leads to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = pages.documents()
        self.sources: set[Path] = set()

    def write(self, place: str, text: str) -> None:
        """Write a file of the site."""
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def write_page(self, place: str, text: str, home: Path = ROOT) -> None:
        """Write a page; home: the folder from which its links start in the repository."""
        self.write(place, outside_code(text, lambda part: self._linked(part, place, home)))

    def _linked(self, text: str, place: str, home: Path) -> str:
        def target(match: re.Match[str]) -> str:
            if not match[1]:
                return match[0]
            there = self._place(match[1], home)
            return os.path.relpath(there, Path(place).parent) + (match[2] or "")

        return LINK.sub(target, text)

    def _place(self, target: str, home: Path) -> str:
        """The place in the site of a link's target."""
        if target.startswith("site:"):
            return target.removeprefix("site:")
        path = ROOT / target.removeprefix("repo:") if target.startswith("repo:") else home / target
        path = path.resolve()
        document = path.relative_to(ROOT).as_posix()
        if document in self.places:
            return self.places[document]
        if not path.is_file():
            sys.exit(f"a link leads to {document}, which is not a file")
        if path.suffix in IMAGES:
            copy = self.folder / "img" / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
            return f"img/{path.name}"
        self.sources.add(path)
        return sources.place(path)


def stage(folder: Path) -> None:
    """Fill an empty folder with everything that the site is built from."""
    filled = Stage(folder)
    for document, place in filled.places.items():
        text = (ROOT / document).read_text(encoding="utf-8")
        if document == "docs/methods.md":
            text = methods.without_cards(text)
        filled.write_page(place, dialect(text), (ROOT / document).parent)
    for name in METHODS:
        filled.write_page(methods.place(name), dialect(methods.page(name)))
    for place, text in api.pages().items():
        filled.write_page(place, text)
    for path in sorted(filled.sources):
        filled.write(sources.place(path), sources.page(path))
    filled.write("source/source.css", sources.style())
    for name in ("extra.css", "worker.js"):
        shutil.copy(Path(__file__).parent / name, folder)


def dialect(text: str) -> str:
    """GitHub's Markdown as that of the site: blank lines around blocks, formulas as MathML."""
    text = re.sub(r"^<!-- /?[\w-]+ -->$", "", text, flags=re.MULTILINE)
    text = re.sub(r"```math\n(.*?)```", _formula, text, flags=re.DOTALL)
    return outside_code(text, lambda part: re.sub(BLOCK, r"\1\n\n\2", part, flags=re.MULTILINE))


BLOCK = r"^(?!\* |- |\d+\. |\|| |<)(.+)\n(\* |- |\d+\. |\|)"
"""A paragraph's last line and the first line of a list or table directly below it."""


def _formula(match: re.Match[str]) -> str:
    formula = " ".join(match[1].split())
    mathml = latex2mathml.converter.convert(formula, display="block")
    return f'<div class="formula">{mathml}</div>\n'


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """A Markdown text with a change of what is not in fenced code."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else change(part) for part in parts)
