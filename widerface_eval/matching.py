"""Matching of detections to faces: the options are checked, then a kernel runs in threads."""

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
from evalkit.widerface_eval.errors import WiderFaceError, listed
from evalkit.widerface_eval.records import Detections, GroundTruth

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
    detections: Detections,
    truth: GroundTruth,
    kept: NDArray[np.bool_] | None = None,
    *,
    iou: float = 0.5,
    arithmetic: Arithmetic = "double",
    threads: int | None = None,
    kernel: Kernel = "compiled",
) -> Matches:
    """Match the detections of each image to its faces, greedily in the order of the detections.

    A detection hits the face of highest overlap among *all* faces of its image, the first on
    ties, if that overlap is at least `iou`. If the face is not kept in a setting, the detection
    is ignored there. A kept face is recalled once, and a second hit is false. Widths, heights
    and areas count the last pixel (+1), as in the official tools.

    Parameters
    ----------
    detections : Detections
        Best first within an image.
    truth : GroundTruth
        Of the same images, in the same order.
    kept : ndarray of bool, shape (settings, faces), optional
        Which faces each setting keeps; by default the settings are the subsets in order.
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
        The images differ, or an option is out of range.

    Examples
    --------
    >>> twice = Detections.from_rows(["a"], [np.array([[9.0, 9, 20, 20, 1], [8, 9, 20, 20, 0]])])
    >>> face = np.array([[9.0, 9, 20, 20]])
    >>> truth = GroundTruth(("a",), np.array([0, 1]), face, {"all": np.array([True])})
    >>> match_boxes(twice, truth).outcome
    array([[1, 0]], dtype=int8)
    """
    check_images(detections, truth)
    _check_options(truth.boxes, iou, arithmetic, threads, kernel)
    return _match(detections, truth, kept, (iou, arithmetic == "int32"), threads, _kernel(kernel))


def _match(
    detections: Detections,
    truth: GroundTruth,
    kept: NDArray[np.bool_] | None,
    rule: tuple[float, bool],
    threads: int | None,
    match_range: Callable[..., None],
) -> Matches:
    offsets, face_offsets = (
        np.ascontiguousarray(record.offsets, np.int64) for record in (detections, truth)
    )
    flags = np.stack(list(truth.subsets.values())) if kept is None else kept
    flags = np.ascontiguousarray(flags, np.uint8)
    faces = _with_areas(_corners(truth.boxes))
    inputs = (_corners(detections.boxes), offsets, faces, face_offsets, flags, *rule)
    count = len(detections.boxes)
    best, overlap = np.empty(count, np.int64), np.empty(count, np.float64)
    outcome = np.empty((len(flags), count), np.int8)
    recalled = np.zeros_like(flags)

    def work(bounds: tuple[int, int]) -> None:
        match_range(*inputs, *bounds, best, overlap, outcome, recalled)

    workers = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, _chunks(offsets, face_offsets, workers)))
    return Matches(best, overlap, outcome, recalled.astype(bool))


def check_images(detections: Detections, truth: GroundTruth) -> None:
    """Refuse detections that are not of the ground truth's images.

    Raises
    ------
    WiderFaceError
        The images differ, or their order does.
    """
    if detections.images != truth.images:
        odd = sorted(set(detections.images) ^ set(truth.images))
        raise WiderFaceError(
            "The detections are not of the ground truth's images"
            + (f": {listed(odd)}." if odd else ", or in another order.")
        )


def _kernel(kernel: Kernel) -> Callable[..., None]:
    """Import the compiled kernel only when it runs: an error of its import is the user's."""
    if kernel == "reference":
        return _reference.match_range
    try:
        from evalkit.widerface_eval import _matching  # noqa: PLC0415
    except ImportError as error:  # the checkout is not built; the error names the command
        raise WiderFaceError(str(error)) from error
    return _matching.match_range


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    boxes = np.asarray(boxes, np.float64)
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


def _check_options(
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
