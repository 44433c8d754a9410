"""The WIDER FACE protocol: AP on Easy, Medium and Hard, with intervals over images.

The figures are those of `evalkit.widerface_eval`; here they get their uncertainty. Images are
the unit of resampling, since the faces of one image succeed and fail together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array

from evalkit.widerface_eval import (
    HIT,
    IGNORED,
    Curve,
    Detections,
    Evaluation,
    GroundTruth,
    Settings,
    evaluate,
)

RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class ApInterval:
    """A figure with its percentile interval.

    Attributes
    ----------
    subset : str
    value : float
        NaN where the subset keeps no face.
    low, high : float
        Bounds of the interval.
    confidence : float
        Its nominal coverage.
    """

    subset: str
    value: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """The protocol's result.

    Attributes
    ----------
    evaluation : Evaluation
        Settings, curves, counts and what became of each detection.
    ap : tuple of ApInterval
        One for each subset.
    resamples, seed : int
        Of the bootstrap.
    """

    evaluation: Evaluation
    ap: tuple[ApInterval, ...]
    resamples: int
    seed: int


def widerface(
    ground_truth: GroundTruth,
    detections: Detections,
    settings: Settings | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    threads: int | None = None,
) -> DetectionResult:
    """AP on every subset, with a bootstrap interval over images.

    Parameters
    ----------
    ground_truth : GroundTruth
    detections : Detections
        Of the same images, in the same order.
    settings : Settings, optional
        Rule, IoU threshold and number of score steps.
    confidence : float
        Nominal coverage of the intervals.
    resamples : int
        Bootstrap samples of the images.
    seed : int
        Of the bootstrap.
    threads : int, optional
        For the matching.

    Raises
    ------
    ValueError
        The detections cannot be judged, or an option is out of range.

    References
    ----------
    .. [1] B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    _check(confidence, resamples)
    evaluation = evaluate(ground_truth, detections, settings, threads=threads)
    draws = image_draws(len(ground_truth.images), resamples, seed)
    replicates = ap_replicates(evaluation, draws)
    intervals = tuple(
        _interval(subset, value, column, confidence)
        for (subset, value), column in zip(evaluation.ap.items(), replicates, strict=True)
    )
    return DetectionResult(evaluation, intervals, resamples, seed)


def ap_difference(
    baseline: Evaluation,
    candidate: Evaluation,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[ApInterval, ...]:
    """AP of a candidate minus that of a baseline, paired: both are resampled alike.

    Parameters
    ----------
    baseline, candidate : Evaluation
        Of the same ground truth, by the same settings.

    Raises
    ------
    ValueError
        They are of different images or settings.
    """
    _check(confidence, resamples)
    if baseline.ground_truth.images != candidate.ground_truth.images:
        raise ValueError("The two evaluations are of different images; evaluate the same ones.")
    if baseline.settings != candidate.settings:
        raise ValueError(
            f"The two evaluations differ in their settings: {baseline.settings} and "
            f"{candidate.settings}."
        )
    draws = image_draws(len(baseline.ground_truth.images), resamples, seed)
    changes = ap_replicates(candidate, draws) - ap_replicates(baseline, draws)
    return tuple(
        _interval(subset, candidate.ap[subset] - value, column, confidence)
        for (subset, value), column in zip(baseline.ap.items(), changes, strict=True)
    )


def image_draws(images: int, resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """How often each image is drawn in each bootstrap sample.

    Returns
    -------
    ndarray of float64, shape (images, resamples)
        Every column sums to the number of images.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), resamples).T.astype(np.float64)


def ap_replicates(
    evaluation: Evaluation, draws: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """AP of resampled images; scores stay normalised over the original set.

    Parameters
    ----------
    evaluation : Evaluation
    draws : ndarray of shape (images, resamples)
        How often each image counts.

    Returns
    -------
    ndarray of shape (subsets, resamples)
        NaN where a sample holds no kept face.
    """
    truth = evaluation.ground_truth
    replicates = np.empty((len(truth.subsets), draws.shape[1]))
    for row, kept in enumerate(truth.subsets.values()):
        outcome = evaluation.matches.outcome[row]
        proposals = _counts_at_steps(evaluation, outcome != IGNORED, draws)
        recalled = _counts_at_steps(evaluation, outcome == HIT, draws)
        faces = np.bincount(truth.image_of[kept], minlength=len(truth.images)) @ draws
        replicates[row] = [
            Curve(proposals[:, column], recalled[:, column], faces[column]).ap
            for column in range(draws.shape[1])
        ]
    return replicates


def _counts_at_steps(
    evaluation: Evaluation, chosen: npt.NDArray[np.bool_], draws: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Count what is chosen at or above each threshold, shape (steps, resamples)."""
    levels = evaluation.levels[chosen]
    images = evaluation.detections.image_of[chosen]
    steps = evaluation.settings.steps
    shape = (steps + 1, draws.shape[0])
    table = coo_array((np.ones(len(levels)), (levels, images)), shape=shape).tocsr()
    counts: npt.NDArray[np.float64] = np.cumsum((table @ draws)[:steps], axis=0)
    return counts


def _interval(
    subset: str, value: float, replicates: npt.NDArray[np.float64], confidence: float
) -> ApInterval:
    usable = replicates[~np.isnan(replicates)]
    if len(usable) == 0:
        return ApInterval(subset, value, np.nan, np.nan, confidence)
    tail = (1 - confidence) / 2
    low, high = np.quantile(usable, [tail, 1 - tail])
    return ApInterval(subset, value, float(low), float(high), confidence)


def _check(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence is {confidence}; it must lie between 0 and 1.")
    if resamples < 1:
        raise ValueError(f"{resamples} resamples give no interval; use at least 1.")
