"""The charts of speed measurements: over the batch size, and as bars where there is one size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from evalkit.bench import BenchResult, Timing
from evalkit.report.page.chart import nice_step, run_class
from evalkit.tasks.panels import Axis, Chart, Dots, Line

Series = dict[tuple[int, str], list[Timing]]
"""Timings by number and name of the run, in the order of their batch sizes."""

Unit = Literal["images/s", "p50, ms"]
_RATE: Final[Unit] = "images/s"
_TIME: Final[Unit] = "p50, ms"
_SPREAD: Final[dict[Unit, str]] = {_RATE: "lowest to highest round", _TIME: "p50 to p99"}

_WIDE = 268
"""Of the longest bar."""


@dataclass(frozen=True, slots=True)
class SpeedBars:
    """One bar a mode.

    Attributes
    ----------
    key : str
        Unique in the page.
    title, unit, spread : str
    rows : tuple of (int, str, float, float, float)
        Number and name of the run, its value, and the low and high end of its spread.
    """

    key: str
    title: str
    unit: Unit
    spread: str
    rows: tuple[tuple[int, str, float, float, float], ...]

    @property
    def note(self) -> str:
        """How to read it."""
        better = "longer is faster" if self.unit == _RATE else "shorter is faster"
        return f"{self.unit}; {better}; thin lines: {self.spread}"

    @property
    def words(self) -> str:
        """What it shows, for those who do not see it."""
        return "; ".join(f"{name} {value:.3g}" for _, name, value, _, _ in self.rows)

    @property
    def bars(self) -> Iterator[tuple[int, str, str, float, float, float, float]]:
        """Run, classes, name, value, and where value and spread end in the picture."""
        scale = _WIDE / max(high for *_, high in self.rows)
        for run, name, value, low, high in self.rows:
            yield run, run_class(run), name, value, scale * value, scale * low, scale * high


def bench_charts(benches: Sequence[BenchResult], modes: Sequence[str]) -> list[Chart]:
    """Return throughput and latency by batch size, of what was measured at several.

    Parameters
    ----------
    benches : sequence of BenchResult
    modes : sequence of str
        ``backend:precision`` in the order of the page's letters.
    """
    charts = []
    for number, bench in enumerate(benches):
        series, named = _series(bench, modes), _named(bench, benches)
        marked = tuple(float(batch) for batch in _batches(series))
        if len(marked) < 2:
            continue
        x = Axis("batch size", marked[0] / 1.3, marked[-1] * 1.3, log=True, marked=marked)
        charts += [
            _speed_chart(f"b{number}-rate", f"Throughput{named}", _RATE, x, series),
            _speed_chart(f"b{number}-time", f"Latency of a batch{named}", _TIME, x, series),
        ]
    return charts


def bench_bars(benches: Sequence[BenchResult], modes: Sequence[str]) -> list[SpeedBars]:
    """Return throughput and latency as a bar a mode, of what was measured at one batch size.

    Over the batch size all its points would stand in a column.

    Parameters
    ----------
    benches : sequence of BenchResult
    modes : sequence of str
        ``backend:precision`` in the order of the page's letters.
    """
    pictures = []
    for number, bench in enumerate(benches):
        series, named = _series(bench, modes), _named(bench, benches)
        batches = _batches(series)
        if len(batches) != 1:
            continue
        for part, name, unit in (("rate", "Throughput", _RATE), ("time", "Latency", _TIME)):
            rows = [(*key, *_figures(timings[0], unit)) for key, timings in series.items()]
            title = f"{name}{named}, batch size {batches[0]}"
            pictures.append(SpeedBars(f"b{number}-{part}", title, unit, _SPREAD[unit], tuple(rows)))
    return pictures


def bench_modes(benches: Sequence[BenchResult], modes: Sequence[str]) -> list[str]:
    """Return the modes of the page, those that only speed measurements have at the end."""
    own = (f"{t.backend}:{t.precision}" for bench in benches for t in bench.timings)
    return list(dict.fromkeys([*modes, *own]))


def _named(bench: BenchResult, benches: Sequence[BenchResult]) -> str:
    return f" of {bench.model}" if len(benches) > 1 else ""


def _batches(series: Series) -> list[int]:
    return sorted({timing.batch_size for timings in series.values() for timing in timings})


def _series(bench: BenchResult, modes: Sequence[str]) -> Series:
    known = list(modes)
    series: Series = {}
    for timing in bench.timings:
        if timing.images_per_second is None:
            continue
        mode = f"{timing.backend}:{timing.precision}"
        threads = f", {timing.threads} threads" if timing.threads is not None else ""
        name = f"{mode}{threads}"
        series.setdefault((known.index(mode), name), []).append(timing)
    return {key: sorted(rows, key=lambda timing: timing.batch_size) for key, rows in series.items()}


def _speed_chart(key: str, title: str, unit: Unit, x: Axis, series: Series) -> Chart:
    items: list[Line | Dots] = []
    words = []
    for (run, name), timings in series.items():
        size = np.array([float(timing.batch_size) for timing in timings])
        value, low, high = np.array([_figures(timing, unit) for timing in timings]).T
        items += [Line(name, run, size, value), Dots(name, run, size, value, low, high)]
        words.append(f"{name}: {', '.join(f'{v:.3g}' for v in value)}")
    spread = _SPREAD[unit]
    return Chart(
        key,
        title,
        f"{title} in {unit} by batch size; bars from the {spread}. {'; '.join(words)}.",
        x,
        _speed_axis(unit, spread, items),
        tuple(items),
    )


def _speed_axis(unit: Unit, spread: str, items: Iterable[Line | Dots]) -> Axis:
    dots = [item for item in items if isinstance(item, Dots)]
    top = max(float(item.high.max()) for item in dots)
    label = f"{unit} (bars: {spread})"
    if unit != _RATE:  # batches of 1 and of 32 lie far apart
        least = min(float(item.low.min()) for item in dots)
        return Axis(label, least / 1.5, top * 1.5, log=True)
    step = nice_step(top / 5)
    return Axis(label, 0.0, float(step * np.ceil(1.04 * top / step)))


def _figures(timing: Timing, unit: Unit) -> tuple[float, float, float]:
    rate, latency = timing.images_per_second, timing.latency_ms
    if rate is None or latency is None:
        raise AssertionError("a configuration that did not run has no series")
    if unit == _RATE:
        return rate.median, rate.low, rate.high
    return latency.p50, latency.p50, latency.p99
