"""Charts, small pictures and colours of the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from colours import PALETTE, TEXT_ON, contrast
from hypothesis import given
from hypothesis import strategies as st
from page_results import HOSTILE

from evalkit.report.page.chart import Drawing, place, ticks
from evalkit.report.page.forest import Scale, forest
from evalkit.report.page.writing import templates
from evalkit.tasks.panels import Axis, Bars, Chart, Dots, Line, Mark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(scheme: Any) -> None:
    colours = PALETTE[scheme]
    for text, ground in TEXT_ON:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_both_schemes_have_the_same_colours() -> None:
    assert PALETTE["light"].keys() == PALETTE["dark"].keys()


@pytest.mark.parametrize(
    ("axis", "texts"),
    [
        (Axis("", 0, 1), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (Axis("", 0.9, 1, percent=True), ["90", "92", "94", "96", "98", "100"]),
        (Axis("", 5e-4, 1, log=True), ["10⁻³", "10⁻²", "10⁻¹", "1"]),
        (Axis("", 2, 9, log=True), ["2", "5"]),
        (Axis("", 1, 40, log=True, marked=(1, 8, 32)), ["1", "8", "32"]),
    ],
)
def test_ticks(axis: Axis, texts: list[str]) -> None:
    assert [text for _, text in ticks(axis)] == texts


@given(st.floats(1e-9, 1e-3), st.floats(1e-2, 1e3))
def test_ticks_lie_on_the_axis(low: float, high: float) -> None:
    for log in (False, True):
        axis = Axis("", low, high, log=log)
        places = [float(place(axis, value)) for value, _ in ticks(axis)]
        assert places
        assert all(-1e-6 <= at <= 1 + 1e-6 for at in places)


def drawing(title: str = "A chart") -> Drawing:
    x = np.array([1e-3, 1e-2, 1.0])
    nothing = np.full(3, np.nan)
    chart = Chart(
        "k",
        title,
        "What it shows",
        Axis("FAR", 1e-4, 1, log=True),
        Axis("TAR", 0, 1),
        (
            Line("a", 0, x, x, step=True),
            Bars("genuine", 1, np.array([0.1, 0.2, 0.4]), np.array([0.5, 0.1]), "genuine"),
            Dots("a", 0, x, x, nothing, nothing, [True, False, False]),
            Mark(0.5, title),
        ),
    )
    return Drawing(chart)


def test_a_chart_is_svg_that_says_what_it_shows() -> None:
    root = ET.fromstring(str(drawing(HOSTILE).svg()))
    assert root.get("role") == "img"
    assert root.find("title").text == HOSTILE  # type: ignore[union-attr]
    assert root.find("desc").text == "What it shows"  # type: ignore[union-attr]
    assert root.get("aria-labelledby") == "k-t k-d"
    assert "nan" not in str(drawing().svg())


def test_a_step_line_keeps_its_value_until_the_next_point() -> None:
    curve = next(path for path in re.findall(r'class="curve"[^>]* d="([^"]+)"', drawing().svg()))
    assert re.fullmatch(r"M[\d.]+ [\d.]+(H[\d.]+V[\d.]+){2}", curve)


def test_a_change_beyond_the_picture_is_an_arrow_and_says_so() -> None:
    draw = templates().get_template("macros.html").module.forest
    inside = draw(forest(Scale(-0.1, 0.05), -0.01, (-0.02, 0.0), 0.02, "pass"))
    beyond = draw(forest(Scale(-0.1, 0.05), -0.8, (-0.9, -0.7), 0.02, "fail"))
    assert "<circle" in inside
    assert "<circle" not in beyond
    assert "beyond this picture" in beyond
    assert "change -80.000 points, margin -2, bounds -90.000 to -70.000" not in inside
    assert "margin -2, bounds -2.000 to +0.000" in inside
