"""The page in a real browser: no network, by mouse, by keyboard, without script, on paper."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colours import PALETTE, TEXT_ON, contrast
from page_results import HOSTILE, distances, make_record, pairs_result, write_bench

from evalkit.report.page import write_page, write_report
from evalkit.report.page.gather import of_results, of_signoff
from evalkit.verdict.signoff.record import Deployment


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    return write_page(folder / "report.html", make_record(folder), folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    names = {"name": HOSTILE, "file": HOSTILE, "sha256": HOSTILE, "preprocessing": {HOSTILE: 1}}
    paths = [folder / "a.json", folder / "b.json"]
    for path, backend in zip(paths, (HOSTILE, "torch"), strict=True):
        data = {"name": HOSTILE, "sha256": "d", "content_sha256": None, "counts": {}, "path": "x"}
        pairs_result(path, backend, "fp32", model=names, command=HOSTILE, dataset=data)
    write_bench(folder / "bench.json")
    report = of_results(paths, benches=[folder / "bench.json"], title=HOSTILE)
    return write_report(folder / f"{HOSTILE.replace('/', '')}.html", report)


def use_everything(page: Any) -> None:
    for tab in page.get_by_role("tab").all():
        tab.click()
        for button in page.locator("[data-zoom]:visible, [data-index]:visible").all():
            button.click()
        for chart in page.locator("svg.chart:visible").all():
            chart.hover()
    page.locator("#theme").click()


def rows(page: Any) -> list[list[str]]:
    return [
        [cell.inner_text() for cell in row.locator("td").all()]
        for row in page.locator("[data-threshold] tbody tr").all()
    ]


def expected(threshold: float, loss: float) -> list[str]:
    """What the definition gives, written as the page writes it."""
    scores = distances(loss)
    squared = scores["distances"]
    called = np.where(np.isfinite(squared), 1 - squared / 2, -np.inf) >= threshold
    wrong = int(np.count_nonzero(called & ~scores["issame"]))
    lost = int(np.count_nonzero(~called & scores["issame"]))
    return [
        f"{wrong / 400:.3e}",
        f"{wrong:,} of 400",
        f"{100 * lost / 200:.3f} %",
        f"{lost:,} of 200",
    ]


def test_it_opens_from_disk_without_a_word_or_a_request(open_page: Any, signed: Path) -> None:
    opened = open_page(signed)
    assert opened.page.get_by_role("heading", level=1).inner_text() == "FAIL"
    use_everything(opened.page)
    assert opened.said == []
    assert opened.requests == [signed.as_uri()]


def test_hostile_names_do_nothing(open_page: Any, hostile: Path) -> None:
    opened = open_page(hostile)
    use_everything(opened.page)
    assert opened.page.title() == f"NOT JUDGED: {HOSTILE}"
    assert opened.said == []
    assert len(opened.requests) == 1
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("script").count() == 2
    assert HOSTILE in opened.page.locator(".key").first.inner_text()


def test_script_that_is_not_the_pages_own_does_not_run(open_page: Any, signed: Path) -> None:
    page = open_page(signed).page
    ran = page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.owned = true";
            document.body.append(script);
            return window.owned === true;
        }"""
    )
    assert not ran


def test_the_slider_moves_the_numbers_and_they_are_those_of_the_scores(
    open_page: Any, signed: Path
) -> None:
    page = open_page(signed).page
    slider = page.get_by_role("slider", name=re.compile("Threshold"))
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    held = data["thresholds"]["p0"]
    losses = (0.0, 0.001, 0.8)
    assert rows(page) == [expected(held["thresholds"][held["start"]], loss) for loss in losses]
    seen = set()
    for place in (0, 40, 150, len(held["thresholds"]) - 1):
        slider.fill(str(place))
        threshold = held["thresholds"][place]
        assert rows(page) == [expected(threshold, loss) for loss in losses]
        assert slider.get_attribute("aria-valuetext") == f"{threshold:.5f}"
        seen.add(str(rows(page)))
    assert len(seen) == 4
    page.get_by_role("button", name="accuracy/exact").click()
    assert rows(page)[0] == expected(0.4, 0.0)


def test_the_threshold_shows_in_the_curves(open_page: Any, signed: Path) -> None:
    page = open_page(signed).page
    level = page.locator("#p0-scores-0 .level")
    spots = page.locator("#p0-roc .over .spot")
    before = level.get_attribute("d"), spots.first.get_attribute("cx")
    assert spots.count() == 3
    page.get_by_role("slider").press("ArrowRight")
    page.get_by_role("slider").press("PageUp")
    assert level.get_attribute("d") != before[0]
    assert spots.first.get_attribute("cx") != before[1]


def test_hovering_reads_the_values_of_every_run(open_page: Any, signed: Path) -> None:
    page = open_page(signed).page
    chart, readout = page.locator("#p0-roc"), page.locator("[data-chart=p0-roc] .readout")
    chart.scroll_into_view_if_needed()
    chart.hover()
    text = readout.inner_text()
    for name in ("onnxruntime:fp32", "onnxruntime:fp16", "onnxruntime:int8"):
        assert name in text
    page.locator("h1").hover()
    assert readout.inner_text() == ""


