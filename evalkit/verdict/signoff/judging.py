"""Whether a cell's figure is no worse than the reference's by more than its margin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from evalkit.core.errors import CannotJudgeError
from evalkit.core.results import TOO_FEW, Metric, Result
from evalkit.stats.evidence import Draws, Evidence, Unit
from evalkit.stats.noninferiority import Bounds, least_width
from evalkit.tasks import TASKS
from evalkit.tasks.figures import TOO_FEW_FALSE_ACCEPTS
from evalkit.verdict.compare import Comparison, compare_sides
from evalkit.verdict.paired import Carried, Change, Paired, Side
from evalkit.verdict.plan import ProtocolPlan, Statistics
from evalkit.verdict.signoff.record import Deployment, Limit, NonInferiority, Overall

CATASTROPHIC = 0.9
"""A first percentile of cosines below this is shown at a glance, whatever the plan says."""
_LEAST_EVENTS = 30


@dataclass(frozen=True, slots=True)
class Judged:
    """What a comparison with the reference gave."""

    test: NonInferiority
    deployment: Deployment | None
    limits: tuple[Limit, ...]
    comparison: Comparison
    outcome: Overall
    reason: str


class Judge:
    """Compares the cells of one protocol with its reference.

    Parameters
    ----------
    protocol : ProtocolPlan
    statistics : Statistics
    reference : Side
    """

    def __init__(self, protocol: ProtocolPlan, statistics: Statistics, reference: Side) -> None:
        self.protocol = protocol
        self.statistics = statistics
        self.reference = reference

    def judge(self, candidate: Side) -> Judged:
        """Judge one cell.

        Raises
        ------
        evalkit.core.errors.CannotJudgeError
            The two runs are not of the same data by the same rules.
        """
        before, draws = self._before, self._draws
        shared: Mapping[str, Draws] = {before.view: draws}
        if self._evidence.unit == "pair":
            shared = {}  # pairs are drawn anew in no time, and a comparison has its own number
        comparison = compare_sides(self.reference, candidate, shared)
        after = primary(candidate.result, self.protocol)
        pair = Paired(self._evidence, evidence_of(candidate, after.view), draws)
        change = pair.change(before, after)
        if change is None:
            raise CannotJudgeError(f"{before.name} has no paired test; choose another 'primary'")
        test = self._test(before, after, change)
        carried = pair.carried(before, after)
        limits = _limits(self.protocol, self.reference.result, candidate.result, comparison)
        outcome, reason = _together(test, limits)
        return Judged(
            test,
            _deployment(before, carried, self.statistics.level) if carried else None,
            limits,
            comparison,
            outcome,
            reason,
        )

    @cached_property
    def _before(self) -> Metric:
        return primary(self.reference.result, self.protocol)

    @cached_property
    def _evidence(self) -> Evidence:
        return evidence_of(self.reference, self._before.view)

    @cached_property
    def _draws(self) -> Draws:
        """The draws that serve all cells of the protocol."""
        draws = self._evidence.draw(self.statistics.replicates, self.statistics.seed)
        if draws is None:
            raise CannotJudgeError(
                f"the data have too few {self._evidence.unit}s, or comparisons of one kind only; "
                "the test needs more of both"
            )
        return draws

    def _test(self, before: Metric, after: Metric, change: Change) -> NonInferiority:
        old, new = value_of(before), value_of(after)
        sign = -1 if before.direction == "lower" else 1
        margin = self.protocol.margin.of(old if sign > 0 else 1 - old)
        weights = self._evidence.weights(before)
        unit = self._evidence.unit
        bounds = change.bounds(sign * (new - old), self.statistics.level, weights, sign)
        mcnemar = change.test()
        few = _too_few(before) or _too_few(after)
        outcome, reason = _tested(bounds, margin, few, unit, len(weights))
        return NonInferiority(
            metric=before.name,
            unit=f"{unit}s",
            units=len(weights),
            method=change.one_sided,
            reference=old,
            candidate=new,
            difference=sign * (new - old),
            low=bounds and bounds.low,
            high=bounds and bounds.high,
            level=self.statistics.level,
            margin=margin,
            detectable=bounds and bounds.detectable,
            p_value=mcnemar and mcnemar.p_value,
            outcome=outcome,
            reason=reason,
        )


def evidence_of(side: Side, view: str) -> Evidence:
    """Return the evidence beside a result, of the view of the tested figure.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        There is nothing.
    """
    evidence = side.evidence.get(view)
    if evidence is None:
        raise CannotJudgeError(
            f"{side.path} has no scores beside it for the figure that is tested; run the cell again"
        )
    return evidence


def primary(result: Result, protocol: ProtocolPlan) -> Metric:
    """Return the figure that is tested.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        The result has none, or it is not a number.
    """
    try:
        metric = result.metric(protocol.primary)
    except KeyError:
        known = ", ".join(metric.name for metric in result.metrics if not metric.part)
        raise CannotJudgeError(
            f"the result has no figure {protocol.primary}; it has {known}. Correct 'primary' in "
            "the plan"
        ) from None
    value_of(metric)
    return metric


def value_of(metric: Metric) -> float:
    """Return a figure.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        It is not a number.
    """
    if metric.value is None or not math.isfinite(metric.value):
        raise CannotJudgeError(f"{metric.name} is not a number")
    return metric.value


def _tested(
    bounds: Bounds | None, margin: float, few: str, unit: Unit, units: int
) -> tuple[Overall, str]:
    """Compare the bounds with the margin; say why in a sentence."""
    if bounds is None:
        return "inconclusive", "the draws give no bound: too few comparisons"
    if few:
        return "inconclusive", f"fewer than {_LEAST_EVENTS} {few}: too few to judge on"
    outcome = bounds.judged(margin)
    reason = _explain(outcome, bounds, margin)
    # Hardly any decision changed where the bounds are no wider than the number of units makes them.
    least = least_width(units, bounds.level)
    narrowest = unit != "pair" and math.isclose(bounds.difference - bounds.low, least)
    if outcome == "inconclusive" and narrowest:
        reason += f": {units} {unit}s without a change show no less"
    return outcome, reason


def _deployment(metric: Metric, carried: Carried, level: float) -> Deployment:
    """Return what happens where the reference's thresholds stay in use."""
    old, new = carried.reference, carried.candidate
    return Deployment(
        metric=metric.name,
        threshold=old.similarity,
        fmr_reference=old.fmr,
        fmr=new.fmr,
        fmr_ratio=new.fmr / old.fmr if old.fmr else None,
        fmr_ratio_interval=carried.fmr_ratio and carried.fmr_ratio.interval(level),
        fnmr_reference=old.fnmr,
        fnmr=new.fnmr,
        fnmr_change=new.fnmr - old.fnmr,
        fnmr_change_interval=carried.fnmr and carried.fnmr.interval(level),
    )


