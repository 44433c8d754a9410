"""Curves and counts out of the scores beside results, thinned to a bounded number of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.core.errors import InputError
from evalkit.protocols.intervals import wilson_interval
from evalkit.protocols.roc import RocCurve, roc_curve_points
from evalkit.report.page.gather import Entry, Group
from evalkit.run.drift import stored_drift, stores_of
from evalkit.stats.ap import ImageCounts
from evalkit.stats.drift import Drift
from evalkit.widerface_eval import Curve

POINTS = 200
"""Of a curve."""

STEPS = 300
"""Thresholds of the slider, beside those of the runs' own figures."""

BINS = 80


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """The comparisons of one run: similarities in ascending order, failures first.

    Attributes
    ----------
    genuine, impostors : ndarray of float
        -inf where a side failed to enrol.
    """

    genuine: npt.NDArray[np.floating[Any]]
    impostors: npt.NDArray[np.floating[Any]]

    def accepted(
        self, thresholds: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Count the genuine and the impostors whose score is at least each threshold."""
        counted = (
            len(scores) - np.searchsorted(scores, thresholds.astype(scores.dtype), side="left")
            for scores in (self.genuine, self.impostors)
        )
        genuine, impostors = counted
        return genuine, impostors

    def curve(self) -> RocCurve:
        """Return the curve at FARs spaced evenly in logarithm."""
        return roc_curve_points(self.genuine, self.impostors, POINTS)


def decisions_of(entry: Entry) -> Decisions | None:
    """Read a run's comparisons; None where no scores are kept, or a class is empty.

    Distances of pairs become the cosines of unit vectors, so that higher is more alike.
    """
    held = entry.scores()
    if "distances" in held:
        issame = held["issame"].astype(bool)
        distances = held["distances"]
        scores = np.where(np.isfinite(distances), 1 - distances / 2, -np.inf)
    elif "scores" in held:
        issame = held["genuine"].astype(bool)
        scores = np.where(np.isfinite(held["scores"]), held["scores"], np.float32(-np.inf))
    else:
        return None
    found = Decisions(np.sort(scores[issame]), np.sort(scores[~issame]))
    return found if len(found.genuine) and len(found.impostors) else None


def thresholds_of(runs: list[Decisions], marked: list[float]) -> npt.NDArray[np.float64]:
    """Choose the slider's thresholds: over the scores' range, dense where few impostors lie.

    Each is a number of the scores' own precision, with which it compares exactly.

    Parameters
    ----------
    runs : list of Decisions
    marked : list of float
        Thresholds that must be among them.
    """
    finite = [s[np.isfinite(s)] for run in runs for s in (run.genuine, run.impostors)]
    ends = [end for scores in finite if len(scores) for end in (scores[0], scores[-1])]
    if not ends:
        return np.zeros(0)
    even = np.linspace(float(min(ends)), float(max(ends)), STEPS // 2)
    ranks = np.geomspace(1, len(runs[0].impostors), STEPS // 2).astype(int)
    tail = runs[0].impostors[-ranks].astype(np.float64)
    chosen = np.concatenate([even, tail[np.isfinite(tail)], marked])
    return np.unique(chosen.astype(runs[0].genuine.dtype)).astype(np.float64)


def histogram_edges(runs: list[Decisions]) -> npt.NDArray[np.float64]:
    """Return bins over the finite scores of all runs."""
    finite = [s[np.isfinite(s)] for run in runs for s in (run.genuine, run.impostors)]
    ends = [float(end) for scores in finite if len(scores) for end in (scores[0], scores[-1])]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def shares(
    scores: npt.NDArray[np.floating[Any]], edges: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the share of a class in each bin."""
    counts = np.histogram(scores[np.isfinite(scores)], edges)[0]
    return counts / max(len(scores), 1)


@dataclass(frozen=True, slots=True)
class Measured:
    """A point of a curve with its interval; what it was made by is in `method`."""

    far: float
    tar: float
    low: float
    high: float
    few: bool
    method: str


def measured_points(entry: Entry) -> list[Measured]:
    """Return the rates of a result with their intervals.

    Where the result has none (pairs without identities), it is Wilson's, over pairs.
    """
    found = []
    for metric in entry.result.metrics if entry.result else ():
        far = metric.at.get("achieved")
        if metric.figure != "tar" or metric.name.endswith("/no-flip") or not far:
            continue
        if metric.value is None:
            continue
        low = high = float("nan")
        method = ""
        if metric.interval is not None:
            low, high, method = metric.interval.low, metric.interval.high, metric.interval.method
        elif metric.view:
            low, high = wilson_interval(metric.counts["true_accepts"], metric.counts["genuine"])
            method = "Wilson, pair-level"
        few = "too_few_false_accepts" in metric.flags
        found.append(Measured(far, metric.value, low, high, few, method))
    return found


def threshold_of(entry: Entry, name: str) -> float | None:
    """Return the similarity at which a figure was measured."""
    metric = entry.metric(name)
    if metric is None:
        return None
    value = metric.at.get("similarity")
    return value if value is not None and abs(value) < 1e30 else None


def precision_recall(entry: Entry) -> dict[str, Curve]:
    """Return the curves of a detector by subset, from the counts beside its result."""
    held = entry.scores()
    if "cell_step" not in held:
        return {}
    try:
        counts = ImageCounts.from_arrays(held)
    except ValueError as error:
        raise InputError(f"The counts beside {entry.path} are damaged: {error}.") from error
    curves = {}
    for row, subset in enumerate(counts.subsets):
        proposals, recalled = (
            np.cumsum(np.bincount(counts.step, part[row], counts.steps), dtype=np.float64)
            for part in (counts.proposals, counts.recalled)
        )
        curves[subset] = Curve(proposals, recalled, float(counts.faces[row].sum()))
    return curves


def thinned(curve: Curve) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return recall and precision at a bounded number of thresholds, evenly along the curve."""
    known = np.flatnonzero(curve.proposals > 0)
    if not len(known) or curve.faces == 0:
        return np.zeros(0), np.zeros(0)
    recall, precision = curve.recall[known], curve.precision[known]
    length = np.hypot(np.diff(recall), np.diff(precision)).cumsum()
    along = np.concatenate([[0.0], length])
    wanted = np.linspace(0, along[-1], 2 * POINTS)
    rows = np.unique([0, *np.searchsorted(along, wanted), len(along) - 1])
    rows = rows[rows < len(along)]
    return recall[rows], precision[rows]


def drift_of(group: Group, entry: Entry) -> Drift | None:
    """Compare a run's stored embeddings with the reference's, image by image.

    Raises
    ------
    evalkit.core.errors.EvalkitError
        A store is gone, or they are of different images.
    """
    reference = group.reference
    if reference is None or reference.result is None or entry.result is None:
        return None
    first, second = stores_of(reference.result, entry.result)
    return stored_drift(first, second, "embeddings")
