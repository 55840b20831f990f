"""The frame of all pages: colours that can be read, tables that hold all their rows, names that stay text."""

import json
import re
from html.parser import HTMLParser
from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from builders.browser import NoBrowser, started_chromium
from segfw.base.figures import (
    FRAME,
    PALETTE,
    label_chip,
    label_color,
    label_dashes,
    label_marker,
    luminance,
    write_page,
)
from segfw.base.tables import LONG_ROWS, Column, Table

EVIL = "</script><img src=x onerror=alert(1)>&\"'"


class Elements(HTMLParser):
    """Every element of a page, as (tag, attributes), and the text of its table cells and scripts."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.found = []
        self.texts = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.texts.append("")

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data

    def of(self, tag):
        return [(attrs, text) for (name, attrs), text in zip(self.found, self.texts) if name == tag]


def page_of(tmp_path, table):
    template = tmp_path / "t.html.jinja"
    template.write_text(
        '{% extends "page.html.jinja" %}{% import "page_parts.html.jinja" as parts %}'
        "{% block main %}{{ parts.table(content) }}{% endblock %}"
    )
    write_page(tmp_path / "p.html", template, title="t", content=table)
    parser = Elements()
    parser.feed((tmp_path / "p.html").read_text(encoding="utf-8"))
    return parser


def color_sets():
    """The colours of page.css: light, and dark."""
    css = FRAME.with_name("page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root {([^}]*--.*?)}", css, re.S)[:2]
    )
    return {"light": light, "dark": dark}


def contrast(first, second):
    high, low = sorted((luminance(rgb(color)) for color in (first, second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def rgb(color):
    return tuple(int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))


def test_contrast_is_as_wcag_defines_it():
    assert contrast("#ffffff", "#000000") == 21
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the well-known grey just below AA


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_can_be_read_on_every_ground(mode):
    colors = color_sets()[mode]
    assert colors.keys() == color_sets()["light"].keys()
    for text in ("ink", "soft", "accent", "warn", "error"):
        for ground in ("paper", "wash", "hover"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
    for ground in ("badge-error", "badge-warning", "badge-note"):
        assert contrast(colors["badge-ink"], colors[ground]) >= 4.5, ground


# Machado, Oliveira and Fernandes 2009: linear RGB as seen by who lacks a kind of cone.
LACKING = {
    "long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "medium": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def cie_lab(linear):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    scaled = to_xyz @ np.clip(linear, 0, 1) / (0.9505, 1.0, 1.089)
    x, y, z = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("lacking", [None, *LACKING])
def test_the_first_labels_differ_for_every_eye(lacking):
    linear = [[p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in rgb(color)] for color in PALETTE]
    matrix = np.eye(3) if lacking is None else np.array(LACKING[lacking])
    seen = [cie_lab(matrix @ color) for color in linear]
    # 2.3 is a difference that is just noticed.
    for first, second in combinations(range(7), 2):
        assert np.linalg.norm(seen[first] - seen[second]) > 12, (PALETTE[first], PALETTE[second])


def test_labels_of_like_colour_differ_otherwise():
    cues = {(label_color(index), str(label_dashes(index)), label_marker(index)) for index in range(1, 101)}
    assert len(cues) == 100
    assert "color: #000000" in label_chip(7)  # yellow
    assert "color: #ffffff" in label_chip(2)  # blue


def test_few_rows_stand_in_the_page(tmp_path):
    table = Table(
        name="Cases",
        columns=[
            Column(title="Case", values=["a", EVIL], links={"a": "#picture-a"}, total="mean"),
            Column(title="HD95", values=[1.234, None], digits=2, unit="mm", notes=["1 to 2", ""], total="1.23"),
        ],
    )
    page = page_of(tmp_path, table)
    cells = [(attrs, text.strip()) for attrs, text in page.of("td")]
    assert [text for _, text in cells] == ["", "1.23", EVIL, "–", "mean", "1.23"]  # the first is a link
    assert ({"href": "#picture-a"}, "a") in page.of("a")
    assert [attrs.get("data-key") for attrs, _ in cells[:4]] == [None, "1.234", None, ""]
    assert [text.strip() for _, text in page.of("small")] == ["mm", "1 to 2"]
    assert not page.of("img")


def test_many_rows_are_data_and_complete(tmp_path):
    rows = LONG_ROWS + 1
    names = [f"case_{row % 3}" for row in range(rows - 1)] + [EVIL]
    values = [None, *(row / 1000 for row in range(1, rows))]
    table = Table(
        name="Cases",
        columns=[Column(title="Case", values=names, choose="All cases"), Column(title="Dice", values=values, digits=3)],
        elsewhere="They are in scores.csv.",
    )
    page = page_of(tmp_path, table)
    data = [json.loads(text) for attrs, text in page.of("script") if attrs.get("type") == "application/json"]
    assert len(data) == 1
    case, dice = data[0]["columns"]
    assert data[0]["rows"] == rows
    assert [case["names"][at] for at in case["at"]] == names
    assert (case["choose"], dice["digits"]) == ("All cases", 3)
    assert dice["values"] == [None, *range(1, rows)]
    assert not page.of("td")
    assert not page.of("img")


def test_numbers_of_no_fixed_digits_keep_the_first_ones():
    column = Column(title="Intensity", values=[1234.56, 0.00012345, None, float("nan")], significant=4)
    assert column.as_data() == {"values": [1235, 0.0001234, None, None]}
    assert column.shown(0) == "1235"
    large = Column(title="Area", unit="px", values=[24663.2, 9999.6], significant=4)
    assert [large.shown(0), large.shown(1)] == ["24663", "10000"]
    assert large.as_data() == {"values": [24663, 10000]}


def test_a_page_asks_nothing_of_the_network(tmp_path):
    page = page_of(tmp_path, Table(name="Cases", columns=[Column(title="Case", values=["a"])]))
    addresses = [attrs[name] for _, attrs in page.found for name in ("src", "href") if name in attrs]
    assert not [address for address in addresses if not address.startswith(("data:", "#"))]
    for name in ("page.css", "page.js"):
        assert not re.search(r"https?:|@import|url\(|fetch\(", FRAME.with_name(name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("width", [1400, 600, 400])
def test_a_plot_is_seen_whole_however_narrow_the_window(tmp_path, width):
    template = tmp_path / "t.html.jinja"
    template.write_text(
        '{% extends "page.html.jinja" %}{% import "page_parts.html.jinja" as parts with context %}'
        '{% block main %}{{ parts.picture(png, "a plot", plot=True) }}{% endblock %}'
    )
    drawn = BytesIO()
    Image.new("L", (1600, 400)).save(drawn, format="PNG")
    write_page(tmp_path / "p.html", template, title="t", png=drawn.getvalue())
    try:
        with started_chromium() as browser:
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.goto((tmp_path / "p.html").as_uri())
            box = page.locator("img.plot").bounding_box()
            page.close()
    except NoBrowser as lacking:
        pytest.skip(str(lacking))
    assert 0 <= box["x"] < box["x"] + box["width"] <= width
    assert box["width"] == pytest.approx(4 * box["height"], rel=0.01)
