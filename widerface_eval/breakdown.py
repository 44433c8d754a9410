"""AP and recall by event and by height of the face, to see where a model loses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.widerface_eval.errors import WiderFaceError
from evalkit.widerface_eval.evaluation import Curve, Evaluation, curve_of
from evalkit.widerface_eval.matching import FALSE, IGNORED, match_boxes

HEIGHT_BANDS = ((10.0, 50.0), (50.0, 300.0), (300.0, math.inf))


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of an evaluation.

    Attributes
    ----------
    name : str
        An event, or a band of heights such as ``50-300``.
    subset : str
        The subset whose faces it keeps.
    curve : Curve
    """

    name: str
    subset: str
    curve: Curve


def by_event(evaluation: Evaluation) -> tuple[Slice, ...]:
    """Every event in every subset; scores stay normalised over the whole set.

    Returns
    -------
    tuple of Slice
        In order of event, then subset.
    """
    truth = evaluation.ground_truth
    event_of_detection = truth.event_of_image[evaluation.detections.image_of]
    event_of_face = truth.event_of_image[truth.image_of]
    slices = []
    for index, event in enumerate(truth.events):
        inside = event_of_detection == index
        there = event_of_face == index
        for row, (subset, kept) in enumerate(truth.subsets.items()):
            curve = curve_of(
                evaluation.levels[inside],
                evaluation.matches.outcome[row, inside],
                float(np.count_nonzero(kept[there])),
                evaluation.settings.steps,
            )
            slices.append(Slice(event, subset, curve))
    return tuple(slices)


def by_height(
    evaluation: Evaluation,
    bands: Sequence[tuple[float, float]] = HEIGHT_BANDS,
    subset: str = "hard",
) -> tuple[Slice, ...]:
    """Faces of a subset by the height of their box.

    A band ignores the faces of other heights and the detections that hit them. It also ignores
    detections that hit no face and whose own height is outside the band, as COCO does for the
    sizes of objects.

    Parameters
    ----------
    evaluation : Evaluation
    bands : sequence of (float, float)
        Lowest height, and the height above the highest, in pixels of the image.
    subset : str
        The largest by default.

    Raises
    ------
    WiderFaceError
        The subset is unknown, or a band is empty.
    """
    truth, boxes, settings = (
        evaluation.ground_truth,
        evaluation.detections.boxes,
        evaluation.settings,
    )
    if subset not in truth.subsets:
        raise WiderFaceError(f"There is no subset {subset!r}. Known: {', '.join(truth.subsets)}.")
    for low, high in bands:
        if not low < high:
            raise WiderFaceError(f"The height band from {low} to {high} is empty.")
    kept = np.stack([truth.subsets[subset] & _within(truth.boxes, band) for band in bands])
    matches = match_boxes(
        evaluation.detections,
        truth,
        kept,
        iou=settings.iou,
        arithmetic="int32" if settings.rule == "matlab_int" else "double",
    )
    slices = []
    for row, band in enumerate(bands):
        outcome = matches.outcome[row].copy()
        stray = (outcome == FALSE) & (matches.best < 0) & ~_within(boxes, band)
        outcome[stray] = IGNORED
        faces = float(np.count_nonzero(kept[row]))
        curve = curve_of(evaluation.levels, outcome, faces, settings.steps)
        slices.append(Slice(_name(band), subset, curve))
    return tuple(slices)


def _within(boxes: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    return (boxes[:, 3] >= band[0]) & (boxes[:, 3] < band[1])


def _name(band: tuple[float, float]) -> str:
    low, high = band
    return f"{low:g}+" if math.isinf(high) else f"{low:g}-{high:g}"
