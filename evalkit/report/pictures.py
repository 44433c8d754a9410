"""Pictures of the images on which a detector is worst: people look before they read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.errors import UnreadableImage
from evalkit.datasets.widerface import WiderFace
from evalkit.errors import InputError
from evalkit.files import atomic_write
from evalkit.widerface_eval import FALSE, HIT, IGNORED, Evaluation

Kind = Literal["hit", "miss", "false alarm", "ignored"]
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
_UNREADABLE: Colour = (96, 96, 96)
_FONT = cv2.FONT_HERSHEY_DUPLEX
_TEXT = 0.6
_SMALL = 0.45


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What one subset makes of one image at a score threshold.

    Attributes
    ----------
    image : int
        Its place in the ground truth.
    name : str
    boxes : dict of Kind to ndarray of shape (n, 4)
        Detections as judged; of a miss, the face. Ignored faces follow ignored detections.
    scores : dict of Kind to ndarray of shape (n,)
        Of the detections, the first of the boxes.
    found : ndarray of shape (n, 4)
        The faces that were hit.
    """

    image: int
    name: str
    boxes: dict[Kind, NDArray[np.float64]]
    scores: dict[Kind, NDArray[np.float64]]
    found: NDArray[np.float64]

    @property
    def counts(self) -> tuple[str, str]:
        """Say how many there are of each kind: those that count, and those ignored."""
        hits, misses, alarms = (len(self.boxes[kind]) for kind in _COUNTED)
        detections = len(self.scores["ignored"])
        faces = len(self.boxes["ignored"]) - detections
        return (
            f"{_number(hits, 'hit')}, {_number(misses, 'miss', 'misses')}, "
            f"{_number(alarms, 'false alarm')}",
            f"ignored: {_number(faces, 'face')}, {_number(detections, 'detection')}",
        )


_COUNTED: Final[tuple[Kind, ...]] = ("hit", "miss", "false alarm")


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def write_detection_pictures(
    folder: Path,
    wider: WiderFace,
    evaluation: Evaluation,
    *,
    worst: int = 12,
    score_threshold: float | None = None,
) -> list[Path]:
    """Draw detections and ground truth on the worst images of each subset.

    The worst have most misses and false alarms at the score threshold. Every detection is drawn
    as the evaluation judged it. A picture shows the part of its image that has faces or
    detections; the overview shows whole images, with small boxes drawn larger. An image without
    an error is not drawn, nor is a subset that keeps no face. Pictures of an earlier run stay
    where no new one has the same name.

    Parameters
    ----------
    folder : Path
        Where the pictures go.
    wider : WiderFace
        The images. Those that the evaluation does not know are left out, as are those of the
        evaluation that are not here.
    evaluation : Evaluation
    worst : int
        At most this many images a subset.
    score_threshold : float, optional
        Detections below this score, the detector's own, are not drawn and not counted. By
        default the threshold of best F1 of each subset, over the whole evaluation.

    Returns
    -------
    list of Path
        For each subset, ``SUBSET-overview.jpg`` and then ``SUBSET-RANK-EVENT-IMAGE.jpg``, worst
        first.

    Raises
    ------
    evalkit.errors.InputError
        An option is out of range, or the folder cannot be written.
    """
    if worst < 1:
        raise InputError(f"{worst} pictures a subset show nothing; ask for at least 1.")
    if score_threshold is not None and not math.isfinite(score_threshold):
        raise InputError(
            f"The score threshold of the pictures is {score_threshold}; give a number."
        )
    place = {name: index for index, name in enumerate(wider.images.names)}
    written = []
    for row, subset in enumerate(evaluation.ground_truth.subsets):
        if evaluation.curves[subset].faces == 0:
            continue
        threshold, why = score_threshold, "as chosen"
        if threshold is None:
            threshold, why = best_f1_threshold(evaluation, subset), "best F1"
        scenes = _worst_scenes(evaluation, row, threshold, place, worst)
        drawn_from = f"detections with score >= {threshold:.3g} ({why})"
        written += _write_subset(folder, subset, drawn_from, wider, scenes, place)
    return written


def worst_thumbnails(
    wider: WiderFace, evaluation: Evaluation, subset: str, *, worst: int
) -> Iterator[tuple[str, str, Image]]:
    """Draw the images of one subset with most misses and false alarms, small and whole.

    Parameters
    ----------
    wider : WiderFace
    evaluation : Evaluation
    subset : str
        It keeps at least one face.
    worst : int
        At most this many.

    Yields
    ------
    name : str
        Of the image.
    counts : str
        How many hits, misses and false alarms it has at the subset's best F1.
    picture : ndarray of uint8, shape (height, width, 3)
        In OpenCV's channel order.
    """
    place = {name: index for index, name in enumerate(wider.images.names)}
    row = list(evaluation.ground_truth.subsets).index(subset)
    threshold = best_f1_threshold(evaluation, subset)
    for scene in _worst_scenes(evaluation, row, threshold, place, worst):
        image, _ = _load(wider, place[scene.name], scene)
        yield scene.name, "; ".join(scene.counts), _thumbnail(image, scene)


def best_f1_threshold(evaluation: Evaluation, subset: str) -> float:
    """Lowest score that counts where precision and recall have the highest harmonic mean.

    Parameters
    ----------
    evaluation : Evaluation
    subset : str
        It keeps at least one face.

    Returns
    -------
    float
        In the detector's own scores.
    """
    curve = evaluation.curves[subset]
    step = int(np.argmax(2 * curve.recalled / (curve.proposals + curve.faces)))
    counting = evaluation.detections.scores[evaluation.levels <= step]
    return float(np.min(counting, initial=evaluation.score_range[1]))


