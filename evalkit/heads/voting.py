"""Box voting: joining the detections of several views of one image.

As in the public multi-scale WIDER FACE protocols (S3FD, PyramidBox, DSFD, RetinaFace): the best
box and all boxes that overlap it become one box. It is their average weighted by score, and has the
best score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.heads.detection import Detections, Floats, joined
from evalkit.heads.nms import Overlap, extra_pixel


def vote(
    views: Sequence[Detections],
    threshold: float = 0.4,
    *,
    overlap: Overlap = "plus_one",
    keep_single: bool = True,
    limit: int | None = 750,
) -> Detections:
    """Join the detections of several views.

    Parameters
    ----------
    views : sequence of Detections
        In pixels of the original image; landmarks are joined if every view has them.
    threshold : float
        Boxes that overlap the best one by at least this much join it (0.3 in S3FD, 0.4 in
        RetinaFace).
    overlap : {'plus_one', 'continuous'}
        See `evalkit.heads.nms.nms`.
    keep_single : bool
        Whether a box without others is kept. The public protocols drop it, since only one view
        has it.
    limit : int, optional
        The largest number of boxes.

    Returns
    -------
    Detections
        By descending score.

    Examples
    --------
    >>> one = Detections(np.float32([[0, 0, 10, 10]]), np.float32([0.9]))
    >>> two = Detections(np.float32([[1, 0, 11, 10]]), np.float32([0.3]))
    >>> vote([one, two]).boxes
    array([[ 0.25,  0.  , 10.25, 10.  ]], dtype=float32)
    """
    if not views:
        raise ValueError("voting needs at least one view")
    if any(view.landmarks is None for view in views):
        views = [Detections(view.boxes, view.scores) for view in views]
    left = joined(views)
    left = left.take(np.argsort(-left.scores, kind="stable"))
    chosen: list[Detections] = []
    while len(left) and (limit is None or len(chosen) < limit):
        joins = _overlaps(left.boxes[0], left.boxes, extra_pixel(overlap)) >= threshold
        # A box joins itself, even if rounding or a tiny area gives a lower overlap.
        joins[0] = True
        group = left.take(np.flatnonzero(joins))
        left = left.take(np.flatnonzero(~joins))
        if len(group) > 1 or keep_single:
            chosen.append(_average(group))
    return joined(chosen) if chosen else left.take(slice(0, 0))


def _average(group: Detections) -> Detections:
    # If all scores are 0, all boxes have the same weight.
    weights = group.scores.astype(np.float64)
    weights = weights if weights.sum() > 0 else np.ones_like(weights)
    points = group.landmarks
    return Detections(
        _weighted(group.boxes, weights),
        group.scores[:1],
        None if points is None else _weighted(points, weights),
    )


def _weighted(values: Floats, weights: NDArray[np.float64]) -> Floats:
    return np.average(values, axis=0, weights=weights)[None].astype(np.float32)


def _overlaps(box: NDArray[Any], boxes: NDArray[Any], extra: float) -> NDArray[np.float64]:
    box, boxes = box.astype(np.float64), boxes.astype(np.float64)
    area = (box[2:] - box[:2] + extra).prod()
    areas = (boxes[:, 2:] - boxes[:, :2] + extra).prod(axis=1)
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + extra
    shared = np.maximum(sides, 0).prod(axis=1)
    result: NDArray[np.float64] = shared / (area + areas - shared)
    return result