def _too_few(metric: Metric) -> str:
    """Say what the figure rests on too little of; empty where it has enough."""
    target = metric.at.get("target")
    impostors = metric.counts.get("impostors")
    if not metric.too_few and target and impostors and target * impostors < _LEAST_EVENTS:
        return TOO_FEW[TOO_FEW_FALSE_ACCEPTS]
    return metric.too_few


def _explain(outcome: Overall, bounds: Bounds, margin: float) -> str:
    points = {
        name: f"{100 * value:+.3g}"
        for name, value in (("low", bounds.low), ("high", bounds.high), ("margin", -margin))
    }
    confidence = f"with {100 * bounds.level:g} % confidence"
    if outcome == "pass":
        return (
            f"{confidence} the change is above {points['low']} points, within the margin of "
            f"{points['margin']}"
        )
    if outcome == "fail":
        return (
            f"{confidence} the change is below {points['high']} points, beyond the margin of "
            f"{points['margin']}"
        )
    return (
        f"the change lies between {points['low']} and {points['high']} points, on both sides of "
        f"the margin of {points['margin']}; a margin under {100 * bounds.detectable:.3g} points "
        "needs more data"
    )


def _limits(
    protocol: ProtocolPlan, reference: Result, candidate: Result, comparison: Comparison
) -> tuple[Limit, ...]:
    limits = []
    if TASKS.get(protocol.kind).head == "embedding":
        limits += _drift_limit(protocol, comparison)
    allowed = protocol.limits.failures_to_enrol
    if allowed is not None:
        before, now = len(reference.failures_to_enrol), len(candidate.failures_to_enrol)
        limits.append(
            Limit(
                name="failures to enrol",
                value=now,
                limit=before + allowed,
                outcome="fail" if now > before + allowed else "pass",
                message=f"{now} images failed, {before} in the reference, {allowed} more allowed",
            )
        )
    return tuple(limits)


def _drift_limit(protocol: ProtocolPlan, comparison: Comparison) -> list[Limit]:
    limit = protocol.limits.drift_cosine_p1
    lowest = [d.cosine_p1 for d in comparison.drift if d.cosine_p1 is not None]
    least = CATASTROPHIC if limit is None else limit
    outcome: Literal["pass", "fail", "inconclusive", "flag"] = "pass"
    if not lowest:
        outcome = "pass" if limit is None else "inconclusive"
        message = "; ".join(comparison.notes) or "no drift was measured"
        value = None
    else:
        value = min(lowest)
        message = f"1 % of the images have a cosine to the reference of at most {value:.4f}"
        if value < least:
            outcome = "flag" if limit is None else "fail"
            message += f", under {least:g}"
        if value < CATASTROPHIC:
            message += ": these embeddings are not the reference's"
    return [
        Limit(name="drift cosine p1", value=value, limit=limit, outcome=outcome, message=message)
    ]


def _together(test: NonInferiority, limits: tuple[Limit, ...]) -> tuple[Overall, str]:
    """Let a cell pass where its test and all limits do, and fail where one does."""
    outcomes = [(test.outcome, test.reason), *((limit.outcome, limit.message) for limit in limits)]
    worst: tuple[Overall, ...] = ("fail", "inconclusive")
    for overall in worst:
        reasons = [reason for outcome, reason in outcomes if outcome == overall]
        if reasons:
            return overall, "; ".join(reasons)
    flagged = [reason for outcome, reason in outcomes if outcome == "flag"]
    return "pass", "; ".join([test.reason, *flagged])