def test_dragging_zooms_and_reset_goes_back(open_page: Any, signed: Path) -> None:
    page = open_page(signed).page
    chart = page.locator("#p0-det")
    chart.scroll_into_view_if_needed()
    axes = chart.locator(".axes")
    whole, box = axes.inner_html(), chart.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.7 * box["height"], steps=4)
    page.mouse.up()
    assert axes.inner_html() != whole
    assert chart.locator(".data").get_attribute("transform").startswith("matrix(")
    page.get_by_role("button", name=re.compile("Show all of DET")).click()
    assert axes.inner_html() == whole


def test_zooming_keeps_points_where_the_axis_says(open_page: Any, signed: Path) -> None:
    """A curve's point and the tick of its value move alike."""
    page = open_page(signed).page
    moved = page.evaluate(
        """() => {
            const svg = document.getElementById("p0-roc");
            const places = () => {
                const x = [...svg.querySelectorAll(".axes text")]
                    .find((t) => t.textContent === "10⁻¹").getAttribute("x");
                const dot = svg.querySelector(".dot");
                const at = new DOMPoint(...dot.getAttribute("d").match(/[\\d.]+/g).map(Number))
                    .matrixTransform(svg.querySelector(".data").getCTM())
                    .matrixTransform(svg.getCTM().inverse());
                return [Number(x), at.x];
            };
            const before = places();
            svg.dispatchEvent(new KeyboardEvent("keydown", { key: "+" }));
            const after = places();
            return [before, after];
        }"""
    )
    (tick, dot), (tick_after, dot_after) = moved
    assert tick_after != pytest.approx(tick)
    # About the middle of the plot everything grows by the same factor.
    factor = 1 / 0.6
    assert dot_after - tick_after == pytest.approx((dot - tick) * factor, abs=0.2)


def test_everything_works_by_keyboard(open_page: Any, signed: Path, hostile: Path) -> None:
    page = open_page(signed).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    chart = page.locator("#p0-roc")
    chart.focus()
    page.keyboard.press("ArrowRight")
    readout = page.locator("[data-chart=p0-roc] .readout")
    assert readout.inner_text().startswith("at ")
    page.keyboard.press("Escape")
    assert readout.inner_text() == ""
    page.keyboard.press("+")
    assert chart.locator(".data").get_attribute("transform")
    page.locator(".key").nth(2).focus()
    page.keyboard.press("Enter")
    assert page.locator("#p0-roc .data .off").count() > 0
    assert page.locator(".key").nth(2).get_attribute("aria-pressed") == "false"

    tabs = open_page(hostile).page
    first, second = (tabs.get_by_role("tab").nth(place) for place in (0, 1))
    first.focus()
    tabs.keyboard.press("ArrowRight")
    assert second.get_attribute("aria-selected") == "true"
    assert tabs.evaluate("document.activeElement.id") == second.get_attribute("id")
    assert tabs.locator("#panel-speed").is_visible()
    assert tabs.locator("#panel-g0").is_hidden()
    tabs.keyboard.press("Home")
    assert tabs.locator("#panel-g0").is_visible()


def test_it_can_be_read_without_script(open_page: Any, signed: Path, hostile: Path) -> None:
    page = open_page(signed, java_script_enabled=False).page
    assert page.get_by_role("heading", level=1).inner_text() == "FAIL"
    assert page.locator("#p0-roc .curve").count() == 3
    assert page.locator("input").is_hidden()
    assert rows(page) == [expected(0.4, loss) for loss in (0.0, 0.001, 0.8)]
    page.locator("summary", has_text="settings").click()
    assert page.get_by_text("kernels").first.is_visible()
    both = open_page(hostile, java_script_enabled=False).page
    assert both.locator("#panel-g0").is_visible()
    assert both.locator("#panel-speed").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_browser_uses_the_colours_whose_contrast_is_enough(
    open_page: Any, signed: Path, scheme: Any
) -> None:
    page = open_page(signed, color_scheme=scheme).page
    found = page.evaluate(
        """(names) => {
            const style = getComputedStyle(document.documentElement);
            return Object.fromEntries(names.map((n) => [n, style.getPropertyValue("--" + n)]));
        }""",
        list(PALETTE[scheme]),
    )
    assert found == PALETTE[scheme]
    assert all(contrast(found[text], found[ground]) >= 4.5 for text, ground in TEXT_ON)
    drawn = page.evaluate("getComputedStyle(document.querySelector('.said h1')).color")
    assert drawn == rgb(PALETTE[scheme]["fail"])


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))})"


