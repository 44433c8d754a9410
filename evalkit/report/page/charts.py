"""The charts of a group of runs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evalkit.core.errors import EvalkitError, InputError
from evalkit.report.page.chart import Axis, Bars, Chart, Dots, Line, Mark, letter
from evalkit.report.page.curves import (
    Decisions,
    drift_of,
    histogram_edges,
    measured_points,
    precision_recall,
    shares,
    thinned,
)
from evalkit.report.page.gather import Entry, Group
from evalkit.widerface_eval import Curve

_SAME = 1e-9
"""Cosines nearer to 1 than this are called the same: the embeddings differ by rounding alone."""

_DRIFT_BINS = 60


def score_charts(group: Group, runs: dict[Entry, Decisions]) -> list[Chart]:
    """Return ROC, DET and a histogram of scores for each run."""
    if not runs:
        return []
    curves = {entry: decisions.curve() for entry, decisions in runs.items()}
    impostors = max(len(decisions.impostors) for decisions in runs.values())
    genuine = max(len(decisions.genuine) for decisions in runs.values())
    far = Axis("false accept rate (FAR)", 0.5 / impostors, 1.0, log=True)
    lowest = min(float(curve.tar[0]) for curve in curves.values())
    tar = Axis("true accept rate (TAR), %", _floor(lowest), 1.002, percent=True)
    frr = Axis("false reject rate (FRR)", 0.5 / genuine, 1.0, log=True)
    roc: list[Line | Dots] = []
    det: list[Line | Dots] = []
    for entry, curve in curves.items():
        x = np.concatenate([[far.low], curve.far[curve.far > 0]])
        y = np.concatenate([curve.tar[:1], curve.tar[curve.far > 0]])
        roc.append(Line(entry.label, entry.run, x, y, step=True))
        det.append(Line(entry.label, entry.run, x, 1 - y, step=True))
    for entry in runs:
        points = measured_points(entry)
        columns = [np.array([getattr(p, name) for p in points]) for name in _COLUMNS]
        x, y, low, high = columns
        few = [point.few for point in points]
        roc.append(Dots(entry.label, entry.run, x, y, low, high, few))
        det.append(Dots(entry.label, entry.run, x, 1 - y, 1 - high, 1 - low, few))
    told = "; ".join(_told(entry) for entry in runs)
    return [
        Chart(
            f"{group.key}-roc",
            "ROC: genuine accepted over impostors accepted",
            f"True accept rate over false accept rate on a logarithmic axis. {told}.",
            far,
            tar,
            tuple(roc),
            follows="roc",
        ),
        Chart(
            f"{group.key}-det",
            "DET: both errors, lower left is better",
            f"False reject rate over false accept rate, both logarithmic. {told}.",
            far,
            frr,
            tuple(det),
            follows="det",
        ),
        *_histograms(group, runs),
    ]


_COLUMNS = ("far", "tar", "low", "high")


def _told(entry: Entry) -> str:
    points = [f"{100 * p.tar:.2f} % at FAR {p.far:.1e}" for p in measured_points(entry)]
    return f"{entry.label}: {', '.join(points) or 'no measured point'}"


def _floor(rate: float) -> float:
    return max(0.0, float(np.floor((rate - 0.02) * 20) / 20))


def _histograms(group: Group, runs: dict[Entry, Decisions]) -> list[Chart]:
    edges = histogram_edges(list(runs.values()))
    found = {
        entry: (shares(held.genuine, edges), shares(held.impostors, edges))
        for entry, held in runs.items()
    }
    least = min(values[values > 0].min(initial=1.0) for pair in found.values() for values in pair)
    x = Axis("cosine similarity", float(edges[0]), float(edges[-1]))
    y = Axis("share of its class", float(least) / 2, 1.0, log=True)
    charts = []
    for entry, (genuine, impostors) in found.items():
        held = runs[entry]
        lost = sum(int(np.count_nonzero(~np.isfinite(s))) for s in (held.genuine, held.impostors))
        missing = f"; {lost:,} comparisons failed to enrol and are not shown" if lost else ""
        charts.append(
            Chart(
                f"{group.key}-scores-{entry.run}",
                f"Scores of {entry.label}",
                f"Histogram of {len(held.genuine):,} genuine and {len(held.impostors):,} impostor "
                f"scores, as shares of their class on a logarithmic axis{missing}.",
                x,
                y,
                (
                    Bars("impostor", entry.run, edges, impostors, "impostor"),
                    Bars("genuine", entry.run, edges, genuine, "genuine"),
                ),
                follows="score",
            )
        )
    return charts


def detection_charts(group: Group, notes: list[str]) -> list[Chart]:
    """Return precision over recall, one chart a subset; say what is missing."""
    curves: dict[Entry, dict[str, Curve]] = {}
    for entry, _ in group.ran:
        try:
            curves[entry] = precision_recall(entry)
        except InputError as error:
            notes.append(f"No curves of {entry.label}: {error}")
    subsets = dict.fromkeys(subset for held in curves.values() for subset in held)
    charts = []
    for subset in subsets:
        lines, told, short = [], [], []
        for entry, held in curves.items():
            if subset not in held or not len(thinned(held[subset])[0]):
                continue
            recall, precision = thinned(held[subset])
            lines.append(Line(entry.label, entry.run, recall, precision))
            told.append(f"{entry.label}: average precision {_average(entry, subset)}")
            short.append(f"{letter(entry.run)} {_average(entry, subset)}")
        if lines:
            lowest = min(float(line.y.min()) for line in lines)
            charts.append(
                Chart(
                    f"{group.key}-pr-{subset}",
                    f"Precision over recall: {subset}",
                    f"Precision over recall of the {subset} subset. {'; '.join(told)}.",
                    Axis("recall", 0.0, 1.0),
                    Axis("precision", _floor(lowest) if lowest > 0.5 else 0.0, 1.01),
                    tuple(lines),
                    figures=f"AP: {'; '.join(short)}",
                )
            )
    return charts


def _average(entry: Entry, subset: str) -> str:
    metric = entry.metric(f"ap/{subset}")
    if metric is None or metric.value is None:
        return "none"
    held = metric.interval
    bounds = f" ({100 * held.low:.2f} to {100 * held.high:.2f})" if held else ""
    return f"{100 * metric.value:.2f} %{bounds}"


def drift_chart(group: Group, notes: list[str]) -> list[Chart]:
    """Return how far the embeddings of each run lie from the reference's; say what is missing."""
    found: dict[Entry, npt.NDArray[np.float64]] = {}
    for entry, _ in group.ran:
        if entry.reference:
            continue
        try:
            drift = drift_of(group, entry)
        except EvalkitError as error:
            notes.append(f"Drift of {entry.label} is not shown: {str(error).rstrip('.')}.")
            continue
        if drift is not None and np.isfinite(drift.cosines).any():
            cosines = drift.cosines[np.isfinite(drift.cosines)]
            found[entry] = np.clip(1 - cosines, _SAME, None)
    if not found:
        return []
    limit = group.drift_limit
    ends = [1 - limit] if limit is not None and limit < 1 else []
    high = 3 * max([*ends, *(float(values.max()) for values in found.values()), 1e-5])
    edges = np.geomspace(_SAME / 2, min(high, 2.5), _DRIFT_BINS + 1)
    lines = tuple(
        Bars(entry.label, entry.run, edges, shares(values, edges))
        for entry, values in found.items()
    )
    told = [
        f"median {np.median(v):.1e}, 99th percentile {np.percentile(v, 99):.1e}"
        for v in found.values()
    ]
    short = (f"{letter(entry.run)} {text}" for entry, text in zip(found, told, strict=True))
    whole = (f"{entry.label}: {text}" for entry, text in zip(found, told, strict=True))
    marks = (Mark(1 - limit, "limit on the worst 1 %"),) if ends and limit is not None else ()
    top = max(float(line.heights.max()) for line in lines)
    return [
        Chart(
            f"{group.key}-drift",
            "Drift: how far each image's embedding moved",
            f"Histogram of 1 minus the cosine between each image's embedding and the reference's, "
            f"on a logarithmic axis; further right is worse. {'; '.join(whole)}.",
            Axis("1 - cosine to the reference", float(edges[0]), float(edges[-1]), log=True),
            Axis("share of images, %", 0.0, min(1.0, 1.08 * top), percent=True),
            (*lines, *marks),
            figures="; ".join(short),
        )
    ]
