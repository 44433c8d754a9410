"""Panels of detections matched with faces: precision over recall."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evalkit.stats.matches import ImageCounts, Matches
from evalkit.tasks.comparison_panels import POINTS, low_end
from evalkit.tasks.panels import Axis, Chart, Line, Note, Panel, Runs, Scored, letter
from evalkit.widerface_eval import Curve

Floats = npt.NDArray[np.float64]


def match_panels(runs: Runs) -> tuple[Panel, ...]:
    """Return precision over recall, one chart a subset; a note for whatever cannot be shown."""
    notes = [Note(f"No curves of {run.label}: {run.problem}") for run in runs.scored if run.problem]
    curves = {}
    for run in runs.scored:
        evidence = run.main
        if isinstance(evidence, Matches):
            curves[run] = _curves(evidence.counts)
    subsets = dict.fromkeys(subset for by_subset in curves.values() for subset in by_subset)
    charts = [chart for subset in subsets if (chart := _chart(subset, curves))]
    if not charts:
        notes.append(Note("There are no curves: no counts lie beside the results."))
    return (*notes, *charts)


def _chart(subset: str, curves: dict[Scored, dict[str, tuple[Floats, Floats]]]) -> Chart | None:
    lines, words, short = [], [], []
    for run, by_subset in curves.items():
        recall, precision = by_subset.get(subset, (np.zeros(0), np.zeros(0)))
        if len(recall):
            lines.append(Line(run.label, run.run, recall, precision))
            words.append(f"{run.label}: average precision {_average(run, subset)}")
            short.append(f"{letter(run.run)} {_average(run, subset)}")
    if not lines:
        return None
    lowest = min(float(line.y.min()) for line in lines)
    return Chart(
        f"pr-{subset}",
        f"Precision over recall: {subset}",
        f"Precision over recall of the {subset} subset. {'; '.join(words)}.",
        Axis("recall", 0.0, 1.0),
        Axis("precision", low_end(lowest) if lowest > 0.5 else 0.0, 1.01),
        tuple(lines),
        figures=f"AP: {'; '.join(short)}",
    )


def _curves(counts: ImageCounts) -> dict[str, tuple[Floats, Floats]]:
    """Return recall and precision by subset, thinned."""
    curves = {}
    for row, subset in enumerate(counts.subsets):
        proposals, recalled = (
            np.cumsum(np.bincount(counts.step, part[row], counts.steps), dtype=np.float64)
            for part in (counts.proposals, counts.recalled)
        )
        curves[subset] = thinned(Curve(proposals, recalled, float(counts.faces[row].sum())))
    return curves


def thinned(curve: Curve) -> tuple[Floats, Floats]:
    """Return recall and precision at a bounded number of thresholds, evenly along the curve."""
    known = np.flatnonzero(curve.proposals > 0)
    if not len(known) or curve.faces == 0:
        return np.zeros(0), np.zeros(0)
    recall, precision = curve.recall[known], curve.precision[known]
    along = np.concatenate([[0.0], np.hypot(np.diff(recall), np.diff(precision)).cumsum()])
    places = np.searchsorted(along, np.linspace(0, along[-1], 2 * POINTS))
    rows = np.unique([0, *places, len(along) - 1])
    rows = rows[rows < len(along)]
    return recall[rows], precision[rows]


def _average(run: Scored, subset: str) -> str:
    """Return a subset's AP with its interval."""
    metrics = run.result.metrics
    aps = (m for m in metrics if m.figure == "ap" and m.subset == subset and not m.part)
    metric = next(aps, None)
    if metric is None or metric.value is None:
        return "none"
    interval = metric.interval
    bounds = f" ({100 * interval.low:.2f} to {100 * interval.high:.2f})" if interval else ""
    return f"{100 * metric.value:.2f} %{bounds}"
