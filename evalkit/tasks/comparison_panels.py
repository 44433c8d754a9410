"""Panels of comparisons of faces: ROC, DET, histograms of scores, thresholds, drift."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.core.errors import EvalkitError
from evalkit.core.results import Metric
from evalkit.protocols.intervals import wilson_interval
from evalkit.protocols.roc import roc_curve_points
from evalkit.run.drift import stored_drift, stores_of
from evalkit.stats.comparisons import Comparisons
from evalkit.tasks.panels import (
    Accepted,
    Axis,
    Bars,
    Chart,
    Dots,
    Line,
    Mark,
    Note,
    Panel,
    Runs,
    Scored,
    Thresholds,
    letter,
)

Floats = npt.NDArray[np.float64]

POINTS = 200
"""Of a curve."""

STEPS = 300
"""Thresholds of the slider, beside those of the runs' own figures."""

_BINS = 80
_DRIFT_BINS = 60

_SAME = 1e-9
"""Cosines nearer to 1 than this are called the same: the embeddings differ by rounding alone."""

_NO_THRESHOLD = 1e30
"""Where no score is finite, a threshold stands at the end of the floats."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The scores of one run, ascending; failures to enrol are -inf and come first."""

    run: Scored
    genuine: npt.NDArray[np.floating[Any]]
    impostors: npt.NDArray[np.floating[Any]]

    @property
    def both(self) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.floating[Any]]]:
        """Genuine and impostor scores."""
        return self.genuine, self.impostors

    def accepted(self, thresholds: Floats) -> Accepted:
        """Count the scores that are at least each threshold."""
        true, false = (
            len(scores) - np.searchsorted(scores, thresholds.astype(scores.dtype), side="left")
            for scores in self.both
        )
        sizes = len(self.genuine), len(self.impostors)
        return Accepted(self.run.run, self.run.label, true, false, *sizes)


def comparison_panels(runs: Runs) -> tuple[Panel, ...]:
    """Return the panels of runs that compare faces; a note for whatever cannot be shown."""
    scores, absent = [], []
    notes = [Note(f"No curves of {run.label}: {run.problem}") for run in runs.scored if run.problem]
    for run in runs.scored:
        evidence = run.main
        if isinstance(evidence, Comparisons) and 0 < evidence.genuine.sum() < evidence.genuine.size:
            kinds = (evidence.genuine, ~evidence.genuine)
            scores.append(Scores(run, *(np.sort(evidence.similarity[kind]) for kind in kinds)))
        elif not run.problem:
            absent.append(run.label)
    if absent:
        text = f"No scores of both classes lie beside the results of {', '.join(absent)}."
        notes.append(Note(text))
    panels: list[Panel] = []
    if scores:
        panels += [*_curves(scores), *_histograms(scores), *_thresholds(scores, runs.primary)]
    return (*notes, *panels, *_drift(runs))


def _curves(scores: Sequence[Scores]) -> Iterable[Chart]:
    """Yield ROC and DET."""
    curves = [roc_curve_points(one.genuine, one.impostors, POINTS) for one in scores]
    impostors = max(len(one.impostors) for one in scores)
    genuine = max(len(one.genuine) for one in scores)
    lowest = min(float(curve.tar[0]) for curve in curves)
    far = Axis("false accept rate (FAR)", 0.5 / impostors, 1.0, log=True)
    tar = Axis("true accept rate (TAR), %", low_end(lowest), 1.002, percent=True)
    frr = Axis("false reject rate (FRR)", 0.5 / genuine, 1.0, log=True)
    roc: list[Line | Dots] = []
    det: list[Line | Dots] = []
    for one, curve in zip(scores, curves, strict=True):
        x = np.concatenate([[far.low], curve.far[curve.far > 0]])
        y = np.concatenate([curve.tar[:1], curve.tar[curve.far > 0]])
        roc.append(Line(one.run.label, one.run.run, x, y, step=True))
        det.append(Line(one.run.label, one.run.run, x, 1 - y, step=True))
    for one in scores:
        points = _points(one.run)
        x, y, low, high = np.array([point[:4] for point in points]).reshape(-1, 4).T
        few = [bool(metric.too_few) for *_, metric in points]
        roc.append(Dots(one.run.label, one.run.run, x, y, low, high, few))
        det.append(Dots(one.run.label, one.run.run, x, 1 - y, 1 - high, 1 - low, few))
    words = "; ".join(_words(one.run) for one in scores)
    yield Chart(
        "roc",
        "ROC: genuine accepted over impostors accepted",
        f"True accept rate over false accept rate on a logarithmic axis. {words}.",
        far,
        tar,
        tuple(roc),
        follows="roc",
    )
    yield Chart(
        "det",
        "DET: both errors, lower left is better",
        f"False reject rate over false accept rate, both logarithmic. {words}.",
        far,
        frr,
        tuple(det),
        follows="det",
    )


