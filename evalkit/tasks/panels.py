"""Panels as plain data: what a page shows of runs on the same data, beside its tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: what it shows, and whether its scale is logarithmic."""

    label: str
    log: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A curve of one run; `run` is its letter, colour and dashes."""

    run: int
    label: str
    x: Floats
    y: Floats


@dataclass(frozen=True, slots=True)
class Mark:
    """A figure of a run on its curve, with its interval; hollow where it rests on too little."""

    run: int
    x: float
    y: float
    low: float
    high: float
    hollow: bool
    method: str


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Curves of several runs over the same axes."""

    key: str
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Shares of each run's classes over the same bins.

    Attributes
    ----------
    edges : ndarray of float, shape (bins + 1,)
    series : tuple of (int, str, str, ndarray)
        Run, label, class, share of the class in each bin.
    """

    key: str
    title: str
    x: Axis
    edges: Floats
    series: tuple[tuple[int, str, str, Floats], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """What each run accepts at each of some thresholds, counted exactly.

    Attributes
    ----------
    similarity : ndarray of float, shape (thresholds,)
        Ascending.
    accepted : mapping of int to (genuine, impostors)
        By run: accepted comparisons at each threshold, as arrays of int.
    totals : mapping of int to (int, int)
        By run: all genuine and all impostor comparisons.
    marks : mapping of str to int
        By metric: the place of the reference's threshold.
    """

    similarity: Floats
    accepted: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
    totals: dict[int, tuple[int, int]]
    marks: dict[str, int]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its JPEG, what it shows, what stands under it."""

    jpeg: bytes
    alt: str
    caption: str


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures of one kind, or the sentence that says why there is none."""

    title: str
    note: str = ""
    pictures: tuple[Picture, ...] = field(default=())


Panel: TypeAlias = Curves | Histogram | Thresholds | Gallery
