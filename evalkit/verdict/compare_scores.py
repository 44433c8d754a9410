"""What the scores of two runs tell: paired intervals, and the decisions that flipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.results import Interval, Metric, Result
from evalkit.protocols.folds import assign_folds, val_at_far
from evalkit.protocols.roc import auc, eer, tar_at_far
from evalkit.stats.ap import ImageBootstrap
from evalkit.stats.paired import McNemar, Statistic, mcnemar, paired_bootstrap
from evalkit.stats.subjects import (
    PercentileInterval,
    SubjectBootstrap,
    difference_intervals,
    percentile_interval,
)

Scores = dict[str, NDArray[Any]]
Draws = SubjectBootstrap | ImageBootstrap
EXAMPLES = 10
REPLICATES = 1000


class FlippedPair(BaseModel):
    """A comparison decided differently by the two runs; scores are cosines of unit templates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pair: str
    genuine: bool
    accepted: bool
    baseline: float | None
    candidate: float | None


class Flips(BaseModel):
    """Decisions that differ between the two runs.

    Attributes
    ----------
    metric : str
        Where the thresholds come from.
    thresholds : str
        ``own``: each run's own; ``baseline``: the baseline's for both.
    genuine, impostors : int
        All comparisons.
    genuine_lost, genuine_gained : int
        Accepted before and refused now; the reverse.
    impostors_let_in, impostors_kept_out : int
        Refused before and accepted now; the reverse.
    examples : tuple of FlippedPair
        Those whose scores changed most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    thresholds: str
    genuine: int
    impostors: int
    genuine_lost: int
    genuine_gained: int
    impostors_let_in: int
    impostors_kept_out: int
    examples: tuple[FlippedPair, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A rate of both runs at the baseline's threshold."""

    name: str
    baseline: float
    candidate: float
    interval: Interval | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Paired:
    """Intervals and tests by metric, rates at carried thresholds, flipped decisions."""

    intervals: dict[str, Interval]
    p_values: dict[str, float]
    carried: tuple[Change, ...]
    flips: tuple[Flips, ...]


def template_changes(
    before: Result, after: Result, old: Scores, new: Scores, draws: Draws | None = None
) -> Paired:
    """Compare scores of template pairs, under the same draws of subjects.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        The pairs differ.
    """
    _check_same(old, new, ("pairs", "genuine", "template_id", "subject_id"))
    pairs, genuine = old["pairs"], old["genuine"]
    scores = [failures_last(arrays["scores"]) for arrays in (old, new)]
    bootstrap = draws if isinstance(draws, SubjectBootstrap) else None
    if bootstrap is None and len(np.unique(old["subject_id"])) > 1:
        bootstrap = SubjectBootstrap(pairs, genuine, old["template_id"], old["subject_id"])
    points = _common(before, after, "tar@far=")
    intervals: dict[str, Interval] = {}
    carried: list[Change] = []
    exact = [metric for metric, _ in points if metric.rule == "at_most"]
    if bootstrap is not None and exact:
        targets = [float(metric.at["target"] or 0) for metric in exact]
        found = difference_intervals(bootstrap, scores[0], scores[1], targets)
        for metric, interval in zip(exact, found, strict=True):
            if interval is not None:
                intervals[metric.name] = _interval(interval, bootstrap.method)
    flips = []
    for metric, other in points:
        own = metric.at["similarity"], other.at["similarity"]
        if own[0] is None or own[1] is None:
            continue
        carried += _carried(metric, own[0], scores, genuine, bootstrap)
        for which, limits in (("own", (own[0], own[1])), ("baseline", (own[0], own[0]))):
            accepted = scores[0] >= limits[0], scores[1] >= limits[1]
            flips.append(
                _flips(
                    metric.name, which, accepted, genuine, scores, lambda row: _label(pairs[row])
                )
            )
    return Paired(intervals, {}, tuple(carried), tuple(flips))


