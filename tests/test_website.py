"""The documentation site: docstrings as Markdown, pages, the links between them, their check."""

from pathlib import Path

import pytest
from website import api, check, docstrings, methods, pages, sources

ROOT = Path(__file__).parent.parent


def plain(name: str) -> str:
    return f"`{name}`"


def test_a_docstring_has_sentences_arguments_and_code() -> None:
    text = """L_RMP of |o - u|^p, `[4, C]`.

    u = decay * u + x    (1)

    o = 1

k: amplitude of *every* layer,
    see `RMPLoss`.
include, exclude: names ("*.lif1").

Raises `UserError`: never."""
    assert docstrings.to_markdown(text, plain) == (
        "L\\_RMP of \\|o - u\\|\\^p, `[4, C]`.\n\n"
        "    u = decay * u + x    (1)\n\n    o = 1\n\n"
        "* `k`: amplitude of \\*every\\* layer, see `RMPLoss`.\n"
        '* `include`, `exclude`: names ("\\*.lif1").\n\n'
        "Raises `UserError`: never."
    )


def test_every_document_is_a_page() -> None:
    written = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert written <= {*pages.documents()}
    places = [*pages.documents().values(), *methods.titles().values(), *api.titles().values()]
    assert len(places) == len(set(places))
    assert all(f'"{place}"' in pages.navigation() for place in places)


def test_every_public_name_leads_to_its_docstring() -> None:
    import rmploss

    index = api.pages()["api/index.md"]
    for name in rmploss.__all__:
        assert f"[`rmploss.{name}`](site:api/" in index
    assert "(site:api/objectives.md#objectives.rmp.RMPLoss)" in index
    page = api.pages()["api/objectives.md"]
    assert "### RMPLoss { #objectives.rmp.RMPLoss }" in page
    assert "* `k`: amplitude of lambda(n), dimensionless." in page
    assert "        k: float = 0.1," not in page.split("{ #objectives.rmp.RMPLoss }")[0]


def test_a_source_has_an_anchor_for_every_line_and_name() -> None:
    text = sources.page(ROOT / "src" / "rmploss" / "objectives" / "rmp.py")
    assert '<a id="RMPLoss.of_layers"></a><span class="line" id="L' in text
    assert 'href="../../../../index.html"' in text


def test_the_page_of_a_method_has_its_card_and_its_numbers() -> None:
    page = methods.page("rmp")
    assert page.startswith("# RMP-Loss\n")
    assert "| 1 | `cifar10-resnet20-rmp` | 4 | 91.89 | 0.121 |" in page
    listed = methods.without_cards((ROOT / "docs" / "methods.md").read_text(encoding="utf-8"))
    assert "| [`tet`](site:methods/tet.md) |" in listed
    assert "### " not in listed


def test_what_is_wrong_in_a_site_is_named(tmp_path: Path) -> None:
    good = '<h1 id="top">x</h1><a href="b.html#here">y</a><a href="https://arxiv.org/abs/1">z</a>'
    (tmp_path / "a.html").write_text(good, encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="here"><a href="a.html">x</a>', encoding="utf-8")
    assert [*check.problems(tmp_path)] == []
    (tmp_path / "a.html").write_text(
        '<a href="b.html#gone">x</a><a href="c.html">y</a><img src="d.png">'
        '<script src="https://cdn.example/x.js"></script>',
        encoding="utf-8",
    )
    assert [*check.problems(tmp_path)] == [
        "a.html fetches https://cdn.example/x.js",
        "a.html: b.html#gone has no such heading",
        "a.html: c.html is not there",
        "a.html: d.png is not there",
    ]


class TestStage:
    """The folder that the site is built from; it needs what `pip install '.[docs]'` brings."""

    @pytest.fixture(autouse=True)
    def _needs_docs(self) -> None:
        pytest.importorskip("latex2mathml", reason="needs pip install '.[docs]'")

    def test_the_markdown_of_github_becomes_that_of_the_site(self) -> None:
        from website.stage import dialect

        text = "<!-- table1 -->\nSee:\n* a\n  b\n* c\n\n```\nd:\n* e\n```\n```math\nu^2\n```\n"
        assert dialect(text).startswith("\nSee:\n\n* a\n  b\n* c\n\n```\nd:\n* e\n```\n")
        assert '<div class="formula"><math ' in dialect(text)

    def test_links_lead_to_pages_and_sources(self, tmp_path: Path) -> None:
        from website.stage import Stage

        staged = Stage(tmp_path)
        text = (
            "[a](../README.md#try-it) [b](../src/rmploss/stats.py#membrane_stats) "
            "[c](site:methods/tet.md) ![d](img/demo.png) [e](#here) [f](https://arxiv.org/a)"
        )
        staged.write_page("methods/x.md", text, ROOT / "docs")
        assert (tmp_path / "methods" / "x.md").read_text(encoding="utf-8") == (
            "[a](../index.md#try-it) "
            "[b](../source/src/rmploss/stats.py.html#membrane_stats) "
            "[c](tet.md) ![d](../img/demo.png) [e](#here) [f](https://arxiv.org/a)"
        )
        assert (tmp_path / "img" / "demo.png").is_file()
        assert staged.sources == {ROOT / "src" / "rmploss" / "stats.py"}

    def test_a_link_to_nothing_is_named(self, tmp_path: Path) -> None:
        from website.stage import Stage

        with pytest.raises(SystemExit, match=r"docs/gone\.md"):
            Stage(tmp_path).write_page("x.md", "[a](gone.md)", ROOT / "docs")
