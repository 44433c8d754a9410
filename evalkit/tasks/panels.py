"""Panels as plain data: what a page shows of runs on the same data, beside its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from evalkit.core.results import Result
    from evalkit.stats.evidence import Evidence

    Floats = npt.NDArray[np.floating[Any]]
    Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One run among those that a page sets side by side.

    Attributes
    ----------
    run : int
        Its letter, colour and dashes on the page.
    label : str
        ``torch:int8``.
    reference : bool
        Whether the others are compared with it.
    result : Result
    evidence : mapping of str to Evidence
        By view, the main one first; empty where no scores lie beside the result.
    problem : str
        Why the scores beside the result cannot be read; empty where they can, or are not there.
    moved : sequence of (str, float)
        Images whose embeddings lie furthest from the reference's, and the cosines; furthest first.
    """

    run: int
    label: str
    reference: bool
    result: Result
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    problem: str = ""
    moved: Sequence[tuple[str, float]] = ()

    @property
    def named(self) -> str:
        """Letter and label."""
        return f"{letter(self.run)} {self.label}"

    @property
    def main(self) -> Evidence | None:
        """The evidence of the main view."""
        return next(iter(self.evidence.values()), None)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs on the same data.

    Attributes
    ----------
    scored : tuple of Scored
    primary : str
        Name of the metric that is shown first.
    drift_limit : float or None
        Least first percentile of the cosines to the reference that a plan accepts.
    """

    scored: tuple[Scored, ...]
    primary: str
    drift_limit: float | None = None

    @property
    def reference(self) -> Scored | None:
        """The run with which the others are compared, if there is one."""
        return next((run for run in self.scored if run.reference), None)


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis.

    Attributes
    ----------
    label : str
    low, high : float
        Its ends.
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


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Points joined by a line, or by steps that keep their value until the next point."""

    name: str
    run: int
    x: Floats
    y: Floats
    step: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """A histogram: one height between each two edges."""

    name: str
    run: int
    edges: Floats
    heights: Floats
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
    x: Floats
    y: Floats
    low: Floats
    high: Floats
    hollow: Sequence[bool] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at a value, with a text."""

    x: float
    text: str


Item: TypeAlias = Line | Bars | Dots | Mark


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """Curves or histograms over the same axes.

    Attributes
    ----------
    key : str
        Unique among the panels of these runs; letters, digits and hyphens.
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


@dataclass(frozen=True, slots=True, eq=False)
class Accepted:
    """How many comparisons a run accepts at each threshold.

    Attributes
    ----------
    true, false : ndarray of int, shape (thresholds,)
        Accepted genuine and impostor comparisons.
    genuine, impostors : int
        All comparisons.
    """

    run: int
    label: str
    true: Ints
    false: Ints
    genuine: int
    impostors: int


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """What each run accepts at each of some thresholds, counted exactly.

    Attributes
    ----------
    similarity : ndarray of float, shape (thresholds,)
        Ascending.
    runs : tuple of Accepted
    marks : mapping of str to int
        By metric: the place of the threshold of `reference`.
    start : int
        The place to show first.
    reference : str
        Label of the run whose thresholds are marked.
    """

    similarity: Floats
    runs: tuple[Accepted, ...]
    marks: Mapping[str, int]
    start: int
    reference: str


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence in the place of a panel: why there is none."""

    text: str


Panel: TypeAlias = Chart | Thresholds | Note


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its JPEG, and what it shows."""

    jpeg: bytes
    caption: str


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures of one kind, or the sentence that says why there is none."""

    title: str
    note: str = ""
    pictures: tuple[Picture, ...] = ()


def letter(run: int) -> str:
    """Return the letter that a run has in a whole page."""
    return chr(ord("A") + run) if run < 26 else str(run + 1)