def _points(run: Scored) -> list[tuple[float, float, float, float, Metric]]:
    """Return FAR, TAR and its interval of the main view's rates.

    Where the result has no interval (pairs without identities), it is Wilson's, over pairs.
    """
    points = []
    for metric in _main_view(run):
        far, tar = metric.at.get("achieved"), metric.value
        if metric.figure != "tar" or not far or tar is None:
            continue
        low = high = float("nan")
        if metric.interval is not None:
            low, high = metric.interval.low, metric.interval.high
        elif metric.view:
            low, high = wilson_interval(metric.counts["true_accepts"], metric.counts["genuine"])
        points.append((far, tar, low, high, metric))
    return points


def _main_view(run: Scored) -> list[Metric]:
    metrics = run.result.metrics
    return [metric for metric in metrics if metric.view == metrics[0].view]


def _words(run: Scored) -> str:
    points = [f"{100 * tar:.2f} % at FAR {far:.1e}" for far, tar, *_ in _points(run)]
    return f"{run.label}: {', '.join(points) or 'no measured point'}"


def low_end(rate: float) -> float:
    """Return the low end of an axis for rates of at least this one."""
    return max(0.0, float(np.floor((rate - 0.02) * 20) / 20))


def _histograms(scores: Sequence[Scores]) -> Iterable[Chart]:
    """Yield a histogram for each run, all over the same bins."""
    ends = _ends(scores)
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    heights = [[shares(values, edges) for values in one.both] for one in scores]
    least = min(values[values > 0].min(initial=1.0) for pair in heights for values in pair)
    x = Axis("cosine similarity", float(edges[0]), float(edges[-1]))
    y = Axis("share of its class", float(least) / 2, 1.0, log=True)
    for one, (genuine, impostors) in zip(scores, heights, strict=True):
        run = one.run
        lost = sum(int(np.count_nonzero(~np.isfinite(values))) for values in one.both)
        missing = f"; {lost:,} comparisons failed to enrol and are not shown" if lost else ""
        yield Chart(
            f"scores-{run.run}",
            f"Scores of {run.label}",
            f"Histogram of {len(one.genuine):,} genuine and {len(one.impostors):,} impostor "
            f"scores, as shares of their class on a logarithmic axis{missing}.",
            x,
            y,
            (
                Bars("impostor", run.run, edges, impostors, "impostor"),
                Bars("genuine", run.run, edges, genuine, "genuine"),
            ),
            follows="score",
        )


def _ends(scores: Sequence[Scores]) -> list[float]:
    """Return the lowest and the highest finite score of each class of each run."""
    finite = [values[np.isfinite(values)] for one in scores for values in one.both]
    return [float(end) for values in finite if len(values) for end in (values[0], values[-1])]


def shares(values: npt.NDArray[np.floating[Any]], edges: Floats) -> Floats:
    """Return the share of the values in each bin; those that are not finite are in none."""
    counts = np.histogram(values[np.isfinite(values)], edges)[0]
    return counts / max(len(values), 1)


