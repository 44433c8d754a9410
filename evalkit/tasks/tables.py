"""Tables as plain data: a task fills them, the report draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.core.results import TOO_FEW, Metric

_NO_THRESHOLD = 1e30
"""Where no score is finite, a threshold stands at the end of the floats."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    header : sequence of str
    rows : sequence of sequences of str
    title : str
        A line above it, empty without one.
    left : int
        How many of the first columns hold words; the others numbers.
    notes : sequence of str
        Lines below it that say how to read it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    left: int = 1
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """A result for a reader.

    Attributes
    ----------
    dataset : str
        Name and counts.
    rules : str
        The conventions that the figures rest on; empty where there are none to name.
    partial : str
        Why a partial result is partial.
    tables : tuple of Table
    """

    dataset: str
    rules: str
    partial: str
    tables: tuple[Table, ...]


def percent(value: float | None, digits: int = 2) -> str:
    """Return a rate in per cent, ``-`` for None."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def interval(metric: Metric) -> str:
    """Return a metric's interval in per cent, ``-`` where it has none."""
    bounds = metric.interval
    return "-" if bounds is None else f"{percent(bounds.low)}..{percent(bounds.high)}"


def threshold(value: float | None, digits: int = 5) -> str:
    """Return a threshold, ``-`` for None and for one that no score can reach or miss."""
    return "-" if value is None or not abs(value) < _NO_THRESHOLD else f"{value:.{digits}f}"


def ratio(metric: Metric, part: str, whole: str) -> str:
    """Return two counts of a metric as ``3/10``; empty where it has none."""
    if part not in metric.counts:
        return ""
    return f"{metric.counts[part]:,}/{metric.counts[whole]:,}"


def few(metric: Metric) -> str:
    """Return the mark of a figure that rests on too little, empty for others."""
    return "few" if TOO_FEW.keys() & set(metric.flags) else ""
