"""Non-maximum suppression, exact and greedy, under either convention of a box's size."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import UnavailableError

try:
    from evalkit.heads import _nms
except ImportError as error:  # a checkout that is not built: the error names the command
    raise UnavailableError(str(error)) from error

Overlap = Literal["plus_one", "continuous"]
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)


def extra_pixel(overlap: Overlap) -> float:
    """Return the number that a convention adds to every width and height.

    Raises
    ------
    ValueError
        There is no such convention.
    """
    if overlap not in OVERLAPS:
        raise ValueError(f"overlap must be one of {', '.join(OVERLAPS)}, not {overlap!r}")
    return 1.0 if overlap == "plus_one" else 0.0


def nms(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    threshold: float,
    *,
    overlap: Overlap = "plus_one",
    limit: int | None = None,
) -> NDArray[np.int64]:
    """Drop each box that overlaps a better box which is kept.

    Parameters
    ----------
    boxes : ndarray of shape (n, 4)
        x1, y1, x2, y2 in pixels.
    scores : ndarray of shape (n,)
        On ties the earlier box goes first.
    threshold : float
        A box is dropped if its intersection over union with a kept one is greater.
    overlap : {'plus_one', 'continuous'}
        ``plus_one`` takes corners as pixels, so that a box is x2 - x1 + 1 wide. The public
        RetinaFace and SCRFD codes do so (Fast R-CNN's ``py_cpu_nms``). ``continuous`` takes them
        as edges, x2 - x1 wide, as OpenCV and torchvision do.
    limit : int, optional
        Stop at this many kept boxes.

    Returns
    -------
    ndarray of int64
        Indices of the kept boxes, by descending score. Computed in float64.

    Raises
    ------
    ValueError
        Shapes do not match, a value is NaN or infinite, or the threshold is out of range.

    Examples
    --------
    >>> pair = np.array([[0, 0, 9, 9], [0, 0, 9, 10], [20, 0, 29, 9]], np.float32)
    >>> nms(pair, np.array([0.5, 0.9, 0.7]), 0.4)
    array([1, 2])
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"NMS needs boxes of shape (n, 4) and n scores, not {boxes.shape} and {scores.shape}"
        )
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("NMS needs finite boxes and scores")
    if not 0 <= threshold <= 1:
        raise ValueError(f"the NMS threshold must lie between 0 and 1, not {threshold}")
    order = np.argsort(-scores, kind="stable")
    most = len(order) if limit is None else min(limit, len(order))
    kept = np.empty(most, np.int64)
    ordered = np.ascontiguousarray(boxes[order], np.float64)
    count = _nms.greedy(ordered, threshold, extra_pixel(overlap), np.empty((most, 5)), kept)
    return order[kept[:count]]
