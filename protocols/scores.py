"""Scores of genuine and impostor comparisons: checked, and counted at every threshold."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating[Any]]


def checked_scores(genuine: npt.ArrayLike, impostor: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return both as float32 or float64 of one dtype, failures to enrol as minus infinity.

    Raises
    ------
    ValueError
        If a class of comparisons is empty, or its scores have another shape than (n,).
    """
    arrays = [np.asarray(genuine), np.asarray(impostor)]
    dtype = np.result_type(np.float32, *arrays)
    for name, array in zip(("genuine", "impostor"), arrays, strict=True):
        if array.ndim != 1:
            raise ValueError(f"{name} scores must have one dimension, not shape {array.shape}")
        if not array.size:
            raise ValueError(f"no {name} scores: rates need genuine and impostor comparisons")
    first, second = (_failures_last(array.astype(dtype, copy=False)) for array in arrays)
    return first, second


def _failures_last(scores: Floats) -> Floats:
    finite = np.isfinite(scores)
    return scores if finite.all() else np.where(finite, scores, scores.dtype.type(-np.inf))


def staircase(
    genuine: Floats, impostors: Floats
) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return every distinct finite threshold, descending, with false and true accepts.

    The first threshold lies just above the highest score and accepts nothing.

    Parameters
    ----------
    genuine, impostors : ndarray
        From `checked_scores`.

    Returns
    -------
    thresholds : ndarray of float
    false_accepts, true_accepts : ndarray of int64
    """
    genuine, ordered = np.sort(genuine), np.sort(impostors)
    places = np.searchsorted(ordered, genuine)
    scores = np.insert(ordered, places, genuine)[::-1]
    is_genuine = np.insert(np.zeros(ordered.size, bool), places, True)[::-1]
    scores = scores[: np.count_nonzero(np.isfinite(scores))]
    last_of_run = np.ones(scores.size, bool)
    np.not_equal(scores[1:], scores[:-1], out=last_of_run[:-1])
    ends = np.flatnonzero(last_of_run)
    true_accepts = np.cumsum(is_genuine[: scores.size], dtype=np.int64)[ends]
    false_accepts = ends + 1 - true_accepts
    highest = scores[0] if scores.size else scores.dtype.type(-np.inf)
    start = np.array([just_above(highest)], scores.dtype)
    zero = np.zeros(1, np.int64)
    return (
        np.concatenate([start, scores[ends]]),
        np.concatenate([zero, false_accepts]),
        np.concatenate([zero, true_accepts]),
    )


def just_above(score: Floats | np.floating[Any]) -> float:
    """Return the next number above a score, in the score's precision."""
    return float(np.nextafter(score, score.dtype.type(np.inf)))
