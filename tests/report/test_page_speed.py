"""Speed over the batch size, and as bars where there is one size."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from page_results import HOSTILE, write_bench

from evalkit.bench import BenchResult
from evalkit.report.page.speed import SpeedBars, bench_bars, bench_charts, bench_modes
from evalkit.report.page.writing import templates


def one_size(bench: BenchResult) -> BenchResult:
    timings = tuple(timing for timing in bench.timings if timing.batch_size == 1)
    return bench.model_copy(update={"timings": timings})


def drawn(picture: SpeedBars) -> str:
    return str(templates().get_template("macros.html").module.bars(picture)).strip()


def test_one_batch_size_is_drawn_as_bars(tmp_path: Path) -> None:
    many = write_bench(tmp_path / "bench.json")
    names = bench_modes([many], [])
    assert len(bench_charts([many], names)) == 2
    assert bench_bars([many], names) == []

    bench = one_size(many)
    assert bench_charts([bench], names) == []
    rate, time = bench_bars([bench], names)
    assert [row[2:] for row in rate.rows] == [(100.0, 91.0, 109.0), (210.0, 201.0, 219.0)]
    assert [row[2:] for row in time.rows] == [(9.0, 9.0, 12.0)] * 2
    root = ET.fromstring(drawn(rate))
    short, long = (float(rect.attrib["width"]) for rect in root.iter("rect"))
    assert long / short == pytest.approx(2.1, abs=0.01)
    letters = [part.text for part in root.iter("tspan")]
    assert letters == ["A", "B"]


def test_bars_hold_hostile_and_long_names(tmp_path: Path) -> None:
    bench = one_size(write_bench(tmp_path / "bench.json"))
    timings = tuple(t.model_copy(update={"backend": HOSTILE}) for t in bench.timings)
    hostile = bench.model_copy(update={"timings": timings, "model": HOSTILE})
    for picture in bench_bars([hostile, hostile], bench_modes([hostile], [])):
        root = ET.fromstring(drawn(picture))
        assert HOSTILE in (root.findtext(".//title") or "")
        assert not list(root.iter("img"))
        assert not list(root.iter("script"))
