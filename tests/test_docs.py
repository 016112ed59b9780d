"""Generated parts of the documents are up to date, and every link and path leads to a file."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paper import definitions

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "results/*.md", "benchmarks/*.md", "native/*.md")
    for path in ROOT.glob(pattern)
)
DIARIES = ("CHANGELOG.md", "docs/log.md", "docs/decisions.md")
"""They name the files of their day; their links are checked, quoted paths are not."""


def test_the_generated_parts_are_those_of_the_code() -> None:
    words = [sys.executable, str(ROOT / "tools" / "docs.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_documents_are_found() -> None:
    assert {"README.md", "docs/map.md", "results/README.md"} <= {*DOCUMENTS}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading(document: str) -> None:
    here = ROOT / document
    text = here.read_text(encoding="utf-8")
    missing = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        there = (here.parent / path) if path else here
        if not there.exists() or (anchor and anchor not in anchors(there)):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name not in DIARIES])
def test_every_quoted_path_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    quoted = re.findall(r"`((?:tests|tools|docs|src|native|results|\.ci)/[^`\s]*)`", text)
    missing = [path for path in quoted if not (ROOT / path).exists()]
    assert missing == []


def anchors(document: Path) -> set[str]:
    """The anchors of a file.

    Of Markdown: headings in lower case, without punctuation, hyphenated. Of Python: the names of
    its functions and classes, which the site's pages of source have ("LIF.forward").
    """
    if document.suffix == ".py":
        return {name for name, _ in definitions(ast.parse(document.read_text(encoding="utf-8")))}
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
