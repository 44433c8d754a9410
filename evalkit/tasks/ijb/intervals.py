"""Intervals of true accept rates: from drawn subjects, or where no draw differs, from counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.core.results import Interval
from evalkit.datasets.ijb import IjbRelease
from evalkit.datasets.ijb_checks import Enrolment
from evalkit.protocols.roc import OperatingPoint
from evalkit.stats.subjects import PercentileInterval, SubjectBootstrap, tar_intervals


def intervals_of_points(
    release: IjbRelease,
    subjects: Enrolment,
    scores: NDArray[np.floating[Any]],
    points: Sequence[OperatingPoint],
) -> list[Interval | None]:
    """Resample subjects; where there is only one, there is nothing to resample.

    Where all genuine comparisons are accepted, or none, every draw says the same, and its
    interval would have no width. The subjects then are trials that all ended alike, for which
    Clopper and Pearson's interval holds [1]_; it errs to the wide side, as a subject of whose
    comparisons one ends otherwise counts as if all did.

    References
    ----------
    .. [1] C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in
       the case of the binomial", Biometrika 26(4), 1934.
    """
    if (subjects.subject_id == subjects.subject_id[0]).all():
        return [None] * len(points)
    bootstrap = SubjectBootstrap(
        release.pairs, release.genuine, subjects.template_id, subjects.subject_id
    )
    compared = len(np.unique(subjects.subject_of(release.pairs[release.genuine, 0])))
    drawn = tar_intervals(bootstrap, scores, [point.target for point in points])
    return [
        None if found is None else _interval(point.tar, found, bootstrap.method, compared)
        for point, found in zip(points, drawn, strict=True)
    ]


def all_alike_interval(trials: int, level: float, *, success: bool) -> tuple[float, float]:
    """Clopper and Pearson's interval where all trials succeeded, or none did.

    Examples
    --------
    >>> low, high = all_alike_interval(10, 0.95, success=True)
    >>> round(low, 4), high
    (0.6915, 1.0)
    """
    far = ((1 - level) / 2) ** (1 / trials)
    return (far, 1.0) if success else (0.0, 1 - far)


def _interval(tar: float, found: PercentileInterval, method: str, subjects: int) -> Interval:
    low, high = found.low, found.high
    if low == high and tar in (0.0, 1.0):
        low, high = all_alike_interval(subjects, found.level, success=tar == 1)
        method = f"Clopper-Pearson, {subjects} subjects all alike"
    elif low == high:
        method += ", degenerate: all draws alike"
    return Interval(low=low, high=high, level=found.level, method=method)
