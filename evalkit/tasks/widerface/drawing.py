"""Drawing of judged boxes: close-ups, thumbnails, and their frames with titles and a legend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.tasks.widerface.scenes import Kind, Scene

Colour = tuple[int, int, int]
Image = NDArray[np.uint8]

# From the palette of M. Okabe and K. Ito, "Color Universal Design", 2008, in the order blue, green,
# red. Their lightness differs too, so that they part in grey; so do the strokes.
COLOURS: Final[dict[Kind, Colour]] = {
    "hit": (233, 180, 86),
    "miss": (66, 228, 240),
    "false alarm": (20, 100, 240),
    "ignored": (235, 235, 235),
}
_STROKES: Final[dict[Kind, str]] = {
    "hit": "solid",
    "miss": "dashed",
    "false alarm": "corners",
    "ignored": "dotted",
}
_LEGEND: Final[dict[Kind, str]] = {
    "hit": "hit (thin: as annotated)",
    "miss": "miss",
    "false alarm": "false alarm",
    "ignored": "ignored, not in the subset",
}

_LONG_SIDE = 1600
_MARGIN = 60
_MOST_ENLARGED = 4
_MIN_WIDTH = 1200
_COLUMNS = 4
_THUMBNAIL = (480, 360)
_SMALLEST = 18
_GAP = 12
_BAR = 44
_CAPTION = 66
_LINE = 20
_PAPER: Colour = (36, 36, 36)
_INK: Colour = (240, 240, 240)
_FONT = cv2.FONT_HERSHEY_DUPLEX
_TEXT = 0.6
_SMALL = 0.45


def extent(scene: Scene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last corner of all that is to be drawn."""
    boxes = np.concatenate([*scene.boxes.values(), scene.faces])
    return boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)


def close_up(image: Image, scene: Scene) -> Image:
    """Draw a scene on the part of its image that it takes up, with scores."""
    high, wide = image.shape[:2]
    first, last = extent(scene)
    left, top = np.clip(first - _MARGIN, 0, [wide - 1, high - 1]).astype(int).tolist()
    right, bottom = np.clip(last + _MARGIN, [left + 1, top + 1], [wide, high]).astype(int).tolist()
    scale = min(_LONG_SIDE / max(right - left, bottom - top), _MOST_ENLARGED)
    canvas = _resized(image[top:bottom, left:right], scale)
    _draw(canvas, scene, scale, (left, top))
    _scores(canvas, scene, scale, (left, top))
    return canvas


def thumbnail(image: Image, scene: Scene) -> Image:
    """Draw a scene on its whole image, without scores."""
    scale = min(_THUMBNAIL[0] / image.shape[1], _THUMBNAIL[1] / image.shape[0])
    canvas = _resized(image, scale)
    _draw(canvas, scene, scale, (0, 0), small=True)
    return canvas


def _resized(image: Image, scale: float) -> Image:
    size = tuple(max(round(side * scale), 1) for side in (image.shape[1], image.shape[0]))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized: Image = cv2.resize(image, size, interpolation=way)
    return resized


def _draw(
    canvas: Image, scene: Scene, scale: float, origin: tuple[int, int], *, small: bool = False
) -> None:
    """Draw all boxes, those that a reader looks for last and on top."""
    for kind in _DRAWN:
        faint = small and kind == "ignored"
        thickness = 1 if faint else 2 + (kind == "false alarm")
        boxes = _placed(scene.boxes[kind], scale, origin)
        for box in _grown(boxes) if small else boxes:
            _box(canvas, box, kind, thickness, rim=not faint)
    for face in _placed(scene.faces, scale, origin):
        _box(canvas, face, "hit", 1, rim=False)


_DRAWN: Final[tuple[Kind, ...]] = ("ignored", "hit", "miss", "false alarm")


def _placed(
    boxes: NDArray[np.float64], scale: float, origin: tuple[int, int]
) -> NDArray[np.float64]:
    """Bring boxes into a picture's pixels."""
    moved: NDArray[np.float64] = (boxes - [*origin, 0, 0]) * scale
    return moved


