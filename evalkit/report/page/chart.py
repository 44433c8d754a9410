"""A small writer of charts: SVG that needs no script, and the numbers by which one can zoom it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from evalkit.report.page.palette import SERIES

Values = npt.NDArray[np.floating[Any]]

WIDTH, HEIGHT = 520, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 44
_WIDE, _HIGH = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
DASHES = 5
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis.

    Attributes
    ----------
    log, percent : bool
        Whether it is logarithmic; whether its values are rates that show in per cent.
    marked : tuple of float
        The values to mark, where they are not left to the axis.
    """

    label: str
    low: float
    high: float
    log: bool = False
    percent: bool = False
    marked: tuple[float, ...] = ()

    def place(self, values: npt.ArrayLike) -> Values:
        """Return where values lie, 0 to 1; what a logarithm cannot take lies at the low end."""
        given = np.asarray(values, np.float64)
        if not self.log:
            found: Values = (given - self.low) / (self.high - self.low)
            return found
        low, high = math.log10(self.low), math.log10(self.high)
        placed: Values = (np.log10(np.maximum(given, self.low)) - low) / (high - low)
        return placed

    def ticks(self) -> list[tuple[float, str]]:
        """Return the values to mark, with their texts."""
        if self.marked:
            return [(value, f"{value:g}") for value in self.marked]
        if self.log:
            return self._decades()
        factor = 100 if self.percent else 1
        low, high = factor * self.low, factor * self.high
        step = nice_step((high - low) / 5)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(low / step - 1e-9)
        count = math.floor(high / step + 1e-9) - first + 1
        values = [(first + place) * step for place in range(count)]
        return [(value / factor, f"{value:.{digits}f}") for value in values]

    def _decades(self) -> list[tuple[float, str]]:
        first = math.ceil(math.log10(self.low) - 1e-9)
        last = math.floor(math.log10(self.high) + 1e-9)
        every = max(1, math.ceil((last - first) / 7))
        if last - first < 1:  # less than a decade has no two powers of ten
            steps = (1, 2, 5)
            low = math.floor(math.log10(self.low))
            values = [m * 10.0**p for p in range(low, last + 1) for m in steps]
            return [(v, f"{v:g}") for v in values if self.low <= v * (1 + 1e-9) <= self.high * 1.01]
        return [(10.0**power, _power(power)) for power in range(first, last + 1, every)]

    def spec(self) -> dict[str, Any]:
        """Return what the page's script needs."""
        return {"low": self.low, "high": self.high, "log": self.log, "percent": self.percent}


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Points joined by a line, or by steps that keep their value until the next point."""

    name: str
    run: int
    x: Values
    y: Values
    step: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """A histogram: one height between each two edges."""

    name: str
    run: int
    edges: Values
    heights: Values
    kind: Literal["outline", "genuine", "impostor"] = "outline"


@dataclass(frozen=True, slots=True, eq=False)
class Dots:
    """Measured points; `low` and `high` are their intervals, NaN where there is none.

    Attributes
    ----------
    hollow : sequence of bool
        Points that too few observations stand behind.
    """

    name: str
    run: int
    x: Values
    y: Values
    low: Values
    high: Values
    hollow: Sequence[bool] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at a value, with a text."""

    x: float
    text: str


Item = Line | Bars | Dots | Mark


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """One picture.

    Attributes
    ----------
    key : str
        Unique in the page; letters, digits and hyphens.
    title : str
    summary : str
        What it shows, in words, for those who do not see it.
    follows : str
        What of it follows the threshold: ``roc``, ``det``, ``score`` or nothing.
    figures : str
        The figures that stand under the title.
    """

    key: str
    title: str
    summary: str
    x: Axis
    y: Axis
    items: tuple[Item, ...]
    follows: Literal["", "roc", "det", "score"] = ""
    figures: str = ""

    def svg(self) -> Markup:
        """Return the picture; lines of earlier runs are wider and show under later ones."""
        lines = [item for item in self.items if isinstance(item, Line | Bars)]
        widths: dict[Item, float] = {
            item: min(2 + 0.5 * (len(lines) - 1 - place), 4) for place, item in enumerate(lines)
        }
        parts = [
            f'<svg class="chart" id="{self.key}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-labelledby="{self.key}-t {self.key}-d"><title id="{self.key}-t">'
            f'{escape(self.title)}</title><desc id="{self.key}-d">{escape(self.summary)}</desc>',
            f'<clipPath id="{self.key}-c"><rect x="{LEFT}" y="{TOP}" width="{_WIDE}" '
            f'height="{_HIGH}"/></clipPath>',
            f'<g class="axes">{"".join(self._axes())}</g>',
            f'<text class="label" x="{LEFT + _WIDE / 2:g}" y="{HEIGHT - 6}" '
            f'text-anchor="middle">{escape(self.x.label)}</text>',
            f'<text class="label" transform="translate(13 {TOP + _HIGH / 2:g}) rotate(-90)" '
            f'text-anchor="middle">{escape(self.y.label)}</text>',
            f'<g clip-path="url(#{self.key}-c)"><g class="data">',
            *(part for item in self.items for part in self._drawn(item, widths)),
            '</g></g><g class="over"></g></svg>',
        ]
        return Markup("".join(parts))

    def spec(self) -> dict[str, Any]:
        """Return what the page's script needs to read values off the picture and to zoom it."""
        lines = []
        for item in self.items:
            if isinstance(item, Line):
                values = {"x": _short(item.x), "y": _short(item.y), "step": item.step}
                lines.append({"name": item.name, "run": item.run, **values})
            elif isinstance(item, Bars):
                edges = {"x": _short(item.edges[:-1]), "y": _short(item.heights), "step": True}
                kind = "" if item.kind == "outline" else item.kind
                lines.append({"name": kind or item.name, "run": item.run, **edges})
        return {
            "key": self.key,
            "x": self.x.spec(),
            "y": self.y.spec(),
            "lines": lines,
            "follows": self.follows,
        }

    def _axes(self) -> Iterator[str]:
        for value, text in self.x.ticks():
            x = LEFT + float(self.x.place(value)) * _WIDE
            yield f'<path class="grid" d="M{x:.1f} {TOP}V{TOP + _HIGH}"/>'
            yield f'<text x="{x:.1f}" y="{TOP + _HIGH + 17}" text-anchor="middle">{text}</text>'
        for value, text in self.y.ticks():
            y = TOP + (1 - float(self.y.place(value))) * _HIGH
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
        for place, (a, b) in enumerate(zip(x[keep].tolist(), y[keep].tolist(), strict=True)):
            if place == 0:
                parts.append(f"M{a:.2f} {b:.2f}")
            else:
                parts.append(f"H{a:.2f}V{b:.2f}" if step else f"L{a:.2f} {b:.2f}")
        return "".join(parts)

    def _x(self, values: npt.ArrayLike) -> Any:
        return LEFT + self.x.place(values) * _WIDE

    def _y(self, values: npt.ArrayLike) -> Any:
        return TOP + (1 - self.y.place(values)) * _HIGH


def run_class(run: int) -> str:
    """Return the classes that give a run its colour and dashes."""
    return f"run c{run % SERIES} d{run % DASHES}"


def letter(run: int) -> str:
    """Return the letter that a run has in the whole page."""
    return chr(ord("A") + run) if run < 26 else str(run + 1)


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
