"""Curves of detection and verification as PNG, SVG, CSV and JSON; several runs share a picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write
from evalkit.protocols.roc import (
    FAR_TARGETS,
    FarRule,
    OperatingPoint,
    RocCurve,
    roc_curve_points,
    tar_at_far,
)
from evalkit.report.panels import histogram_panel, mark_threshold, pr_panel, roc_panel
from evalkit.widerface_eval import Curve

Scores: TypeAlias = NDArray[np.floating[Any]]
Row: TypeAlias = Mapping[str, str | float | int | None]

_BINS = 100
_DPI = 150


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonScores:
    """The scores of one run's comparisons; higher means more alike.

    Attributes
    ----------
    genuine : ndarray of shape (n_genuine,)
        Of one subject with itself; not finite means failure to enrol.
    impostors : ndarray of shape (n_impostors,)
        Of two subjects.
    """

    genuine: Scores
    impostors: Scores


def write_pr_curves(
    folder: Path, runs: Mapping[str, Mapping[str, Curve]], *, name: str = "pr"
) -> list[Path]:
    """Write precision over recall, one panel a subset, all runs in each.

    Parameters
    ----------
    folder : Path
    runs : mapping of str to mapping of str to Curve
        The curves of each run by subset, such as `Evaluation.curves`. A subset that keeps no face
        has no curve, and its data are empty.
    name : str
        Of the files, without suffix.

    Returns
    -------
    list of Path
        ``NAME.png``, ``NAME.svg``, ``NAME.csv`` (a row for each step of each curve) and
        ``NAME.json`` (a summary of each run, then the same data by column).

    Raises
    ------
    evalkit.core.errors.InputError
        There is no run, or the folder cannot be written.
    """
    subsets = list(dict.fromkeys(subset for curves in runs.values() for subset in curves))
    _require(subsets)
    figure = Figure(figsize=(4.6 * len(subsets), 4.8), layout="constrained")
    panels = figure.subplots(1, len(subsets), sharex=True, sharey=True, squeeze=False)[0]
    for axes, subset in zip(panels, subsets, strict=True):
        pr_panel(axes, subset, {run: curves.get(subset) for run, curves in runs.items()})
    panels[0].set_ylabel("precision")
    rows = [
        row
        for run, curves in runs.items()
        for subset, curve in curves.items()
        for row in _pr_rows(run, subset, curve)
    ]
    summary = {
        run: {subset: curve.summary() for subset, curve in curves.items()}
        for run, curves in runs.items()
    }
    return _write(folder, name, figure, "Precision over recall", rows, summary)


def write_roc_curves(
    folder: Path,
    runs: Mapping[str, ComparisonScores],
    *,
    targets: Sequence[float] = FAR_TARGETS,
    rule: FarRule = "at_most",
    name: str = "roc",
) -> list[Path]:
    """Write TAR over FAR on a logarithmic axis, with the achieved points marked.

    Parameters
    ----------
    folder : Path
    runs : mapping of str to ComparisonScores
    targets : sequence of float
        FARs whose achieved points are marked; filled where enough impostors stand behind them,
        hollow where fewer than 30 false accepts are expected.
    rule : {'at_most', 'insightface_nearest', 'interpolated'}
        Of the marked points. The lines are always ``at_most``.
    name : str
        Of the files, without suffix.

    Returns
    -------
    list of Path
        ``NAME.png``, ``NAME.svg``, ``NAME.csv`` (the lines' points, then the achieved ones) and
        ``NAME.json`` (a summary of each run, then the same data by column).

    Raises
    ------
    evalkit.core.errors.InputError
        There is no run, a run lacks a class of comparisons, or the folder cannot be written.
    """
    _require(runs)
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    axes = figure.subplots()
    rows: list[Row] = []
    summary, lines = {}, {}
    for run, scores in runs.items():
        try:
            curve = roc_curve_points(scores.genuine, scores.impostors)
            points = tar_at_far(scores.genuine, scores.impostors, targets, rule)
        except ValueError as error:
            raise InputError(f"There is no curve of {run!r}: {error}.") from error
        lines[run] = curve, points
        rows += _roc_rows(run, curve, points)
        summary[run] = {"genuine": scores.genuine.size, "impostors": scores.impostors.size}
    roc_panel(axes, lines, rule)
    return _write(folder, name, figure, "True over false accept rate", rows, summary)


def write_score_histograms(
    folder: Path,
    runs: Mapping[str, ComparisonScores],
    *,
    thresholds: Mapping[str, float] | None = None,
    name: str = "scores",
) -> list[Path]:
    """Write how genuine and impostor scores lie, one panel a run over one axis of scores.

    Shares of each class are shown on a logarithmic axis, since the errors are in the tails.

    Parameters
    ----------
    folder : Path
    runs : mapping of str to ComparisonScores
        Scores that are not finite are left out of the bins, and counted in the panel's title.
    thresholds : mapping of str to float, optional
        A threshold to mark in a run's panel.
    name : str
        Of the files, without suffix.

    Returns
    -------
    list of Path
        ``NAME.png``, ``NAME.svg``, ``NAME.csv`` (a row for each bin of each run) and
        ``NAME.json`` (a summary of each run, then the same data by column).

    Raises
    ------
    evalkit.core.errors.InputError
        There is no run, no score is finite, or the folder cannot be written.
    """
    _require(runs)
    finite = {
        run: (_finite(scores.genuine), _finite(scores.impostors)) for run, scores in runs.items()
    }
    edges = _edges(values for pair in finite.values() for values in pair)
    figure = Figure(figsize=(8, 1 + 3.4 * len(runs)), layout="constrained")
    panels = figure.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    rows: list[Row] = []
    summary = {}
    for axes, (run, (genuine, impostors)) in zip(panels, finite.items(), strict=True):
        counts = np.histogram(genuine, edges)[0], np.histogram(impostors, edges)[0]
        lost = runs[run].genuine.size + runs[run].impostors.size - len(genuine) - len(impostors)
        histogram_panel(axes, run, edges, counts, lost)
        if thresholds is not None and run in thresholds:
            mark_threshold(axes, thresholds[run])
        rows += _histogram_rows(run, edges, counts)
        summary[run] = {"genuine": len(genuine), "impostors": len(impostors), "not_finite": lost}
    panels[-1].set_xlabel("score")
    return _write(folder, name, figure, "Genuine and impostor scores", rows, summary)


def _require(runs: Collection[str]) -> None:
    if not runs:
        raise InputError("There is no run to draw; name at least one.")


def _pr_rows(run: str, subset: str, curve: Curve) -> list[Row]:
    steps, defined = len(curve.proposals), curve.faces > 0
    recall, precision = curve.recall, curve.precision
    return [
        {
            "run": run,
            "subset": subset,
            "threshold": 1 - (step + 1) / steps,
            "recall": float(recall[step]) if defined else None,
            "precision": float(precision[step]),
            "recalled": int(curve.recalled[step]),
            "proposals": int(curve.proposals[step]),
        }
        for step in range(steps)
    ]


def _roc_rows(run: str, curve: RocCurve, points: Sequence[OperatingPoint]) -> list[Row]:
    drawn = zip(curve.far.tolist(), curve.tar.tolist(), curve.threshold.tolist(), strict=True)
    cells: list[tuple[str, float | None, float, float, float]] = [
        *(("curve", None, *place) for place in drawn),
        *(
            (
                "few" if point.too_few else "point",
                point.target,
                point.far,
                point.tar,
                point.threshold,
            )
            for point in points
        ),
    ]
    return [
        {"run": run, "kind": kind, "target": target, "far": far, "tar": tar, "threshold": threshold}
        for kind, target, far, tar, threshold in cells
    ]


def _histogram_rows(
    run: str,
    edges: NDArray[np.float64],
    counts: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> list[Row]:
    genuine, impostors = (values.tolist() for values in counts)
    low, high = edges[:-1].tolist(), edges[1:].tolist()
    return [
        {"run": run, "low": a, "high": b, "genuine": g, "impostors": i}
        for a, b, g, i in zip(low, high, genuine, impostors, strict=True)
    ]


def _edges(scores: Iterable[Scores]) -> NDArray[np.float64]:
    """Bins over all scores of all runs."""
    ends = [end for values in scores if len(values) for end in (values.min(), values.max())]
    if not ends:
        raise InputError("No score is finite, so that there is nothing to draw.")
    return np.histogram_bin_edges(np.array(ends, np.float64), _BINS)


def _finite(scores: Scores) -> Scores:
    return scores[np.isfinite(scores)]


def _write(
    folder: Path,
    name: str,
    figure: Figure,
    title: str,
    rows: Sequence[Row],
    summary: Mapping[str, Any],
) -> list[Path]:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    data = {"summary": summary, "data": {key: [row[key] for row in rows] for key in rows[0]}}
    contents = {
        "png": _picture(figure, "png", {"Title": title}),
        "svg": _picture(figure, "svg", {"Title": title, "Date": None}),
        "csv": text.getvalue().encode(),
        "json": json.dumps(data, allow_nan=False).encode() + b"\n",
    }
    for suffix, content in contents.items():
        with atomic_write(folder / f"{name}.{suffix}") as file:
            file.write(content)
    return [folder / f"{name}.{suffix}" for suffix in contents]


def _picture(figure: Figure, form: str, metadata: dict[str, str | None]) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, format=form, dpi=_DPI, metadata=metadata)
    return held.getvalue()
