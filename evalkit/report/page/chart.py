"""A small writer of charts: SVG that needs no script, and the numbers by which one can zoom it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from evalkit.tasks.panels import Axis, Bars, Chart, Dots, Item, Line, Mark

Values = npt.NDArray[np.floating[Any]]

WIDTH, HEIGHT = 520, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 44
_WIDE, _HIGH = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
SERIES = 6
"""Colours of runs. With five kinds of dashes, thirty runs look different."""
DASHES = 5
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def place(axis: Axis, values: npt.ArrayLike) -> Values:
    """Return where values lie, 0 to 1; what a logarithm cannot take lies at the low end."""
    numbers, low, high = np.asarray(values, np.float64), axis.low, axis.high
    if axis.log:
        numbers, low, high = np.log10(np.maximum(numbers, low)), math.log10(low), math.log10(high)
    placed: Values = (numbers - low) / (high - low)
    return placed


def ticks(axis: Axis) -> list[tuple[float, str]]:
    """Return the values to mark on an axis, with their texts."""
    if axis.marked:
        return [(value, f"{value:g}") for value in axis.marked]
    if axis.log:
        return _decades(axis.low, axis.high)
    factor = 100 if axis.percent else 1
    low, high = factor * axis.low, factor * axis.high
    step = nice_step((high - low) / 5)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    values = [(first + number) * step for number in range(count)]
    return [(value / factor, f"{value:.{digits}f}") for value in values]


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    first = math.ceil(math.log10(low) - 1e-9)
    last = math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first) / 7))
    if last - first < 1:  # less than a decade has no two powers of ten
        powers = range(math.floor(math.log10(low)), last + 1)
        values = [m * 10.0**power for power in powers for m in (1, 2, 5)]
        return [(v, f"{v:g}") for v in values if low <= v * (1 + 1e-9) <= high * 1.01]
    return [(10.0**power, _power(power)) for power in range(first, last + 1, every)]


def _axis_spec(axis: Axis) -> dict[str, Any]:
    return {"low": axis.low, "high": axis.high, "log": axis.log, "percent": axis.percent}


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A chart as a picture, and as numbers for the page's script."""

    chart: Chart

    def svg(self) -> Markup:
        """Return the picture; lines of earlier runs are wider and show under later ones."""
        lines = [item for item in self.chart.items if isinstance(item, Line | Bars)]
        widths: dict[Item, float] = {
            item: min(2 + 0.5 * (len(lines) - 1 - number), 4) for number, item in enumerate(lines)
        }
        key = self.chart.key
        parts = [
            f'<svg class="chart" id="{key}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-labelledby="{key}-t {key}-d"><title id="{key}-t">'
            f"{escape(self.chart.title)}</title>"
            f'<desc id="{key}-d">{escape(self.chart.summary)}</desc>',
            f'<clipPath id="{key}-c"><rect x="{LEFT}" y="{TOP}" width="{_WIDE}" '
            f'height="{_HIGH}"/></clipPath>',
            f'<g class="axes">{"".join(self._axes())}</g>',
            f'<text class="label" x="{LEFT + _WIDE / 2:g}" y="{HEIGHT - 6}" '
            f'text-anchor="middle">{escape(self.chart.x.label)}</text>',
            f'<text class="label" transform="translate(13 {TOP + _HIGH / 2:g}) rotate(-90)" '
            f'text-anchor="middle">{escape(self.chart.y.label)}</text>',
            f'<g clip-path="url(#{key}-c)"><g class="data">',
            *(part for item in self.chart.items for part in self._drawn(item, widths)),
            '</g></g><g class="over"></g></svg>',
        ]
        return Markup("".join(parts))

    def spec(self) -> dict[str, Any]:
        """Return what the page's script needs to read values off the picture and to zoom it."""
        lines = []
        for item in self.chart.items:
            if isinstance(item, Line):
                values = {"x": _short(item.x), "y": _short(item.y), "step": item.step}
                lines.append({"name": item.name, "run": item.run, **values})
            elif isinstance(item, Bars):
                edges = {"x": _short(item.edges[:-1]), "y": _short(item.heights), "step": True}
                kind = "" if item.kind == "outline" else item.kind
                lines.append({"name": kind or item.name, "run": item.run, **edges})
        return {
            "key": self.chart.key,
            "x": _axis_spec(self.chart.x),
            "y": _axis_spec(self.chart.y),
            "lines": lines,
            "follows": self.chart.follows,
        }

    def _axes(self) -> Iterator[str]:
        for value, text in ticks(self.chart.x):
            x = LEFT + float(place(self.chart.x, value)) * _WIDE
            yield f'<path class="grid" d="M{x:.1f} {TOP}V{TOP + _HIGH}"/>'
            yield f'<text x="{x:.1f}" y="{TOP + _HIGH + 17}" text-anchor="middle">{text}</text>'
        for value, text in ticks(self.chart.y):
            y = TOP + (1 - float(place(self.chart.y, value))) * _HIGH
            yield f'<path class="grid" d="M{LEFT} {y:.1f}H{LEFT + _WIDE}"/>'
            yield f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        yield f'<path class="frame" d="M{LEFT} {TOP}V{TOP + _HIGH}H{LEFT + _WIDE}"/>'

    def _drawn(self, item: Item, widths: Mapping[Item, float]) -> Iterator[str]:
        if isinstance(item, Mark):
            x = self._x(item.x)
            side, anchor = (5, "start") if x < LEFT + _WIDE / 2 else (-5, "end")
            yield (
                f'<g class="mark"><path d="M{x:.2f} {TOP}V{TOP + _HIGH}"/>'
                f'<text x="{x + side:.1f}" y="{TOP + 13}" text-anchor="{anchor}">'
                f"{escape(item.text)}</text></g>"
            )
            return
        yield f'<g class="{run_class(item.run)}" data-run="{item.run}">'
        if isinstance(item, Line):
            path = self._joined(item.x, item.y, item.step)
            yield f'<path class="curve" stroke-width="{widths[item]:g}" d="{path}"/>'
        elif isinstance(item, Bars):
            yield self._histogram(item, widths[item])
        else:
            yield from self._dots(item)
        yield "</g>"

    def _histogram(self, bars: Bars, width: float) -> str:
        heights = np.concatenate([bars.heights, bars.heights[-1:]])
        top = self._joined(bars.edges, heights, step=True)
        if bars.kind == "outline":
            return f'<path class="curve" stroke-width="{width:g}" d="{top}"/>'
        floor = TOP + _HIGH + 2
        start, end = self._x(bars.edges[0]), self._x(bars.edges[-1])
        area = f"M{start:.2f} {floor}L{top[1:]}L{end:.2f} {floor}Z"
        return f'<path class="{bars.kind}" d="{area}"/>'

    def _dots(self, dots: Dots) -> Iterator[str]:
        hollow = dots.hollow or (False,) * len(dots.x)
        rows = zip(dots.x, dots.y, dots.low, dots.high, hollow, strict=True)
        for x_value, y_value, low, high, empty in rows:
            x, y = self._x(x_value), self._y(y_value)
            if np.isfinite(low) and np.isfinite(high):
                yield f'<path class="bar" d="M{x:.2f} {self._y(low):.2f}V{self._y(high):.2f}"/>'
            yield f'<path class="dot" d="M{x:.2f} {y:.2f}h0"/>'
            if empty:
                yield f'<path class="hole" d="M{x:.2f} {y:.2f}h0"/>'

    def _joined(self, x_values: Values, y_values: Values, step: bool) -> str:
        x, y = self._x(x_values), self._y(y_values)
        keep = np.isfinite(x) & np.isfinite(y)
        parts = []
        for number, (a, b) in enumerate(zip(x[keep].tolist(), y[keep].tolist(), strict=True)):
            if number == 0:
                parts.append(f"M{a:.2f} {b:.2f}")
            else:
                parts.append(f"H{a:.2f}V{b:.2f}" if step else f"L{a:.2f} {b:.2f}")
        return "".join(parts)

    def _x(self, values: npt.ArrayLike) -> Any:
        return LEFT + place(self.chart.x, values) * _WIDE

    def _y(self, values: npt.ArrayLike) -> Any:
        return TOP + (1 - place(self.chart.y, values)) * _HIGH


def run_class(run: int) -> str:
    """Return the classes that give a run its colour and dashes."""
    return f"run c{run % SERIES} d{run % DASHES}"


def nice_step(least: float) -> float:
    """Return 1, 2 or 5 times a power of ten, not below a value.

    Examples
    --------
    >>> nice_step(0.3), nice_step(14)
    (0.5, 20.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= least * (1 - 1e-9))


def _power(exponent: int) -> str:
    return "1" if exponent == 0 else "10" + str(exponent).translate(_SUPERSCRIPTS)


def _short(values: Values) -> list[float | None]:
    """Round to five digits: pictures need no more, and the file stays small."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in np.asarray(values).tolist()]
