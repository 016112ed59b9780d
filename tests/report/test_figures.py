"""Figures are small, reproducible, colored by the page, and show their data."""

import csv
import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from rmploss.analysis import Histogram
from rmploss.report import class_figures, figures
from rmploss.report.drawing import CSS, Drawing, light
from tests.report.folders import membrane, predictions

HISTOGRAM = Histogram.from_json(membrane("lif2"))
LINES = [(0, "a", [1, 2, 3], [0.1, 0.2, 0.4]), (1, "b", [1], [0.3])]
PREDICTIONS = predictions()
DRAWINGS = {
    "curve": figures.curve("curve", "accuracy", LINES, 8),
    "membrane": figures.membrane("membrane", HISTOGRAM, 1, 2.0),
    "thumbnail": figures.thumbnail("lif2", [(0, "a", HISTOGRAM), (7, "b", HISTOGRAM)]),
    "confusion": class_figures.confusion("confusion", PREDICTIONS, 1),
}
DRAWN = {name: drawing.inline for name, drawing in DRAWINGS.items()}
EXAMPLES = [
    class_figures.example("example", each, PREDICTIONS.names) for each in PREDICTIONS.examples
]


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_svg_without_scripts_in_the_colors_of_the_page(name: str) -> None:
    svg = DRAWN[name]()
    root = ElementTree.fromstring(str(svg))
    assert root.get("role") == "img"
    assert "viewBox" in root.attrib
    assert not re.search(r"http|xlink|id=|font-family|#[0-9a-f]{6}|<script|<image", svg)
    assert len(svg) < 20_000


@pytest.mark.parametrize("name", DRAWN)
def test_it_is_the_same_every_time_whatever_the_settings_of_matplotlib(name: str) -> None:
    first = DRAWN[name]()
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert DRAWN[name]() == first
        assert mpl.rcParams["font.size"] == 30


def test_each_line_has_its_own_color_and_a_dot_at_its_end() -> None:
    svg = DRAWN["curve"]()
    assert svg.count("var(--hue-0)") == 2  # the line, and the dot
    assert svg.count("var(--hue-1)") == 2
    assert svg.count("stroke-width: 6") == 2


def test_the_membrane_says_what_its_axis_is_and_where_it_fires() -> None:
    histogram = Histogram.from_json(membrane("lif2", v_threshold=0.75))
    svg = figures.membrane("", histogram, 0, 2.0).inline()
    texts = [element.text for element in ElementTree.fromstring(str(svg)).iter("text")]
    expected = {
        "membrane potential before the reset, u_pre (dimensionless)",
        "density",
        "threshold 0.75",
        "silent",
        "fires",
        "o = 0",
        "o = 1",
    }
    assert expected <= set(texts)


def test_equal_tops_give_equal_scales() -> None:
    half = Histogram("lif2", 0.5, tuple(count // 2 for count in HISTOGRAM.counts), 19950, 100)
    ticks = [
        re.findall(r'y="([\d.]+)">(\d\.\d)<', figures.membrane("", h, 0, 3.0).inline())
        for h in (HISTOGRAM, half)
    ]
    assert ticks[0] == ticks[1] != []
    drawn = [figures.membrane("", h, 0, 3.0).inline() for h in (HISTOGRAM, half)]
    assert drawn[0] != drawn[1]


def test_a_hostile_label_stays_text() -> None:
    hostile = '"><script>x</script> $\\frac$'
    drawing = figures.thumbnail("", [(0, "", Histogram.from_json(membrane(hostile)))])
    names = [hostile, *PREDICTIONS.names[1:]]
    matrix = class_figures.confusion("", replace(PREDICTIONS, names=tuple(names)), 0)
    assert not any("<script" in each.inline() for each in (drawing, matrix))


def test_a_confusion_matrix_has_a_cell_with_its_number_for_every_pair() -> None:
    root = ElementTree.fromstring(str(DRAWN["confusion"]()))
    texts = [element.text for element in root.iter("text")]
    assert [text for text in texts if text in ("9", "1", "10")] == ["9", "1", "10"]
    cells = [path for path in root.iter("path") if "hue-1" in path.get("style", "")]
    assert [re.findall(r"opacity: ([\d.]+)", cell.get("style", "")) for cell in cells] == [
        ["0.9"], ["0.1"], []
    ]  # fmt: skip


@pytest.mark.parametrize("drawing", EXAMPLES, ids=["image", "events"])
def test_an_example_shows_its_input_and_a_map_of_every_step(drawing: Drawing) -> None:
    root = ElementTree.fromstring(str(drawing.inline()).replace("xlink:href", "href"))
    hrefs = [image.get("href", "") for image in root.iter("image")]
    assert len(hrefs) == (5 if drawing is EXAMPLES[0] else 8)
    assert all(href.startswith("data:image/png;base64,") for href in hrefs)
    assert list(drawing.columns) == ["t", "lif1"]


@pytest.mark.parametrize("drawing", [*DRAWINGS.values(), *EXAMPLES])
def test_the_files_of_a_figure_are_its_picture_twice_and_its_numbers(drawing: Drawing) -> None:
    found = drawing.files()
    assert found == drawing.files()
    assert [name.rpartition(".")[2] for name in found] == ["svg", "png", "csv"]
    svg, png, table = found.values()
    ElementTree.fromstring(svg)
    assert not any(color.encode() in svg for color in CSS)
    assert light().muted.encode() in svg or b"<image" in svg
    assert png.startswith(b"\x89PNG")
    rows = list(csv.reader(io.StringIO(table.decode())))
    assert rows[0] == list(drawing.columns)
    assert len(rows) == 1 + len(next(iter(drawing.columns.values())))