def pair_changes(
    before: Result, after: Result, old: Scores, new: Scores, _draws: Draws | None = None
) -> Paired:
    """Compare distances of pairs without identities: pair-level tests and intervals.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        The pairs differ.
    """
    _check_same(old, new, ("issame",))
    issame = old["issame"].astype(bool)
    distances = [finite_distances(scores) for scores in (old, new)]
    fold, _, _ = assign_folds(issame, before.settings["folds"])
    intervals: dict[str, Interval] = {}
    p_values: dict[str, float] = {}
    flips = []
    for metric, other in _common(before, after):
        # Distances are kept of the first run alone; facexzoo counts ties as wrong either way.
        if metric.name.endswith("/no-flip") or metric.rule == "facexzoo":
            continue
        if metric.figure == "accuracy":
            accepted = [
                same_at_folds(d, fold, m) for d, m in zip(distances, (metric, other), strict=True)
            ]
            test = checked_decisions(metric, other, [decided == issame for decided in accepted])
            p_values[metric.name] = test.p_value
            intervals[metric.name] = Interval(
                low=test.low, high=test.high, level=test.level, method="Tango, pair-level"
            )
            decided = accepted[0], accepted[1]
            cosines = [1 - d / 2 for d in distances]
            flips.append(
                _flips(metric.name, "own", decided, issame, cosines, lambda row: f"pair {row}")
            )
            continue
        statistic = pair_statistic(metric, distances, issame, fold)
        if statistic is not None:
            changes = paired_bootstrap(statistic, 2 * fold + issame, replicates=REPLICATES)
            found = percentile_interval(changes)
            if found is not None:
                method = f"pair bootstrap, {REPLICATES} draws, seed 0, percentile, pair-level"
                intervals[metric.name] = _interval(found, method)
    return Paired(intervals, p_values, (), tuple(flips))


def checked_decisions(metric: Metric, other: Metric, right: list[NDArray[np.bool_]]) -> McNemar:
    """Test which decisions are right, once they are seen to be those of the results.

    Raises
    ------
    evalkit.core.errors.InputError
        They do not give the results' counts.
    """
    counted = [int(np.count_nonzero(decisions)) for decisions in right]
    if counted != [metric.counts["correct"], other.counts["correct"]]:
        raise InputError(
            f"The distances beside the results do not give their {metric.name}. The files do not "
            "belong together; make both results again."
        )
    return mcnemar(right[0], right[1])


def same_at_folds(
    distances: NDArray[np.float64], fold: NDArray[np.integer[Any]], metric: Metric
) -> NDArray[np.bool_]:
    """Return which pairs are called the same, each at its fold's threshold, as the rule does."""
    thresholds = np.array(metric.series["fold_distance"], np.float64)[fold]
    decided: NDArray[np.bool_] = distances < thresholds
    return decided


def pair_statistic(
    metric: Metric,
    distances: list[NDArray[np.float64]],
    issame: NDArray[np.bool_],
    fold: NDArray[np.integer[Any]],
) -> Statistic | None:
    """Return what gives a metric's value of both runs on drawn pairs; None if nothing does."""
    target = float(metric.at.get("target") or 0)
    cosines = [np.where(np.isfinite(d), 1 - d / 2, -np.inf) for d in distances]

    def both(values: list[Any], figure: Callable[[Any, Any], float]) -> Statistic:
        def statistic(rows: NDArray[np.intp]) -> tuple[float, float]:
            same = issame[rows]
            first, second = (figure(value[rows], (rows, same)) for value in values)
            return first, second

        return statistic

    kind = metric.figure
    if kind == "tar" and metric.rule == "at_most":
        return both(cosines, lambda c, s: tar_at_far(c[s[1]], c[~s[1]], [target], "at_most")[0].tar)
    if kind == "auc":
        return both(cosines, lambda c, s: auc(c[s[1]], c[~s[1]]))
    if kind == "eer":
        return both(cosines, lambda c, s: eer(c[s[1]], c[~s[1]]).eer)
    if kind == "val":
        return both(distances, lambda d, s: val_at_far(d, s[1], fold[s[0]], target).val)
    return None