def thresholds_of(scores: Sequence[Scores], marked: Sequence[float]) -> Floats:
    """Choose the slider's thresholds: over the scores' range, dense where few impostors lie.

    Each is a number of the scores' own precision, with which it compares exactly.

    Parameters
    ----------
    scores : sequence of Scores
    marked : sequence of float
        Thresholds that must be among them.
    """
    ends = _ends(scores)
    if not ends:
        return np.zeros(0)
    even = np.linspace(min(ends), max(ends), STEPS // 2)
    ranks = np.geomspace(1, len(scores[0].impostors), STEPS // 2).astype(int)
    tail = scores[0].impostors[-ranks].astype(np.float64)
    chosen = np.concatenate([even, tail[np.isfinite(tail)], marked])
    return np.unique(chosen.astype(scores[0].genuine.dtype)).astype(np.float64)


def _thresholds(scores: Sequence[Scores], primary: str) -> Iterable[Thresholds]:
    """Yield what each run accepts at the slider's thresholds; nothing where no score is finite."""
    first = next((one.run for one in scores if one.run.reference), scores[0].run)
    rates = [metric for metric in _main_view(first) if metric.figure in {"tar", "accuracy"}]
    named = [metric for metric in first.result.metrics if metric.name == primary]
    marks = {metric.name: metric.at.get("similarity") for metric in (*named, *rates)}
    places = {n: s for n, s in marks.items() if s is not None and abs(s) < _NO_THRESHOLD}
    similarity = thresholds_of(scores, list(places.values()))
    if len(similarity):
        indices = {name: int(abs(similarity - at).argmin()) for name, at in places.items()}
        start = next(iter(indices.values()), len(similarity) // 2)
        runs = tuple(one.accepted(similarity) for one in scores)
        yield Thresholds(similarity, runs, indices, start, first.label)


def _drift(runs: Runs) -> Iterable[Panel]:
    """Yield how far the embeddings of each run lie from the reference's."""
    moved: list[tuple[Scored, Floats]] = []
    for run in runs.scored if runs.reference else ():
        if run.reference or runs.reference is None:
            continue
        try:
            stores = stores_of(runs.reference.result, run.result)
            cosines = stored_drift(*stores, "embeddings").cosines
        except EvalkitError as error:
            yield Note(f"Drift of {run.label} is not shown: {str(error).rstrip('.')}.")
            continue
        if np.isfinite(cosines).any():
            moved.append((run, np.clip(1 - cosines[np.isfinite(cosines)], _SAME, None)))
    if moved:
        yield _drift_chart(moved, runs.drift_limit)


def _drift_chart(moved: Sequence[tuple[Scored, Floats]], limit: float | None) -> Chart:
    marks: list[Mark] = []
    if limit is not None and limit < 1:
        marks.append(Mark(1 - limit, "limit on the worst 1 %"))
    ends = [mark.x for mark in marks]
    high = 3 * max([*ends, *(float(values.max()) for _, values in moved), 1e-5])
    edges = np.geomspace(_SAME / 2, min(high, 2.5), _DRIFT_BINS + 1)
    bars = tuple(Bars(run.label, run.run, edges, shares(values, edges)) for run, values in moved)
    words = [
        f"median {np.median(values):.1e}, 99th percentile {np.percentile(values, 99):.1e}"
        for _, values in moved
    ]
    whole = (f"{run.label}: {text}" for (run, _), text in zip(moved, words, strict=True))
    short = (f"{letter(run.run)} {text}" for (run, _), text in zip(moved, words, strict=True))
    top = max(float(one.heights.max()) for one in bars)
    return Chart(
        "drift",
        "Drift: how far each image's embedding moved",
        f"Histogram of 1 minus the cosine between each image's embedding and the reference's, "
        f"on a logarithmic axis; further right is worse. {'; '.join(whole)}.",
        Axis("1 - cosine to the reference", float(edges[0]), float(edges[-1]), log=True),
        Axis("share of images, %", 0.0, min(1.0, 1.08 * top), percent=True),
        (*bars, *marks),
        figures="; ".join(short),
    )
