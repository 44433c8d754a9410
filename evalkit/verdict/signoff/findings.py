"""What the primary figure's paired test finds, for each kind of protocol."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.results import Interval, Metric, Result
from evalkit.protocols.folds import assign_folds
from evalkit.stats.ap import ImageBootstrap, ImageCounts
from evalkit.stats.noninferiority import (
    Bounds,
    from_decisions,
    from_replicates,
    least_width,
)
from evalkit.stats.paired import mcnemar, paired_bootstrap
from evalkit.stats.subjects import SubjectBootstrap, percentile_interval
from evalkit.verdict.compare import load_scores
from evalkit.verdict.compare_scores import (
    Scores,
    checked_decisions,
    failures_last,
    finite_distances,
    pair_statistic,
    same_at_folds,
)
from evalkit.verdict.plan import Statistics
from evalkit.verdict.signoff.record import Deployment

_ONE_SIDED = "paired, one-sided, at least the bounds for rare losses"


@dataclass(frozen=True, slots=True)
class Side:
    """A run that is compared: its result file, and what that holds."""

    path: Path
    result: Result

    def scores(self) -> Scores:
        """Read the scores beside the result."""
        if self.result.scores_file is None:
            raise CannotJudgeError(f"{self.path} has no scores beside it")
        return load_scores(self.path, self.result)


@dataclass(frozen=True, slots=True)
class Finding:
    """Bounds of the primary figure, and how they were made."""

    bounds: Bounds | None
    unit: Literal["subjects", "pairs", "images"]
    units: int
    method: str
    p_value: float | None = None
    deployment: Deployment | None = None

    @property
    def at_least_width(self) -> bool:
        """Whether the bounds are as wide as they are because hardly any decision changed."""
        if self.bounds is None or self.unit == "pairs":
            return False
        width = least_width(self.units, self.bounds.level)
        return math.isclose(self.bounds.difference - self.bounds.low, width)


def value_of(metric: Metric) -> float:
    """Return a figure.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        It is not a number.
    """
    if metric.value is None or not np.isfinite(metric.value):
        raise CannotJudgeError(f"{metric.name} is not a number")
    return metric.value


class Templates:
    """Template pairs: the draws of subjects, and the reference's figures under them."""

    def __init__(self, scores: Scores, metric: Metric, statistics: Statistics) -> None:
        self.metric = metric
        self.level = statistics.level
        self.genuine = scores["genuine"].astype(bool)
        self.scores = failures_last(scores["scores"])
        self.target = float(metric.at["target"] or 0)
        try:
            self.draws = SubjectBootstrap(
                scores["pairs"],
                self.genuine,
                scores["template_id"],
                scores["subject_id"],
                replicates=statistics.replicates,
                seed=statistics.seed,
            )
        except ValueError as error:
            raise CannotJudgeError(str(error)) from error
        self.tar = self.draws.tar(self.scores, [self.target])[0]

    def find(self, candidate: Scores, after: Metric) -> Finding:
        """Compare a candidate's scores under the same draws."""
        scores = failures_last(candidate["scores"])
        changes = self.draws.tar(scores, [self.target])[0] - self.tar
        counts = self.draws.genuine_counts
        difference = value_of(after) - value_of(self.metric)
        return Finding(
            bounds=from_replicates(difference, changes, self.level, counts),
            unit="subjects",
            units=len(counts),
            method=f"{self.draws.method}, {_ONE_SIDED}",
            deployment=self._deployment(scores),
        )

    def _deployment(self, scores: NDArray[Any]) -> Deployment | None:
        threshold = self.metric.at["similarity"]
        if threshold is None:
            return None
        rates = [
            (
                float(np.mean(s[~self.genuine] >= threshold)),
                float(np.mean(s[self.genuine] < threshold)),
            )
            for s in (self.scores, scores)
        ]
        (far, tar), (new_far, new_tar) = (
            self.draws.rates(s, threshold) for s in (self.scores, scores)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(far > 0, new_far / far, np.nan)
        return Deployment(
            metric=self.metric.name,
            threshold=threshold,
            fmr_reference=rates[0][0],
            fmr=rates[1][0],
            fmr_ratio=rates[1][0] / rates[0][0] if rates[0][0] else None,
            fmr_ratio_interval=self._interval(ratios),
            fnmr_reference=rates[0][1],
            fnmr=rates[1][1],
            fnmr_change=rates[1][1] - rates[0][1],
            fnmr_change_interval=self._interval(tar - new_tar),
        )

    def _interval(self, replicates: NDArray[np.float64]) -> Interval | None:
        found = percentile_interval(replicates, self.level)
        if found is None:
            return None
        return Interval(
            low=found.low,
            high=found.high,
            level=found.level,
            method=f"{self.draws.method}, paired",
        )


def compare_pairs(
    statistics: Statistics, reference: Side, candidate: Side, before: Metric, after: Metric
) -> Finding:
    """Compare pairs without identities: pair-level, and labelled so."""
    old, new = reference.scores(), candidate.scores()
    issame = old["issame"].astype(bool)
    distances = [finite_distances(scores) for scores in (old, new)]
    fold, _, _ = assign_folds(issame, reference.result.settings["folds"])
    if before.figure == "accuracy":
        decided = [
            same_at_folds(d, fold, m) for d, m in zip(distances, (before, after), strict=True)
        ]
        test = checked_decisions(before, after, [same == issame for same in decided])
        return Finding(
            bounds=from_decisions(test.gained, test.lost, test.trials, statistics.level),
            unit="pairs",
            units=test.trials,
            method="Tango's score bound, pair-level, one-sided",
            p_value=test.p_value,
            deployment=_carried_folds(before, distances, issame, fold, statistics.level),
        )
    statistic = pair_statistic(before, distances, issame, fold)
    if statistic is None:
        raise CannotJudgeError(f"there is no paired test of {before.name}")
    changes = paired_bootstrap(
        statistic, 2 * fold + issame, replicates=statistics.replicates, seed=statistics.seed
    )
    units = int(np.count_nonzero(issame))
    return Finding(
        bounds=from_replicates(
            value_of(after) - value_of(before), changes, statistics.level, np.ones(units)
        ),
        unit="pairs",
        units=units,
        method=f"pair bootstrap, {statistics.replicates} draws, seed {statistics.seed}, "
        f"percentile, pair-level, {_ONE_SIDED}",
    )


def _carried_folds(
    metric: Metric,
    distances: list[NDArray[np.float64]],
    issame: NDArray[np.bool_],
    fold: NDArray[np.integer[Any]],
    level: float,
) -> Deployment:
    """Return what the reference's thresholds, fold by fold, do to both."""
    same = [same_at_folds(d, fold, metric) for d in distances]
    fmr = [float(np.mean(decided[~issame])) for decided in same]
    fnmr = [float(np.mean(~decided[issame])) for decided in same]
    change = mcnemar(~same[0][issame], ~same[1][issame], level)
    return Deployment(
        metric=metric.name,
        threshold=None,
        fmr_reference=fmr[0],
        fmr=fmr[1],
        fmr_ratio=fmr[1] / fmr[0] if fmr[0] else None,
        fmr_ratio_interval=None,
        fnmr_reference=fnmr[0],
        fnmr=fnmr[1],
        fnmr_change=fnmr[1] - fnmr[0],
        fnmr_change_interval=Interval(
            low=change.low, high=change.high, level=level, method="Tango, pair-level"
        ),
    )


class Detections:
    """Detections on images: the draws of images, and the reference's figure under them."""

    def __init__(self, scores: Scores, metric: Metric, statistics: Statistics) -> None:
        self.metric = metric
        self.level = statistics.level
        self.counts = _counts(scores)
        self.subset = self.counts.subsets.index(metric.subset)
        self.draws = ImageBootstrap(
            self.counts.images, replicates=statistics.replicates, seed=statistics.seed
        )
        self.ap = self.draws.ap(self.counts)[self.subset]

    def find(self, candidate: Scores, after: Metric) -> Finding:
        """Compare a candidate's counts under the same draws."""
        counts = _counts(candidate)
        if counts.subsets != self.counts.subsets or not np.array_equal(
            counts.faces, self.counts.faces
        ):
            raise CannotJudgeError("the two runs are of different images or keep different faces")
        changes = self.draws.ap(counts)[self.subset] - self.ap
        difference = value_of(after) - value_of(self.metric)
        faces = self.counts.faces[self.subset]
        faces = faces[faces > 0]
        return Finding(
            bounds=from_replicates(difference, changes, self.level, faces),
            unit="images",
            units=len(faces),
            method=f"{self.draws.method}, {_ONE_SIDED}",
        )


def _counts(scores: Scores) -> ImageCounts:
    try:
        return ImageCounts.from_arrays(scores)
    except ValueError as error:
        raise InputError(f"A file of scores is damaged: {error}. Make the result again.") from error
