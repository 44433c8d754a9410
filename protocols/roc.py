"""True accept rates at false accept rates, under the three rules that published figures use.

A comparison is always accepted when ``score >= threshold``. Thresholds lie only between distinct
scores, so equal scores (common with half precision or quantised models) are accepted or refused
together. A score that is not finite stands for a failure to enrol: it lies below every threshold,
yet counts in the denominators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from evalkit.protocols.scores import Floats, checked_scores, just_above, staircase

FarRule: TypeAlias = Literal["at_most", "insightface_nearest", "interpolated"]
FAR_RULES: tuple[FarRule, ...] = get_args(FarRule)
FAR_TARGETS: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
MIN_EXPECTED_FALSE_ACCEPTS = 30
"""With fewer, the relative standard error of the FAR itself exceeds 18 %."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One row of a TAR table.

    Attributes
    ----------
    rule : {'at_most', 'insightface_nearest', 'interpolated'}
        How the point was chosen.
    target : float
        The target FAR.
    far : float
        The FAR achieved; under ``interpolated`` the FAR of the point on the joining line.
    tar : float
        Share of genuine comparisons accepted.
    threshold : float
        Accept when ``score >= threshold``: the lowest score accepted or, where nothing is, the
        next number above the highest score.
    false_accepts, true_accepts : int
        Comparisons accepted; under ``interpolated`` those at the lower end of the joining line.
    impostors, genuine : int
        All comparisons, failures to enrol included.
    too_few : bool
        Fewer than 30 false accepts are expected at the target: too few to gate on.
    """

    rule: FarRule
    target: float
    far: float
    tar: float
    threshold: float
    false_accepts: int
    impostors: int
    true_accepts: int
    genuine: int
    too_few: bool


@dataclass(frozen=True, slots=True)
class RocCurve:
    """A receiver operating characteristic, thinned for plots.

    Attributes
    ----------
    far, tar, threshold : ndarray of float64, shape (n_points,)
        FAR strictly increasing; TAR rising with it; thresholds falling.
    """

    far: npt.NDArray[np.float64]
    tar: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EqualErrorRate:
    """The point where false accepts and false rejects are most nearly equal.

    Attributes
    ----------
    eer : float
        Mean of `far` and `frr`.
    threshold : float
        Accept when ``score >= threshold``.
    far, frr : float
        False accept and false reject rate at the threshold.
    """

    eer: float
    threshold: float
    far: float
    frr: float


def tar_at_far(
    genuine_scores: npt.ArrayLike,
    impostor_scores: npt.ArrayLike,
    targets: Sequence[float] = FAR_TARGETS,
    rule: FarRule = "at_most",
) -> tuple[OperatingPoint, ...]:
    """Return the true accept rate at each target false accept rate.

    Parameters
    ----------
    genuine_scores : array_like of shape (n_genuine,)
        Scores of comparisons of one subject with itself; not finite means failure to enrol.
    impostor_scores : array_like of shape (n_impostors,)
        Scores of comparisons of two subjects.
    targets : sequence of float
        Target FARs, from 0 to 1.
    rule : {'at_most', 'insightface_nearest', 'interpolated'}
        ``at_most``: the highest TAR whose FAR does not exceed the target.
        ``insightface_nearest``: the point of scikit-learn's ``roc_curve`` (with
        ``drop_intermediate``) whose FAR is nearest to the target, the higher FAR on ties, as
        InsightFace's IJB scripts choose; it can exceed the target.
        ``interpolated``: on the straight line from the ``at_most`` point to the next point of
        the curve, at the target FAR; threshold likewise.

    Returns
    -------
    tuple of OperatingPoint
        One for each target, in order.

    Raises
    ------
    ValueError
        If a class of comparisons is empty, a target lies outside 0..1, or the rule is unknown.

    Examples
    --------
    >>> (point,) = tar_at_far([0.9, 0.8, 0.3], [0.7, 0.5, 0.2, 0.1], targets=[0.25])
    >>> round(point.tar, 4), point.far, point.threshold
    (0.6667, 0.25, 0.7)
    """
    if rule not in FAR_RULES:
        raise ValueError(f"unknown FAR rule {rule!r}; known are {', '.join(FAR_RULES)}")
    outside = [target for target in targets if not 0 <= target <= 1]
    if outside:
        raise ValueError(f"a target FAR must lie from 0 to 1, not {outside[0]}")
    genuine, impostors = checked_scores(genuine_scores, impostor_scores)
    if not targets:
        return ()
    if rule == "insightface_nearest":
        return _nearest(genuine, impostors, targets)
    genuine = np.sort(genuine)
    allowed = [most_accepts(target, impostors.size) for target in targets]
    top = _highest(impostors, max(allowed) + 1)
    points = []
    for target, count in zip(targets, allowed, strict=True):
        point, barrier = _at_most(target, count, genuine, top, impostors.size)
        if rule == "interpolated":
            point = _interpolate(point, barrier, genuine, impostors)
        points.append(point)
    return tuple(points)


def roc_curve_points(
    genuine_scores: npt.ArrayLike, impostor_scores: npt.ArrayLike, count: int = 200
) -> RocCurve:
    """Return the curve at FARs spaced evenly in logarithm, each by the rule ``at_most``.

    Parameters
    ----------
    genuine_scores, impostor_scores : array_like
        As for `tar_at_far`.
    count : int
        How many target FARs between 1 / n_impostors and 1, both included. Targets with the same
        achieved FAR make one point.

    Returns
    -------
    RocCurve
        Starts at a FAR of 0: the share of genuine scores above every impostor's.

    Raises
    ------
    ValueError
        If a class of comparisons is empty.
    """
    impostors = np.asarray(impostor_scores)
    grid = np.geomspace(1 / max(impostors.size, 1), 1, count)
    points = tar_at_far(genuine_scores, impostors, [0.0, *np.clip(grid, 0, 1).tolist()])
    far, first = np.unique([point.far for point in points], return_index=True)
    return RocCurve(
        far=far,
        tar=np.array([points[i].tar for i in first]),
        threshold=np.array([points[i].threshold for i in first]),
    )


def eer(genuine_scores: npt.ArrayLike, impostor_scores: npt.ArrayLike) -> EqualErrorRate:
    """Return the equal error rate.

    The threshold is the score at which FAR and FRR differ least; of several such, the one with
    the lowest sum of both, then the highest. Differences are compared as exact integers.

    Parameters
    ----------
    genuine_scores, impostor_scores : array_like
        As for `tar_at_far`.

    Returns
    -------
    EqualErrorRate

    Raises
    ------
    ValueError
        If a class of comparisons is empty.

    Examples
    --------
    >>> eer([0.9, 0.8, 0.3], [0.7, 0.2, 0.1])
    EqualErrorRate(eer=0.3333333333333333, threshold=0.7, far=0.3333333333333333, \
frr=0.3333333333333333)
    """
    genuine, impostors = checked_scores(genuine_scores, impostor_scores)
    thresholds, false_accepts, true_accepts = staircase(genuine, impostors)
    false_accepts = false_accepts * genuine.size
    false_rejects = (genuine.size - true_accepts) * impostors.size
    difference = np.abs(false_accepts - false_rejects)
    nearest = np.flatnonzero(difference == difference.min())
    best = nearest[np.argmin((false_accepts + false_rejects)[nearest])]
    comparisons = genuine.size * impostors.size
    return EqualErrorRate(
        eer=int(false_accepts[best] + false_rejects[best]) / (2 * comparisons),
        threshold=float(thresholds[best]),
        far=int(false_accepts[best]) / comparisons,
        frr=int(false_rejects[best]) / comparisons,
    )


def auc(genuine_scores: npt.ArrayLike, impostor_scores: npt.ArrayLike) -> float:
    """Return the area under the curve of TAR over FAR.

    It is the probability that a genuine score exceeds an impostor's, ties counting one half (the
    Mann-Whitney statistic), from exact counts. Failures to enrol tie with each other.

    Parameters
    ----------
    genuine_scores, impostor_scores : array_like
        As for `tar_at_far`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If a class of comparisons is empty.

    Examples
    --------
    >>> auc([0.9, 0.5], [0.5, 0.1])
    0.875
    """
    genuine, impostors = checked_scores(genuine_scores, impostor_scores)
    # The sorted side is the smaller one: sorting 20,000 beats sorting 15 million.
    ordered = np.sort(genuine)
    not_above = int(np.searchsorted(ordered, impostors, "right").sum(dtype=np.int64))
    below = int(np.searchsorted(ordered, impostors, "left").sum(dtype=np.int64))
    comparisons = genuine.size * impostors.size
    return (2 * comparisons - not_above - below) / (2 * comparisons)


def most_accepts(target: float, total: int) -> int:
    """Return the largest count whose share of `total` does not exceed `target`.

    ``floor(target * total)`` is off by one where the product rounds across an integer.

    Examples
    --------
    >>> int(0.29 * 100), most_accepts(0.29, 100)
    (28, 29)
    """
    count = int(target * total)
    while count < total and (count + 1) / total <= target:
        count += 1
    while count / total > target:
        count -= 1
    return count


def _highest(scores: Floats, count: int) -> Floats:
    """Return the `count` highest scores (at most all of them), ascending."""
    if count < scores.size:
        scores = np.partition(scores, scores.size - count)[scores.size - count :]
    return np.sort(scores)


def _at_most(
    target: float, allowed: int, genuine: Floats, top: Floats, impostors: int
) -> tuple[OperatingPoint, np.floating[Any]]:
    """Return the point and the highest impostor score that it must refuse.

    `genuine` and `top` (at least the ``allowed + 1`` highest impostor scores) are ascending.
    """
    barrier = top[-1 - allowed] if allowed < impostors else genuine.dtype.type(-np.inf)
    accepted = [scores[np.searchsorted(scores, barrier, "right") :] for scores in (genuine, top)]
    lowest = [float(scores[0]) for scores in accepted if scores.size]
    threshold = min(lowest) if lowest else just_above(barrier)
    accepts = accepted[1].size, accepted[0].size
    sizes = impostors, genuine.size
    return _operating_point("at_most", target, threshold, accepts, sizes), barrier


def _operating_point(
    rule: FarRule, target: float, threshold: float, accepts: tuple[int, int], sizes: tuple[int, int]
) -> OperatingPoint:
    """Make the record; `accepts` and `sizes` are of impostor and of genuine comparisons."""
    return OperatingPoint(
        rule=rule,
        target=target,
        far=accepts[0] / sizes[0],
        tar=accepts[1] / sizes[1],
        threshold=threshold,
        false_accepts=accepts[0],
        impostors=sizes[0],
        true_accepts=accepts[1],
        genuine=sizes[1],
        too_few=target * sizes[0] < MIN_EXPECTED_FALSE_ACCEPTS,
    )


def _interpolate(
    lower: OperatingPoint, barrier: np.floating[Any], genuine: Floats, impostors: Floats
) -> OperatingPoint:
    """Move from the ``at_most`` point towards the next one, whose threshold is the barrier."""
    far, tar, threshold = lower.far, lower.tar, lower.threshold
    if np.isfinite(barrier):
        next_far = int(np.count_nonzero(impostors >= barrier)) / impostors.size
        next_tar = (genuine.size - int(np.searchsorted(genuine, barrier, "left"))) / genuine.size
        share = (lower.target - far) / (next_far - far)
        far = lower.target
        tar += share * (next_tar - tar)
        threshold += share * (float(barrier) - threshold)
    return replace(lower, rule="interpolated", far=far, tar=tar, threshold=threshold)


def _nearest(
    genuine: Floats, impostors: Floats, targets: Sequence[float]
) -> tuple[OperatingPoint, ...]:
    thresholds, false_accepts, true_accepts = staircase(genuine, impostors)
    kept = _without_intermediate(false_accepts, true_accepts)
    thresholds = thresholds[kept]
    false_accepts, true_accepts = false_accepts[kept], true_accepts[kept]
    fars = false_accepts / impostors.size
    sizes = impostors.size, genuine.size
    points = []
    for target in targets:
        # Searched from the end: on ties the higher FAR and, of equal FARs, the higher TAR.
        i = fars.size - 1 - int(np.argmin(np.abs(fars - target)[::-1]))
        accepts = int(false_accepts[i]), int(true_accepts[i])
        threshold = float(thresholds[i])
        points.append(_operating_point("insightface_nearest", target, threshold, accepts, sizes))
    return tuple(points)


def _without_intermediate(
    false_accepts: npt.NDArray[np.int64], true_accepts: npt.NDArray[np.int64]
) -> npt.NDArray[np.intp]:
    """Return the points that scikit-learn's ``drop_intermediate`` keeps.

    It drops a point where the steps before and after it are equal, so along a straight line the
    ends remain; the step from the origin to the first score does not count.
    """
    steps = np.diff(false_accepts), np.diff(true_accepts)
    turns = (steps[0][1:] != steps[0][:-1]) | (steps[1][1:] != steps[1][:-1])
    kept = np.ones(false_accepts.size, bool)
    kept[2:-1] = turns[1:]
    return np.flatnonzero(kept)
