"""The matching in plain, slow and obviously right NumPy: the compiled kernel must equal it.

References
----------
.. [1] S. Yang, P. Luo, C. C. Loy, X. Tang, "WIDER FACE: A Face Detection Benchmark", CVPR 2016,
   and its evaluation tools (MATLAB).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_INT32 = np.iinfo(np.int32)


def as_int32(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """MATLAB's ``int32(values)``: to nearest, halves away from zero, saturating.

    Examples
    --------
    >>> as_int32(np.array([0.5, -0.5, 2.5, 3e9])).tolist()
    [1.0, -1.0, 3.0, 2147483647.0]
    """
    whole = np.trunc(values)
    away = whole + np.sign(values) * (np.abs(values - whole) >= 0.5)
    clipped: NDArray[np.float64] = np.clip(away, _INT32.min, _INT32.max)
    return clipped


def overlaps(box: NDArray[np.float64], faces: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of one box with each face, both as corners, +1 on every side.

    Parameters
    ----------
    box : ndarray of shape (4,)
    faces : ndarray of shape (n, 4)

    Returns
    -------
    ndarray of shape (n,)
    """
    width = np.minimum(box[2], faces[:, 2]) - np.maximum(box[0], faces[:, 0]) + 1
    height = np.minimum(box[3], faces[:, 3]) - np.maximum(box[1], faces[:, 1]) + 1
    area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    areas = (faces[:, 2] - faces[:, 0] + 1) * (faces[:, 3] - faces[:, 1] + 1)
    shared = width * height
    meets = (width > 0) & (height > 0)
    result = np.zeros(len(faces))
    np.divide(shared, area + areas - shared, out=result, where=meets)
    return result


def overlaps_int32(box: NDArray[np.float64], faces: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `overlaps`, by MATLAB's arithmetic of int32 faces with a double box.

    Every operation with an int32 operand rounds and saturates, the division too, so that an
    overlap is 0 or 1: of several faces with at least one half, the first is found.
    """
    corners = as_int32(box)
    left, top = np.maximum(corners[0], faces[:, 0]), np.maximum(corners[1], faces[:, 1])
    right, bottom = np.minimum(corners[2], faces[:, 2]), np.minimum(corners[3], faces[:, 3])
    width = as_int32(as_int32(right - left) + 1)
    height = as_int32(as_int32(bottom - top) + 1)
    area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    sides = [as_int32(as_int32(faces[:, i + 2] - faces[:, i]) + 1) for i in (0, 1)]
    shared = as_int32(width * height)
    union = as_int32(as_int32(as_int32(sides[0] * sides[1]) + area) - shared)
    meets = (width > 0) & (height > 0)
    ratio = np.divide(shared, union, out=np.full(len(faces), float(_INT32.max)), where=union != 0)
    return np.where(meets, as_int32(ratio), 0.0)


def match_range(
    boxes: NDArray[np.float64],
    offsets: NDArray[np.int64],
    faces: NDArray[np.float64],
    face_offsets: NDArray[np.int64],
    kept: NDArray[np.uint8],
    iou: float,
    int32: bool,
    first: int,
    last: int,
    best: NDArray[np.int64],
    overlap: NDArray[np.float64],
    outcome: NDArray[np.int8],
    recalled: NDArray[np.uint8],
) -> None:
    """Match the images ``first`` to ``last - 1``; boxes and faces are corners x1 y1 x2 y2."""
    overlap_of = overlaps_int32 if int32 else overlaps
    for image in range(first, last):
        begin, end = face_offsets[image], face_offsets[image + 1]
        for row in range(offsets[image], offsets[image + 1]):
            if begin == end:
                best[row], overlap[row], outcome[:, row] = -1, 0.0, -1
                continue
            values = overlap_of(boxes[row], faces[begin:end, :4])
            face = begin + int(np.argmax(values))
            overlap[row] = values.max()
            best[row] = face if overlap[row] >= iou else -1
            for setting in range(len(kept)):
                if overlap[row] < iou:
                    outcome[setting, row] = 0
                elif not kept[setting, face]:
                    outcome[setting, row] = -1
                elif recalled[setting, face]:
                    outcome[setting, row] = 0
                else:
                    recalled[setting, face] = 1
                    outcome[setting, row] = 1
