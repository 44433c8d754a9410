"""Pictures of the images on which a detector is worst: people look before they read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write
from evalkit.datasets.errors import UnreadableImage
from evalkit.datasets.widerface import WiderFace
from evalkit.report.drawing import (
    Colour,
    Image,
    Kind,
    Scene,
    close_up,
    contact_sheet,
    extent,
    framed,
    thumbnail,
)
from evalkit.widerface_eval import FALSE, HIT, IGNORED, Evaluation

_UNREADABLE: Colour = (96, 96, 96)


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
    evalkit.core.errors.InputError
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
        yield scene.name, "; ".join(scene.counts), thumbnail(image, scene)


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
) -> list[Scene]:
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
        scenes.append(Scene(image, truth.images[image], boxes, scores, faces))
    return scenes


_OUTCOMES: Final[dict[Kind, int]] = {"hit": HIT, "false alarm": FALSE, "ignored": IGNORED}


def _write_subset(
    folder: Path,
    subset: str,
    drawn_from: str,
    wider: WiderFace,
    scenes: Sequence[Scene],
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
        _save(path, framed(close_up(image, scene), title, "; ".join((*scene.counts, drawn_from))))
        paths.append(path)
        cells.append(thumbnail(image, scene))
    overview = folder / f"{_safe(subset)}-overview.jpg"
    title = f"{subset}: the {len(scenes)} worst images, most misses and false alarms first"
    _save(overview, framed(contact_sheet(cells, scenes), title, drawn_from))
    return [overview, *paths]


def _safe(name: str) -> str:
    """Make a file name of any name: no separators, no leading dot, never too long."""
    return re.sub(r"[^A-Za-z0-9._-]+|^\.+", "_", name.replace("/", "-"))[:120]


def _load(wider: WiderFace, index: int, scene: Scene) -> tuple[Image, str]:
    """Return an image in OpenCV's channel order, or a grey field, and what to say of it."""
    try:
        return np.ascontiguousarray(wider.images.load(index)[:, :, ::-1]), ""
    except UnreadableImage:
        width, height = np.clip(extent(scene)[1], 64, 2048).astype(int).tolist()
        return np.full((height, width, 3), _UNREADABLE, np.uint8), "UNREADABLE"


def _save(path: Path, picture: Image) -> None:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    with atomic_write(path) as file:
        file.write(data.tobytes())
