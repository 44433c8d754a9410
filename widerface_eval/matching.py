"""The one public way to the matching kernels: it validates, chooses and spreads over threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evalkit.widerface_eval import _reference
from evalkit.widerface_eval.errors import WiderFaceError

HIT, FALSE, IGNORED = 1, 0, -1

Arithmetic = Literal["double", "int32"]
Kernel = Literal["compiled", "reference"]

_CHUNKS_A_THREAD = 4


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What became of every detection, and of every face.

    Attributes
    ----------
    best : ndarray of int64, shape (detections,)
        Index of the face hit, -1 where none is.
    overlap : ndarray of float64, shape (detections,)
        Highest overlap with any face of the image, kept or not.
    outcome : ndarray of int8, shape (settings, detections)
        `HIT` (recalls a face), `FALSE` (no face, or one that is recalled already) or `IGNORED`
        (a face that is not kept, or an image without annotation).
    recalled : ndarray of bool, shape (settings, faces)
    """

    best: NDArray[np.int64]
    overlap: NDArray[np.float64]
    outcome: NDArray[np.int8]
    recalled: NDArray[np.bool_]


def match_boxes(
    boxes: NDArray[np.float64],
    offsets: NDArray[np.int64],
    faces: NDArray[np.float64],
    face_offsets: NDArray[np.int64],
    kept: NDArray[np.bool_],
    *,
    iou: float = 0.5,
    arithmetic: Arithmetic = "double",
    threads: int | None = None,
    kernel: Kernel = "compiled",
) -> Matches:
    """Match the detections of many images to their faces, greedily in the order given.

    A detection hits the face of highest overlap among *all* faces of its image, the first on
    ties, if that overlap is at least `iou`. If the face is not kept in a setting, the detection
    is ignored there; a kept face is recalled once, and a second hit is false. Widths, heights
    and areas count the last pixel (+1), as in the official tools [1]_.

    Parameters
    ----------
    boxes : ndarray of shape (detections, 4)
        x, y, width, height in pixels, best first within an image.
    offsets : ndarray of shape (images + 1,)
        The detections of image i are ``boxes[offsets[i]:offsets[i + 1]]``.
    faces : ndarray of shape (faces, 4)
        x, y, width, height in pixels.
    face_offsets : ndarray of shape (images + 1,)
    kept : ndarray of bool, shape (settings, faces)
        Which faces each setting keeps.
    iou : float
        A hit needs at least this overlap; above 0, at most 1.
    arithmetic : {'double', 'int32'}
        ``int32`` is that of the older MATLAB tools, which rounds overlaps to 0 or 1.
    threads : int, optional
        At most this many; by default one a processor. The result does not depend on it.
    kernel : {'compiled', 'reference'}
        The slow reference is for tests.

    Raises
    ------
    WiderFaceError
        Shapes do not fit, a box is not finite or inverted, an option is out of range.

    References
    ----------
    .. [1] S. Yang, P. Luo, C. C. Loy, X. Tang, "WIDER FACE: A Face Detection Benchmark",
       CVPR 2016; its evaluation tools.

    Examples
    --------
    >>> twice = np.array([[10.0, 10, 20, 20], [11.0, 10, 20, 20]])
    >>> face = np.array([[10.0, 10, 20, 20]])
    >>> match_boxes(twice, np.array([0, 2]), face, np.array([0, 1]), np.array([[True]])).outcome
    array([[1, 0]], dtype=int8)
    """
    boxes, faces = np.asarray(boxes, np.float64), np.asarray(faces, np.float64)
    offsets, face_offsets = np.asarray(offsets), np.asarray(face_offsets)
    kept = np.asarray(kept)
    _validate(boxes, offsets, faces, face_offsets, kept)
    _validate_options(faces, iou, arithmetic, threads, kernel)
    offsets = np.ascontiguousarray(offsets, np.int64)
    face_offsets = np.ascontiguousarray(face_offsets, np.int64)
    corners, face_table = _corners(boxes), _with_areas(_corners(faces))
    flags = np.ascontiguousarray(kept, np.uint8)
    int32 = arithmetic == "int32"
    best = np.empty(len(boxes), np.int64)
    overlap = np.empty(len(boxes), np.float64)
    outcome = np.empty((len(kept), len(boxes)), np.int8)
    recalled = np.zeros_like(flags)
    match_range = _kernel(kernel)

    def work(bounds: tuple[int, int]) -> None:
        given = (corners, offsets, face_table, face_offsets, flags, iou, int32)
        match_range(*given, *bounds, best, overlap, outcome, recalled)

    workers = threads or os.cpu_count() or 1
    chunks = _chunks(offsets, face_offsets, workers)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, chunks))
    return Matches(best, overlap, outcome, recalled.astype(bool))


