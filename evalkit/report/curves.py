"""Curves of detection and verification as PNG, SVG, CSV and JSON.

Several runs share one picture. Every line carries its letter, and lines differ in dashes and width
as well as in colour, so that they can be told apart in grey.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evalkit.errors import InputError
from evalkit.files import atomic_write
from evalkit.protocols.roc import (
    FAR_TARGETS,
    FarRule,
    OperatingPoint,
    RocCurve,
    roc_curve_points,
    tar_at_far,
)
from evalkit.widerface_eval import Curve

Scores: TypeAlias = NDArray[np.floating[Any]]
Row: TypeAlias = Mapping[str, str | float | int | None]

# M. Okabe and K. Ito, "Color Universal Design", 2008: those dark enough for lines on white.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#B88700")
_DASHES: Final[tuple[Any, ...]] = (
    "solid",
    (0, (6, 2)),
    (0, (2, 1.5)),
    (0, (7, 2, 1.5, 2)),
    (0, (4, 1.5, 1, 1.5, 1, 1.5)),
)
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
    evalkit.errors.InputError
        There is no run, or the folder cannot be written.
    """
    subsets = list(dict.fromkeys(subset for curves in runs.values() for subset in curves))
    _require(subsets)
    figure = Figure(figsize=(4.6 * len(subsets), 4.8), layout="constrained")
    panels = figure.subplots(1, len(subsets), sharex=True, sharey=True, squeeze=False)[0]
    for axes, subset in zip(panels, subsets, strict=True):
        _pr_panel(axes, subset, {run: curves.get(subset) for run, curves in runs.items()})
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
    evalkit.errors.InputError
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
    _roc_panel(axes, lines, rule)
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
    evalkit.errors.InputError
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
        _histogram_panel(axes, run, edges, counts, lost)
        if thresholds is not None and run in thresholds:
            _mark_threshold(axes, thresholds[run])
        rows += _histogram_rows(run, edges, counts)
        summary[run] = {"genuine": len(genuine), "impostors": len(impostors), "not_finite": lost}
    panels[-1].set_xlabel("score")
    return _write(folder, name, figure, "Genuine and impostor scores", rows, summary)


def _require(runs: Collection[str]) -> None:
    if not runs:
        raise InputError("There is no run to draw; name at least one.")


def _pr_panel(axes: Axes, subset: str, curves: Mapping[str, Curve | None]) -> None:
    _prepare(axes)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), title=subset.capitalize(), xlabel="recall")
    drawn = False
    for index, (run, curve) in enumerate(curves.items()):
        if curve is None or not curve.proposals.any() or curve.faces == 0:
            continue
        drawn = True
        known = curve.proposals > 0
        recall, precision = curve.recall[known], curve.precision[known]
        style = _style(index, len(curves), f"{run}, AP {curve.ap:.4f}")
        axes.plot(recall, precision, **style)
        if len(curves) == 1:
            continue
        # Letters lie on rays from the origin, so that those of like curves keep apart.
        ray = np.tan(_spread(index, len(curves), 0.45, 1.1))
        at = int(np.argmin(np.abs(precision - ray * recall)))
        _put_letter(axes, index, float(recall[at]), float(precision[at]))
    if drawn:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), handlelength=4, frameon=False)
    else:
        axes.text(0.5, 0.5, "no face kept, or no detection", ha="center", va="center")


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


def _roc_panel(
    axes: Axes, lines: Mapping[str, tuple[RocCurve, Sequence[OperatingPoint]]], rule: str
) -> None:
    # A FAR of 0 has no place on the axis: its TAR is drawn as a level piece at the left.
    left = min(curve.far[curve.far > 0].min(initial=0.1) for curve, _ in lines.values()) / 2
    lowest = min(curve.tar[0] for curve, _ in lines.values())
    bottom = max(0.0, math.floor((lowest - 0.02) * 10) / 10)
    _prepare(axes)
    axes.set(xscale="log", xlim=(left, 1), ylim=(bottom, 1.005))
    axes.set(xlabel="false accept rate (FAR)", ylabel="true accept rate (TAR)")
    for index, (run, (curve, points)) in enumerate(lines.items()):
        style = _style(index, len(lines), run)
        seen = curve.far > 0
        far = np.concatenate([[left], curve.far[seen]])
        tar = np.concatenate([curve.tar[:1], curve.tar[seen]])
        axes.step(far, tar, where="post", **style)
        for point in points:
            if point.far > 0:
                face = "white" if point.too_few else style["color"]
                dot = {"color": style["color"], "markerfacecolor": face, "markersize": 5}
                axes.plot(point.far, point.tar, "o", clip_on=False, **dot)
        if len(lines) == 1:
            continue
        # At a quarter of a decade, where no achieved point is hidden.
        decade = (1 - _spread(index, len(lines), 0.15, 0.7)) * math.log10(left)
        place = 10 ** (math.floor(2 * decade) / 2 + 0.25)
        at = int(np.searchsorted(far, place, side="right")) - 1
        _put_letter(axes, index, place, float(tar[at]))
    axes.legend(
        loc="lower right",
        handlelength=4,
        title=f"points: achieved, rule {rule};\nhollow: too few false accepts expected",
        title_fontsize=8.5,
    )


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


def _histogram_panel(
    axes: Axes,
    run: str,
    edges: NDArray[np.float64],
    counts: tuple[NDArray[np.intp], NDArray[np.intp]],
    lost: int,
) -> None:
    styles = (("genuine", _COLOURS[0], "////"), ("impostor", _COLOURS[1], None))
    for values, (kind, colour, hatch) in zip(counts, styles, strict=True):
        total = int(values.sum())
        if total == 0:
            continue
        share = values / total
        axes.stairs(share, edges, fill=True, facecolor=colour, alpha=0.25)
        axes.stairs(share, edges, edgecolor=colour, hatch=hatch, fill=False, linewidth=1.4)
        peak = int(np.argmax(share))
        axes.annotate(
            f"{kind}, {total:,}",
            ((edges[peak] + edges[peak + 1]) / 2, share[peak]),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            color=colour,
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    missing = f"   ({lost:,} failed to enrol, not shown)" if lost else ""
    axes.set_title(f"{run}{missing}", fontsize=10, loc="left")
    axes.set(yscale="log", ylabel="share of its class")
    axes.margins(y=0.15)
    _prepare(axes)


def _mark_threshold(axes: Axes, threshold: float) -> None:
    axes.axvline(threshold, color="black", linewidth=1, linestyle=(0, (4, 2)))
    axes.annotate(
        f"threshold {threshold:.4g}",
        (threshold, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


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


def _style(index: int, count: int, label: str) -> dict[str, Any]:
    """Colour, dashes and width of a line; earlier lines are wider and show under later ones."""
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "linewidth": min(1.6 + 0.9 * (count - 1 - index), 4.5),
        "label": label if count == 1 else f"{_letter(index)}  {label}",
    }


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def _spread(index: int, count: int, low: float, high: float) -> float:
    """Place one of several evenly between two ends, a single one in the middle."""
    return low + (high - low) * (index + 0.5) / count


def _put_letter(axes: Axes, index: int, x: float, y: float) -> None:
    colour = _COLOURS[index % len(_COLOURS)]
    axes.text(
        x,
        y,
        _letter(index),
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold",
        color=colour,
        bbox={"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": colour},
    )


def _prepare(axes: Axes) -> None:
    axes.grid(color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


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