def test_the_toggle_overrules_the_system(open_page: Any, signed: Path) -> None:
    page = open_page(signed, color_scheme="light").page
    button = page.locator("#theme")
    grounds = []
    for _ in range(3):
        button.click()
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = rgb(PALETTE["light"]["page"]), rgb(PALETTE["dark"]["page"])
    assert grounds == [light, dark, light]
    assert button.get_attribute("aria-label") == "Colours: as the system has them"


def test_paper_is_light_and_shows_every_part(open_page: Any, hostile: Path) -> None:
    page = open_page(hostile, color_scheme="dark").page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    ink = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ink')")
    assert ink == PALETTE["light"]["ink"]
    for panel in ("#panel-g0", "#panel-speed"):
        assert page.locator(panel).is_visible()
    assert page.locator("#theme").is_hidden()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_reaches_out_of_the_window(open_page: Any, hostile: Path, width: int) -> None:
    page = open_page(hostile, viewport={"width": width, "height": 800}).page
    for tab in page.get_by_role("tab").all():
        tab.click()
        over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert over <= 0


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sign-off of four protocols, each with every column, and with long tags."""
    folder = tmp_path_factory.mktemp("wide")
    record = make_record(folder)
    names = [f"pairs {n}" for n in range(4)]
    cells = []
    for cell in record.cells:
        assert cell.run is not None
        update = {"precision_ran": "fp32 (fp16 weights)"} if cell.precision == "fp16" else {}
        run = cell.run.model_copy(update={"ran": cell.run.ran.model_copy(update=update)})
        rates = Deployment(
            **dict.fromkeys(("fmr_reference", "fmr", "fnmr_reference", "fnmr"), 0.01),
            **dict.fromkeys(("fmr_ratio_interval", "fnmr_change_interval")),
            **{"metric": "tar@far=1e-01", "threshold": 0.4, "fmr_ratio": 1, "fnmr_change": 0},
        )
        cells.append(cell.model_copy(update={"run": run, "deployment": rates}))
    (protocol,), (planned,) = record.protocols, record.plan.protocols
    planned_all = [planned.model_copy(update={"name": name}) for name in names]
    several = record.model_copy(
        update={
            "cells": tuple(c.model_copy(update={"protocol": n}) for n in names for c in cells),
            "protocols": tuple(protocol.model_copy(update={"name": name}) for name in names),
            "plan": record.plan.model_copy(update={"protocols": tuple(planned_all)}),
        }
    )
    benches = [write_bench(folder / "bench.json")]
    return write_report(folder / "report.html", of_signoff(several, folder, benches=benches))


_CUT = """(name) => [...document.querySelectorAll(name)]
    .filter((table) => table.offsetWidth)
    .map((table) => table.offsetWidth - table.closest(".scroll").clientWidth)"""


def test_no_column_of_the_first_tables_is_cut(open_page: Any, wide: Path) -> None:
    page = open_page(wide).page
    assert page.locator(".glance .alarm").count() > 0
    assert page.locator(".matrix").first.locator("thead th").count() > 14
    assert page.evaluate(_CUT, ".glance") == [0]
    assert page.evaluate(_CUT, ".matrix") == [0]


def test_no_column_is_cut_on_paper(open_page: Any, wide: Path) -> None:
    # A4 across, less its margins.
    page = open_page(wide, viewport={"width": 1039, "height": 720}).page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    over = page.evaluate(_CUT, ".scroll table")
    assert len(over) > 8
    assert max(over) <= 0


def test_one_batch_size_has_bars_that_can_be_hidden(open_page: Any, tmp_path: Path) -> None:
    pairs_result(tmp_path / "a.json", "onnxruntime", "fp32")
    bench = write_bench(tmp_path / "bench.json")
    timings = tuple(timing for timing in bench.timings if timing.batch_size == 1)
    report = replace(
        of_results([tmp_path / "a.json"]), benches=(bench.model_copy(update={"timings": timings}),)
    )
    page = open_page(write_report(tmp_path / "report.html", report)).page
    page.get_by_role("tab", name="speed").click()
    bars = page.locator("#b0-rate [data-run]")
    assert [bar.is_visible() for bar in bars.all()] == [True, True]
    page.locator("#panel-speed .key").nth(1).click()
    assert [bar.is_visible() for bar in bars.all()] == [True, False]


def test_the_longest_verdict_stays_in_one_line(open_page: Any, signed: Path) -> None:
    page = open_page(signed, viewport={"width": 360, "height": 800}).page
    heading = page.get_by_role("heading", level=1)
    short = heading.bounding_box()["height"]
    heading.evaluate("(h) => { h.textContent = 'INCONCLUSIVE'; }")
    assert heading.bounding_box()["height"] == short


def test_labels_of_an_axis_do_not_overlap(open_page: Any, signed: Path) -> None:
    page = open_page(signed).page
    for chart in page.locator("svg.chart").all():
        boxes = [t.bounding_box() for t in chart.locator(".axes text").all()]
        for a, b in itertools.combinations(boxes, 2):
            apart = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
            apart |= a["y"] + a["height"] <= b["y"] + 2 or b["y"] + b["height"] <= a["y"] + 2
            assert apart
