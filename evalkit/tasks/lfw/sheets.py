"""Contact sheets of the worst errors: people look before they read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.core.files import atomic_write
from evalkit.core.results import Result
from evalkit.datasets.errors import UnreadableImage
from evalkit.datasets.lfw import LfwImages, LfwPairs

_COLUMNS = 5
_ROWS = 6
_SIDE = 112
_GAP = 10
_CAPTION = 34
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_error_sheets(
    folder: Path, pairs: LfwPairs, result: Result, scores: Mapping[str, NDArray[Any]]
) -> list[Path]:
    """Write the worst false accepts and false rejects of a set as PNG pictures.

    Parameters
    ----------
    folder : Path
    pairs : LfwPairs
    result : Result
        Its first accuracy gives the threshold.
    scores : mapping of str to ndarray
        Squared distances of the run: those that the rule of that accuracy judges.

    Returns
    -------
    list of Path
        ``NAME-false-accepts.png`` and ``NAME-false-rejects.png``.
    """
    accuracy = next(m for m in result.metrics if m.figure == "accuracy")
    threshold = accuracy.at["distance"] or 0.0
    plain = "distances_no_flip" if accuracy.rule == "facexzoo" else "distances"
    distances = scores.get(plain, scores["distances"])
    called = distances < threshold
    kinds = {
        "false-accepts": (np.flatnonzero(called & ~pairs.issame), 1),
        "false-rejects": (np.flatnonzero(~called & pairs.issame), -1),
    }
    written = []
    for kind, (rows, sign) in kinds.items():
        worst = rows[np.argsort(sign * distances[rows], kind="stable")][: _COLUMNS * _ROWS]
        title = (
            f"{pairs.name}: {len(worst)} of {len(rows)} {kind.replace('-', ' ')}, worst first; "
            f"threshold {threshold:.3f}, rule {accuracy.rule}"
        )
        sheet = _sheet(title, pairs, worst, distances)
        path = folder / f"{pairs.name.replace(':', '-')}-{kind}.png"
        with atomic_write(path) as file:
            file.write(cv2.imencode(".png", sheet)[1].tobytes())
        written.append(path)
    return written


def _sheet(
    title: str, pairs: LfwPairs, rows: NDArray[np.intp], distances: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Draw pairs side by side, with their number and distance below."""
    images = LfwImages(pairs, _SIDE)
    columns = max(min(_COLUMNS, len(rows)), 3)
    lines = max(-(-len(rows) // columns), 1)
    cell = 2 * _SIDE + _GAP
    canvas = np.full(
        (_CAPTION + lines * (_SIDE + _CAPTION) + _GAP, columns * cell + _GAP, 3), 255, np.uint8
    )
    _write(canvas, title, _GAP, _CAPTION - 12)
    if not len(rows):
        _write(canvas, "none", _GAP, _CAPTION + _SIDE // 2)
    for place, row in enumerate(rows.tolist()):
        top = _CAPTION + place // columns * (_SIDE + _CAPTION)
        left = _GAP + place % columns * cell
        for side in (0, 1):
            at = left + side * _SIDE
            canvas[top : top + _SIDE, at : at + _SIDE] = _picture(images, 2 * row + side)
        _write(canvas, f"pair {row}   distance {distances[row]:.3f}", left, top + _SIDE + 16)
    return canvas


def _picture(images: LfwImages, index: int) -> NDArray[np.uint8]:
    """Return an image in OpenCV's channel order, a grey square where it is unreadable."""
    try:
        return images.load(index)[:, :, ::-1]
    except UnreadableImage:
        return np.full((_SIDE, _SIDE, 3), 160, np.uint8)


def _write(canvas: NDArray[np.uint8], text: str, left: int, baseline: int) -> None:
    cv2.putText(canvas, text, (left, baseline), _FONT, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