def _grown(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grow small boxes about their centres until their strokes can be told apart."""
    more = np.maximum(_SMALLEST - boxes[:, 2:], 0)
    return np.hstack([boxes[:, :2] - more / 2, boxes[:, 2:] + more])


def _box(
    canvas: Image, box: NDArray[np.float64], kind: Kind, thickness: int, *, rim: bool = True
) -> None:
    """Draw one box in its kind's colour and strokes, with a dark rim to part it from the image."""
    segments = list(_segments(box, _STROKES[kind], 3 + 2 * thickness))
    for colour, width in (((0, 0, 0), thickness + 2 * rim), (COLOURS[kind], thickness)):
        for start, end in segments:
            cv2.line(canvas, start, end, colour, width, cv2.LINE_AA)


def _segments(
    box: NDArray[np.float64], strokes: str, unit: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut the four sides of a box into the pieces to draw, in whole pixels."""
    # Beyond the picture a box may reach out of what can be drawn.
    (left, top), (right, bottom) = np.clip(
        [box[:2], box[:2] + np.maximum(box[2:], 1)], -_MARGIN, _LONG_SIDE + _MARGIN
    )
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        length = max(math.dist(start, end), 1)
        for low, high in _pieces(length, strokes, unit):
            first, last = (
                (
                    round(start[0] + (end[0] - start[0]) * at / length),
                    round(start[1] + (end[1] - start[1]) * at / length),
                )
                for at in (low, high)
            )
            yield first, last


def _pieces(length: float, strokes: str, unit: int) -> list[tuple[float, float]]:
    if strokes == "solid":
        return [(0, length)]
    if strokes == "corners":
        arm = min(length * 0.3, 3 * unit)
        return [(0, arm), (length - arm, length)]
    dash, gap = (1.4 * unit, 0.9 * unit) if strokes == "dashed" else (0.1 * unit, 0.9 * unit)
    count = max(round(length / (dash + gap)), 1)
    period = (length + gap) / (count + 1)
    return [(period * i, period * i + period * dash / (dash + gap)) for i in range(count + 1)]


def _scores(canvas: Image, scene: Scene, scale: float, origin: tuple[int, int]) -> None:
    """Write each detection's score at its box, where there is room."""
    taken: list[tuple[int, int, int, int]] = []
    for kind in reversed(_DRAWN):
        boxes = _placed(scene.boxes[kind], scale, origin)
        for box, score in zip(boxes, scene.scores.get(kind, ()), strict=False):
            text = f"{score:.2f}"
            (width, height), _ = cv2.getTextSize(text, _FONT, _SMALL, 1)
            left, top, _, tall = box.round().astype(int).tolist()
            for upper in (top - height - 6, top + tall + 4):
                spot = (left, upper, left + width + 4, upper + height + 4)
                if _fits(spot, taken, canvas):
                    taken.append(spot)
                    cv2.rectangle(canvas, spot[:2], spot[2:], (0, 0, 0), cv2.FILLED)
                    _write(canvas, text, left + 2, spot[3] - 2, _SMALL, COLOURS[kind])
                    break


def _fits(
    spot: tuple[int, int, int, int], taken: Sequence[tuple[int, int, int, int]], canvas: Image
) -> bool:
    left, top, right, bottom = spot
    if left < 0 or top < 0 or right > canvas.shape[1] or bottom > canvas.shape[0]:
        return False
    return all(left > d or right < b or top > e or bottom < c for b, c, d, e in taken)


def contact_sheet(cells: Sequence[Image], scenes: Sequence[Scene]) -> Image:
    """Lay thumbnails out with their rank, name and counts."""
    width, height = _THUMBNAIL
    columns = min(_COLUMNS, len(cells))
    lines = -(-len(cells) // columns)
    sheet = np.full(
        (lines * (height + _CAPTION + _GAP), columns * (width + _GAP) + _GAP, 3), _PAPER, np.uint8
    )
    for place, (cell, scene) in enumerate(zip(cells, scenes, strict=True)):
        left = _GAP + place % columns * (width + _GAP)
        top = place // columns * (height + _CAPTION + _GAP)
        high, wide = cell.shape[:2]
        at = left + (width - wide) // 2
        sheet[top + height - high : top + height, at : at + wide] = cell
        name = f"{place + 1}  {scene.name.rpartition('/')[2]}"
        for line, text in enumerate((name, *scene.counts), 1):
            _write(sheet, _shortened(text, width), left, top + height + line * _LINE - 2, _SMALL)
    return sheet


def framed(picture: Image, title: str, remark: str) -> Image:
    """Set a picture between its title and the legend."""
    height, width = picture.shape[:2]
    full = max(width, _MIN_WIDTH)
    canvas = np.full((height + 3 * _BAR, full, 3), _PAPER, np.uint8)
    left = (full - width) // 2
    canvas[_BAR : _BAR + height, left : left + width] = picture
    _write(canvas, _shortened(title, full - 2 * _GAP, _TEXT), _GAP, _BAR - 15, _TEXT)
    remark = _shortened(remark, full - 2 * _GAP, _TEXT)
    _write(canvas, remark, _GAP, _BAR + height + 30, _TEXT)
    at = _GAP
    for kind, text in _LEGEND.items():
        swatch = np.array([at, 2 * _BAR + height + 8, 36, 24], float)
        _box(canvas, swatch, kind, 2)
        _write(canvas, text, at + 46, 2 * _BAR + height + 27, _TEXT)
        at += 46 + cv2.getTextSize(text, _FONT, _TEXT, 1)[0][0] + 3 * _GAP
    return canvas


def _shortened(text: str, width: int, scale: float = _SMALL) -> str:
    """Cut a text's end off until it fits."""
    short = text
    while short and cv2.getTextSize(short, _FONT, scale, 1)[0][0] > width:
        short = short[:-4] + "..." if len(short) > 4 else ""
    return short


def _write(
    canvas: Image, text: str, left: int, baseline: int, scale: float, colour: Colour = _INK
) -> None:
    cv2.putText(canvas, text, (left, baseline), _FONT, scale, colour, 1, cv2.LINE_AA)