def _kernel(kernel: Kernel) -> Callable[..., None]:
    """Import the compiled kernel only when it runs: the command line needs this module first."""
    if kernel == "reference":
        return _reference.match_range
    try:
        from evalkit.widerface_eval import _matching  # noqa: PLC0415
    except ImportError as error:  # a checkout that is not built: the error names the command
        raise WiderFaceError(str(error)) from error
    return _matching.match_range


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def _with_areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([corners, np.prod(corners[:, 2:] - corners[:, :2] + 1.0, axis=1)])


def _chunks(
    offsets: NDArray[np.int64], face_offsets: NDArray[np.int64], workers: int
) -> list[tuple[int, int]]:
    """Ranges of images of about equal work, which is the number of overlaps."""
    work = np.cumsum(np.diff(offsets) * np.diff(face_offsets) + 1)
    if len(work) == 0:
        return []
    pieces = 1 if workers == 1 else workers * _CHUNKS_A_THREAD
    cuts = np.searchsorted(work, work[-1] * np.arange(1, pieces) / pieces)
    bounds = np.unique(np.concatenate([[0], cuts, [len(work)]])).tolist()
    return list(pairwise(bounds))


def _validate(
    boxes: NDArray[np.float64],
    offsets: NDArray[np.int64],
    faces: NDArray[np.float64],
    face_offsets: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> None:
    for name, table in (("boxes", boxes), ("faces", faces)):
        if table.ndim != 2 or table.shape[1] != 4:
            raise WiderFaceError(f"{name} must have the shape (n, 4), not {table.shape}.")
        if not np.isfinite(table).all():
            row = int(np.argmin(np.isfinite(table).all(axis=1)))
            raise WiderFaceError(f"{name}[{row}] is {table[row].tolist()}; it must be finite.")
    if np.any(boxes[:, 2:] < 0):
        row = int(np.argmax((boxes[:, 2:] < 0).any(axis=1)))
        raise WiderFaceError(f"boxes[{row}] is {boxes[row].tolist()}; its size is negative.")
    if offsets.shape != face_offsets.shape or offsets.ndim != 1 or len(offsets) == 0:
        raise WiderFaceError(
            "offsets and face_offsets must both have the shape (images + 1,), not "
            f"{offsets.shape} and {face_offsets.shape}."
        )
    for name, values, count in (
        ("offsets", offsets, len(boxes)),
        ("face_offsets", face_offsets, len(faces)),
    ):
        if not np.issubdtype(values.dtype, np.integer):
            raise WiderFaceError(f"{name} must be integers, not {values.dtype}.")
        if values[0] != 0 or values[-1] != count or np.any(np.diff(values) < 0):
            raise WiderFaceError(f"{name} must rise from 0 to {count}.")
    if kept.ndim != 2 or kept.shape[1] != len(faces) or kept.dtype != np.bool_:
        raise WiderFaceError(
            f"kept must be booleans of shape (settings, {len(faces)}), "
            f"not {kept.dtype} of shape {kept.shape}."
        )


def _validate_options(
    faces: NDArray[np.float64], iou: float, arithmetic: str, threads: int | None, kernel: str
) -> None:
    if not 0 < iou <= 1:
        raise WiderFaceError(f"The IoU threshold is {iou}; it must lie above 0, at most 1.")
    if arithmetic not in ("double", "int32"):
        raise WiderFaceError(f"There is no arithmetic {arithmetic!r}: use double or int32.")
    if arithmetic == "int32":
        if iou != 0.5:
            raise WiderFaceError(
                f"int32 arithmetic rounds overlaps at one half, so that an IoU threshold of {iou} "
                "has no meaning; use 0.5 or double arithmetic."
            )
        if np.any(faces != np.round(faces)):
            raise WiderFaceError("int32 arithmetic needs faces in whole pixels.")
    if threads is not None and threads < 1:
        raise WiderFaceError(f"{threads} threads cannot work; use at least 1.")
    if kernel not in get_args(Kernel):
        raise WiderFaceError(f"There is no kernel {kernel!r}: use compiled or reference.")