def _common(before: Result, after: Result, prefix: str = "") -> list[tuple[Metric, Metric]]:
    """Pair the metrics that both results have."""
    others = {metric.name: metric for metric in after.metrics}
    return [
        (metric, others[metric.name])
        for metric in before.metrics
        if metric.name.startswith(prefix) and metric.name in others
    ]


def _carried(
    metric: Metric,
    threshold: float,
    scores: list[NDArray[Any]],
    genuine: NDArray[np.bool_],
    bootstrap: SubjectBootstrap | None,
) -> list[Change]:
    """Return FAR and TAR where the baseline's threshold stays in use."""
    draws = [bootstrap.rates(s, threshold) for s in scores] if bootstrap is not None else None
    changes = []
    for place, (rate, rows) in enumerate((("far", ~genuine), ("tar", genuine))):
        before, after = (float(np.mean(s[rows] >= threshold)) for s in scores)
        found = None
        if draws is not None and bootstrap is not None:
            found = percentile_interval(draws[1][place] - draws[0][place])
        target = metric.name.removeprefix("tar@far=")
        changes.append(
            Change(
                name=f"{rate}@baseline-threshold-of-far={target}",
                baseline=before,
                candidate=after,
                interval=None
                if found is None or bootstrap is None
                else _interval(found, bootstrap.method),
                flags=metric.flags,
            )
        )
    return changes


def _flips(
    metric: str,
    thresholds: str,
    accepted: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    genuine: NDArray[np.bool_],
    scores: list[NDArray[Any]],
    label: Callable[[int], str],
) -> Flips:
    old, new = accepted
    flipped = np.flatnonzero(old != new)
    with np.errstate(invalid="ignore"):
        change = np.abs(scores[1][flipped] - scores[0][flipped])
    change = np.where(np.isnan(change), np.inf, change)
    shown = flipped[np.argsort(-change, kind="stable")[:EXAMPLES]]
    lost, won = old & ~new, new & ~old
    return Flips(
        metric=metric,
        thresholds=thresholds,
        genuine=int(np.count_nonzero(genuine)),
        impostors=int(np.count_nonzero(~genuine)),
        genuine_lost=int(np.count_nonzero(lost & genuine)),
        genuine_gained=int(np.count_nonzero(won & genuine)),
        impostors_let_in=int(np.count_nonzero(won & ~genuine)),
        impostors_kept_out=int(np.count_nonzero(lost & ~genuine)),
        examples=tuple(
            FlippedPair(
                pair=label(int(row)),
                genuine=bool(genuine[row]),
                accepted=bool(new[row]),
                baseline=_number(scores[0][row]),
                candidate=_number(scores[1][row]),
            )
            for row in shown
        ),
    )


def _label(pair: NDArray[Any]) -> str:
    return f"templates {pair[0]} and {pair[1]}"


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def finite_distances(scores: Scores) -> NDArray[np.float64]:
    """Return the distances, infinite where a side failed to enrol."""
    distances: NDArray[np.float64] = scores["distances"]
    return np.where(np.isnan(distances), np.inf, distances)


def failures_last(scores: NDArray[Any]) -> NDArray[Any]:
    """Return the scores, those of failures to enrol below every threshold."""
    return np.where(np.isfinite(scores), scores, scores.dtype.type(-np.inf))


def _interval(found: PercentileInterval, method: str) -> Interval:
    return Interval(**asdict(found), method=f"{method}, paired")


def _check_same(old: Scores, new: Scores, names: tuple[str, ...]) -> None:
    for name in names:
        for scores in (old, new):
            if name not in scores:
                raise InputError(f"A file of scores has no array {name}. Make the result again.")
        if not np.array_equal(old[name], new[name]):
            raise CannotJudgeError(
                f"The two runs compared different pairs: their {name} differ. Run both on the "
                "same data."
            )
