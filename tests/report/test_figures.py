"""Figures are small, reproducible, colored by the page, and show their data."""

import re
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from rmploss.analysis import Histogram
from rmploss.report import figures
from tests.report.folders import membrane

HISTOGRAM = Histogram.from_json(membrane("lif2"))
LINES = [(0, [1, 2, 3], [0.1, 0.2, 0.4]), (1, [1], [0.3])]
DRAWN = {
    "curve": lambda: figures.curve("accuracy", LINES, 8),
    "membrane": lambda: figures.membrane(HISTOGRAM, 1, 2.0),
    "thumbnail": lambda: figures.thumbnail([(0, HISTOGRAM), (7, HISTOGRAM)]),
}


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
    svg = figures.membrane(Histogram.from_json(membrane("lif2", v_threshold=0.75)), 0, 2.0)
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
        re.findall(r'y="([\d.]+)">(\d\.\d)<', figures.membrane(h, 0, 3.0))
        for h in (HISTOGRAM, half)
    ]
    assert ticks[0] == ticks[1] != []
    assert figures.membrane(HISTOGRAM, 0, 3.0) != figures.membrane(half, 0, 3.0)


def test_a_hostile_label_stays_text() -> None:
    svg = figures.thumbnail([(0, Histogram.from_json(membrane('"><script>x</script>')))])
    assert "<script" not in svg
