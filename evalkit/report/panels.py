"""Panels of the pictures of curves: lines, letters and bars drawn into matplotlib's axes.

Every line carries its letter, and lines differ in dashes and width as well as in colour, so that
they can be told apart in grey.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from evalkit.protocols.roc import OperatingPoint, RocCurve
from evalkit.widerface_eval import Curve

# M. Okabe and K. Ito, "Color Universal Design", 2008: those dark enough for lines on white.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#B88700")
_DASHES: Final[tuple[Any, ...]] = (
    "solid",
    (0, (6, 2)),
    (0, (2, 1.5)),
    (0, (7, 2, 1.5, 2)),
    (0, (4, 1.5, 1, 1.5, 1, 1.5)),
)


def pr_panel(axes: Axes, subset: str, curves: Mapping[str, Curve | None]) -> None:
    """Draw precision over recall of each run in one subset."""
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


def roc_panel(
    axes: Axes, lines: Mapping[str, tuple[RocCurve, Sequence[OperatingPoint]]], rule: str
) -> None:
    """Draw the lines and the achieved points of each run."""
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


def histogram_panel(
    axes: Axes,
    run: str,
    edges: NDArray[np.float64],
    counts: tuple[NDArray[np.intp], NDArray[np.intp]],
    lost: int,
) -> None:
    """Draw one run's shares of genuine and impostor scores; `lost` have none."""
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


def mark_threshold(axes: Axes, threshold: float) -> None:
    """Mark a threshold in a run's panel of scores."""
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