def _worst_scenes(
    evaluation: Evaluation, row: int, threshold: float, known: dict[str, int], worst: int
) -> list[_Scene]:
    """Judge the known images in one subset, most errors first."""
    truth, found = evaluation.ground_truth, evaluation.detections
    outcome = evaluation.matches.outcome[row]
    kept = list(truth.subsets.values())[row]
    shown = found.scores >= threshold
    recalled = np.zeros(len(kept), bool)
    recalled[evaluation.matches.best[shown & (outcome == HIT)]] = True
    missed = kept & ~recalled
    # An image without faces is annotated with one box of no size, which is nothing to see.
    ignored = ~kept & (truth.boxes[:, 2:] > 0).all(axis=1)
    errors = np.bincount(truth.image_of[missed], minlength=len(truth.images))
    errors += np.bincount(found.image_of[shown & (outcome == FALSE)], minlength=len(truth.images))
    errors[[name not in known for name in truth.images]] = 0
    order = np.argsort(-errors, kind="stable")[:worst]
    scenes = []
    for image in order[errors[order] > 0].tolist():
        here = np.zeros(len(shown), bool)
        here[found.offsets[image] : found.offsets[image + 1]] = True
        there = np.zeros(len(kept), bool)
        there[truth.offsets[image] : truth.offsets[image + 1]] = True
        judged = {
            kind: np.flatnonzero(here & shown & (outcome == code))
            for kind, code in _OUTCOMES.items()
        }
        boxes = {kind: found.boxes[rows] for kind, rows in judged.items()}
        boxes["miss"] = truth.boxes[there & missed]
        boxes["ignored"] = np.concatenate([boxes["ignored"], truth.boxes[there & ignored]])
        scores = {kind: found.scores[rows] for kind, rows in judged.items()}
        faces = truth.boxes[there & recalled]
        scenes.append(_Scene(image, truth.images[image], boxes, scores, faces))
    return scenes


_OUTCOMES: Final[dict[Kind, int]] = {"hit": HIT, "false alarm": FALSE, "ignored": IGNORED}


def _write_subset(
    folder: Path,
    subset: str,
    drawn_from: str,
    wider: WiderFace,
    scenes: Sequence[_Scene],
    place: dict[str, int],
) -> list[Path]:
    """Write the pictures of one subset, and its overview."""
    if not scenes:
        return []
    paths, cells = [], []
    for rank, scene in enumerate(scenes, 1):
        image, remark = _load(wider, place[scene.name], scene)
        title = f"{subset} {rank}/{len(scenes)}   {scene.name}   {remark}"
        path = folder / f"{_safe(f'{subset}-{rank:02d}-{scene.name}')}.jpg"
        _save(path, _framed(_close_up(image, scene), title, "; ".join((*scene.counts, drawn_from))))
        paths.append(path)
        cells.append(_thumbnail(image, scene))
    overview = folder / f"{_safe(subset)}-overview.jpg"
    title = f"{subset}: the {len(scenes)} worst images, most misses and false alarms first"
    _save(overview, _framed(_sheet(cells, scenes), title, drawn_from))
    return [overview, *paths]


def _safe(name: str) -> str:
    """Make a file name of any name: no separators, no leading dot, never too long."""
    return re.sub(r"[^A-Za-z0-9._-]+|^\.+", "_", name.replace("/", "-"))[:120]


def _load(wider: WiderFace, index: int, scene: _Scene) -> tuple[Image, str]:
    """Return an image in OpenCV's channel order, or a grey field, and what to say of it."""
    try:
        return np.ascontiguousarray(wider.images.load(index)[:, :, ::-1]), ""
    except UnreadableImage:
        width, height = np.clip(_extent(scene)[1], 64, 2048).astype(int).tolist()
        return np.full((height, width, 3), _UNREADABLE, np.uint8), "UNREADABLE"


def _extent(scene: _Scene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last corner of all that is to be drawn."""
    boxes = np.concatenate([*scene.boxes.values(), scene.found])
    return boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)


def _close_up(image: Image, scene: _Scene) -> Image:
    """Draw a scene on the part of its image that it takes up, with scores."""
    high, wide = image.shape[:2]
    first, last = _extent(scene)
    left, top = np.clip(first - _MARGIN, 0, [wide - 1, high - 1]).astype(int).tolist()
    right, bottom = np.clip(last + _MARGIN, [left + 1, top + 1], [wide, high]).astype(int).tolist()
    scale = min(_LONG_SIDE / max(right - left, bottom - top), _MOST_ENLARGED)
    canvas = _resized(image[top:bottom, left:right], scale)
    _draw(canvas, scene, scale, (left, top))
    _scores(canvas, scene, scale, (left, top))
    return canvas


def _thumbnail(image: Image, scene: _Scene) -> Image:
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
    canvas: Image, scene: _Scene, scale: float, origin: tuple[int, int], *, small: bool = False
) -> None:
    """Draw all boxes, those that a reader looks for last and on top."""
    for kind in _DRAWN:
        faint = small and kind == "ignored"
        thickness = 1 if faint else 2 + (kind == "false alarm")
        boxes = _placed(scene.boxes[kind], scale, origin)
        for box in _grown(boxes) if small else boxes:
            _box(canvas, box, kind, thickness, rim=not faint)
    for face in _placed(scene.found, scale, origin):
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


def _scores(canvas: Image, scene: _Scene, scale: float, origin: tuple[int, int]) -> None:
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


def _sheet(cells: Sequence[Image], scenes: Sequence[_Scene]) -> Image:
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


def _framed(picture: Image, title: str, remark: str) -> Image:
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


def _save(path: Path, picture: Image) -> None:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    with atomic_write(path) as file:
        file.write(data.tobytes())
