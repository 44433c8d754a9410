"""The curves of precision over recall as PNG, SVG, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evalkit.core.files import atomic_write
from evalkit.widerface_eval import Curve

Row: TypeAlias = Mapping[str, str | float | int | None]

_TITLE = "Precision over recall"
_DPI = 150
_BLUE = "#0072B2"


def write_pr_curves(folder: Path, run: str, curves: Mapping[str, Curve]) -> list[Path]:
    """Write precision over recall, one panel a subset.

    Parameters
    ----------
    folder : Path
    run : str
        Names the run in the legend and in the data.
    curves : mapping of str to Curve
        By subset, such as `Evaluation.curves`. The data of a subset without faces are empty.

    Returns
    -------
    list of Path
        ``pr.png``, ``pr.svg``, ``pr.csv`` (a row for each step of each curve) and ``pr.json`` (a
        summary, then the same data by column).

    Raises
    ------
    evalkit.core.errors.InputError
        The folder cannot be written.
    """
    figure = Figure(figsize=(4.6 * len(curves), 4.8), layout="constrained")
    panels = figure.subplots(1, len(curves), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (subset, curve) in zip(panels, curves.items(), strict=True):
        _draw(axes, subset, run, curve)
    panels[0].set_ylabel("precision")
    rows = [row for subset, curve in curves.items() for row in _rows(run, subset, curve)]
    summary = {run: {subset: curve.summary() for subset, curve in curves.items()}}
    contents = {
        "png": _picture(figure, "png", {"Title": _TITLE}),
        "svg": _picture(figure, "svg", {"Title": _TITLE, "Date": None}),
        "csv": _csv(rows),
        "json": _json({"summary": summary, "data": {k: [row[k] for row in rows] for k in rows[0]}}),
    }
    for suffix, content in contents.items():
        with atomic_write(folder / f"pr.{suffix}") as file:
            file.write(content)
    return [folder / f"pr.{suffix}" for suffix in contents]


def _draw(axes: Axes, subset: str, run: str, curve: Curve) -> None:
    axes.grid(color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), title=subset.capitalize(), xlabel="recall")
    if not curve.proposals.any() or curve.faces == 0:
        axes.text(0.5, 0.5, "no face kept, or no detection", ha="center", va="center")
        return
    known = curve.proposals > 0
    label = f"{run}, AP {curve.ap:.4f}"
    axes.plot(curve.recall[known], curve.precision[known], color=_BLUE, linewidth=1.6, label=label)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), handlelength=4, frameon=False)


def _rows(run: str, subset: str, curve: Curve) -> list[Row]:
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


def _csv(rows: list[Row]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def _json(values: object) -> bytes:
    return json.dumps(values, allow_nan=False).encode() + b"\n"


def _picture(figure: Figure, form: str, metadata: dict[str, str | None]) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=form, dpi=_DPI, metadata=metadata)
    return file.getvalue()
