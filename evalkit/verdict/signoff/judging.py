"""Whether a cell's figure is no worse than the reference's by more than its margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalkit.core.errors import CannotJudgeError
from evalkit.core.results import Metric, Result
from evalkit.stats.noninferiority import Bounds
from evalkit.verdict.compare import Comparison, compare
from evalkit.verdict.plan import ProtocolPlan, Statistics
from evalkit.verdict.signoff.findings import (
    Detections,
    Finding,
    Side,
    Templates,
    compare_pairs,
    value_of,
)
from evalkit.verdict.signoff.record import Deployment, Limit, NonInferiority, Overall

CATASTROPHIC = 0.9
"""A first percentile of cosines below this is shown at a glance, whatever the plan says."""
_LEAST_FALSE_ACCEPTS = 30


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
    """Holds the cells of one protocol against its reference.

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
        self._drawn: Templates | Detections | None = None

    def judge(self, candidate: Side) -> Judged:
        """Judge one cell.

        Raises
        ------
        evalkit.core.errors.CannotJudgeError
            The two runs are not of the same data by the same rules.
        """
        before = primary(self.reference.result, self.protocol)
        drawn = self._drawn_of(before)
        comparison = compare(self.reference.path, candidate.path, drawn.draws if drawn else None)
        after = primary(candidate.result, self.protocol)
        if drawn is None:
            finding = compare_pairs(self.statistics, self.reference, candidate, before, after)
        else:
            finding = drawn.find(candidate.scores(), after)
        test = self._test(before, after, finding)
        limits = _limits(self.protocol, self.reference.result, candidate.result, comparison)
        outcome, reason = _together(test, limits)
        return Judged(test, finding.deployment, limits, comparison, outcome, reason)

    def _drawn_of(self, before: Metric) -> Templates | Detections | None:
        """Return the draws that serve all cells of the protocol; pairs have none."""
        if self._drawn is None and self.protocol.kind != "lfw":
            kind = Detections if self.protocol.kind == "widerface" else Templates
            self._drawn = kind(self.reference.scores(), before, self.statistics)
        return self._drawn

    def _test(self, before: Metric, after: Metric, finding: Finding) -> NonInferiority:
        old, new = value_of(before), value_of(after)
        margin = self.protocol.margin.of(old)
        bounds = finding.bounds
        outcome: Overall = "inconclusive"
        if bounds is None:
            reason = "the draws give no bound: too few comparisons"
        elif _too_few(before) or _too_few(after):
            reason = (
                f"fewer than {_LEAST_FALSE_ACCEPTS} false accepts are expected: too few to judge on"
            )
        else:
            outcome = bounds.judged(margin)
            reason = _explain(outcome, bounds, margin)
            if outcome == "inconclusive" and finding.at_least_width:
                reason += f": {finding.units} {finding.unit} without a change show no less"
        return NonInferiority(
            metric=before.name,
            unit=finding.unit,
            units=finding.units,
            method=finding.method,
            reference=old,
            candidate=new,
            difference=new - old,
            low=bounds and bounds.low,
            high=bounds and bounds.high,
            level=self.statistics.level,
            margin=margin,
            detectable=bounds and bounds.detectable,
            p_value=finding.p_value,
            outcome=outcome,
            reason=reason,
        )


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
        known = ", ".join(m.name for m in result.metrics if "=" not in m.name or "far" in m.name)
        raise CannotJudgeError(
            f"the result has no figure {protocol.primary}; it has {known}"
        ) from None
    value_of(metric)
    return metric


def _too_few(metric: Metric) -> bool:
    """Whether fewer than 30 false accepts are expected at the figure's target."""
    target = metric.at.get("target")
    impostors = metric.counts.get("impostors")
    if "too_few_false_accepts" in metric.flags:
        return True
    return bool(target and impostors and target * impostors < _LEAST_FALSE_ACCEPTS)


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
    found = []
    if protocol.kind != "widerface":
        found += _drift_limit(protocol, comparison)
    allowed = protocol.limits.failures_to_enrol
    if allowed is not None:
        before, now = len(reference.failures_to_enrol), len(candidate.failures_to_enrol)
        found.append(
            Limit(
                name="failures to enrol",
                value=now,
                limit=before + allowed,
                outcome="fail" if now > before + allowed else "pass",
                message=f"{now} images failed, {before} in the reference, {allowed} more allowed",
            )
        )
    return tuple(found)


def _drift_limit(protocol: ProtocolPlan, comparison: Comparison) -> list[Limit]:
    asked = protocol.limits.drift_cosine_p1
    lowest = [d.cosine_p1 for d in comparison.drift if d.cosine_p1 is not None]
    limit = CATASTROPHIC if asked is None else asked
    outcome: Literal["pass", "fail", "inconclusive", "flag"] = "pass"
    if not lowest:
        outcome = "pass" if asked is None else "inconclusive"
        message = "; ".join(comparison.notes) or "no drift was measured"
        value = None
    else:
        value = min(lowest)
        message = f"1 % of the images have a cosine to the reference of at most {value:.4f}"
        if value < limit:
            outcome = "flag" if asked is None else "fail"
            message += f", under {limit:g}"
        if value < CATASTROPHIC:
            message += ": these embeddings are not the reference's"
    return [
        Limit(name="drift cosine p1", value=value, limit=asked, outcome=outcome, message=message)
    ]


def _together(test: NonInferiority, limits: tuple[Limit, ...]) -> tuple[Overall, str]:
    """Let a cell pass where its test and all limits do, and fail where one does."""
    outcomes = [(test.outcome, test.reason), *((limit.outcome, limit.message) for limit in limits)]
    for wanted in ("fail", "inconclusive"):
        reasons = [reason for outcome, reason in outcomes if outcome == wanted]
        if reasons:
            return ("fail" if wanted == "fail" else "inconclusive"), "; ".join(reasons)
    flagged = [reason for outcome, reason in outcomes if outcome == "flag"]
    return "pass", "; ".join([test.reason, *flagged])
