"""Intervals of true accept rates over subjects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.core.results import Interval
from evalkit.datasets.ijb import IjbRelease
from evalkit.datasets.ijb_checks import Enrolment
from evalkit.protocols.roc import OperatingPoint
from evalkit.stats.subjects import SubjectBootstrap, tar_intervals
from evalkit.tasks.figures import subject_interval


def intervals_of_points(
    release: IjbRelease,
    subjects: Enrolment,
    scores: NDArray[np.floating[Any]],
    points: Sequence[OperatingPoint],
) -> list[Interval | None]:
    """Resample subjects; None where there is only one."""
    if (subjects.subject_id == subjects.subject_id[0]).all():
        return [None] * len(points)
    bootstrap = SubjectBootstrap(
        release.pairs, release.genuine, subjects.template_id, subjects.subject_id
    )
    compared = len(np.unique(subjects.subject_of(release.pairs[release.genuine, 0])))
    drawn = tar_intervals(bootstrap, scores, [point.target for point in points])
    return [
        None if found is None else subject_interval(point.tar, found, bootstrap.method, compared)
        for point, found in zip(points, drawn, strict=True)
    ]
