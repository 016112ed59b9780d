"""Files of the repository as pages: lines with numbers, and an anchor for each name."""

import ast
import html
import os
from functools import cache
from pathlib import Path

from paper import definitions
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound
from source_map import ROOT

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<link rel="stylesheet" href="{up}source/source.css">
</head>
<body>
<header><a href="{up}index.html">rmploss</a> / {name}</header>
<pre>{lines}</pre>
</body>
</html>
"""
STYLE = """body { margin: 0; background: #fff; color: #1f2328; }
header { padding: 0.7em 1em; font: 15px system-ui, sans-serif; border-bottom: 1px solid #8886; }
header a { color: inherit; }
pre { margin: 0; padding: 0.7em 0; overflow-x: auto; font: 13px/1.5 ui-monospace, monospace; }
.line:target, a:target + .line { background: #ffc83d55; }
.number { display: inline-block; width: 4em; padding-right: 1em; text-align: right; color: #888;
  text-decoration: none; user-select: none; }
"""


def place(path: Path) -> str:
    """Where the page of a file lies."""
    return f"source/{path.relative_to(ROOT).as_posix()}.html"


def page(path: Path) -> str:
    """The page of a file."""
    text = path.read_text(encoding="utf-8")
    anchors: dict[int, str] = {}
    if path.suffix == ".py":
        anchors = {node.lineno: name for name, node in definitions(ast.parse(text))}
    lexer = _lexer(path)
    shown = highlight(text, lexer, HtmlFormatter(nowrap=True)).splitlines()
    lines = (_line(number, line, anchors) for number, line in enumerate(shown, 1))
    up = os.path.relpath(".", Path(place(path)).parent) + "/"
    name = html.escape(path.relative_to(ROOT).as_posix())
    return PAGE.format(name=name, up=up, lines="\n".join(lines))


def _line(number: int, line: str, anchors: dict[int, str]) -> str:
    anchor = f'<a id="{anchors[number]}"></a>' if number in anchors else ""
    number_ = f'<a class="number" href="#L{number}">{number}</a>'
    return f'{anchor}<span class="line" id="L{number}">{number_}{line}</span>'


def _lexer(path: Path) -> Lexer:
    try:
        return get_lexer_for_filename(path.name, stripnl=False)
    except ClassNotFound:
        return TextLexer(stripnl=False)


@cache
def style() -> str:
    """The style of these pages, light and dark as the reader's system is."""
    light = HtmlFormatter(style="default").get_style_defs("pre")
    dark = HtmlFormatter(style="github-dark").get_style_defs("pre")
    body = "body { background: #0d1117; color: #e6edf3; }"
    head = "pre { background: none !important; }"
    return f"{STYLE}{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n{body}\n}}\n{head}\n"
