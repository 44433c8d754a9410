"""AP of WIDER FACE in the way of the Python tools that people know, slow and obviously right.

One subset at a time, a loop over the detections of an image, a loop over the thresholds. The tests
and the benchmark compare the evaluator with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.widerface_eval._reference import overlaps


def evaluate_image(
    detections: NDArray[np.float64], faces: NDArray[np.float64], kept: NDArray[np.bool_], iou: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """One image in one subset: faces recalled after each detection, and whether it counts.

    Parameters
    ----------
    detections : ndarray of shape (n, 5)
        x, y, width, height, score, in the order to match.
    faces : ndarray of shape (m, 4)
        x, y, width, height.
    kept : ndarray of bool, shape (m,)
    iou : float
        A hit needs at least this overlap.
    """
    boxes = np.hstack([detections[:, :2], detections[:, :2] + detections[:, 2:4]])
    corners = np.hstack([faces[:, :2], faces[:, :2] + faces[:, 2:]])
    recalled = np.zeros(len(faces), bool)
    recall = np.zeros(len(boxes), np.int64)
    counts = np.ones(len(boxes), bool)
    for row, box in enumerate(boxes):
        values = overlaps(box, corners)
        face = int(np.argmax(values))
        if values[face] >= iou:
            if kept[face]:
                recalled[face] = True
            else:
                counts[row] = False
        recall[row] = np.count_nonzero(recalled)
    return recall, counts


def evaluate_subset(
    detections: Sequence[NDArray[np.float64]],
    faces: Sequence[NDArray[np.float64]],
    kept: Sequence[NDArray[np.bool_]],
    iou: float = 0.5,
    steps: int = 1000,
) -> float:
    """AP of one subset, image by image and threshold by threshold, in the order given.

    Parameters
    ----------
    detections : sequence of ndarray of shape (n, 5)
        One an image: x, y, width, height, score normalised to 0..1.
    faces : sequence of ndarray of shape (m, 4)
        One an image: x, y, width, height.
    kept : sequence of ndarray of bool, shape (m,)
    """
    table = np.zeros((steps, 2))
    for rows, boxes, flags in zip(detections, faces, kept, strict=True):
        if len(rows) == 0 or len(boxes) == 0:
            continue
        recall, counts = evaluate_image(rows, boxes, flags, iou)
        for step in range(steps):
            above = np.where(rows[:, 4] >= 1 - (step + 1) / steps)[0]
            if len(above):
                table[step] += counts[: above[-1] + 1].sum(), recall[above[-1]]
    total = sum(int(flags.sum()) for flags in kept)
    proposals, recalled = table.T
    precision = np.divide(recalled, proposals, out=np.zeros(steps), where=proposals > 0)
    return average_precision(precision, recalled / total)


def average_precision(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    """Area under the precision envelope at every change of recall, step by step.

    Parameters
    ----------
    precision, recall : ndarray of shape (n,)
        In order of falling threshold.

    Examples
    --------
    >>> average_precision(np.array([1.0, 0.5]), np.array([0.5, 0.5]))
    0.5
    """
    area, last = 0.0, 0.0
    for step in range(len(recall)):
        if recall[step] != last:
            area += (recall[step] - last) * precision[step:].max()
            last = recall[step]
    return float(area)
