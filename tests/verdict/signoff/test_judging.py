"""From bounds and limits to a cell's verdict, and from cells to the whole's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evalkit.core.errors import CannotJudgeError
from evalkit.core.results import Failure, Metric, Result
from evalkit.stats.comparisons import SubjectComparisons
from evalkit.stats.noninferiority import Bounds, least_width
from evalkit.verdict.compare import Comparison, DriftSummary
from evalkit.verdict.paired import Change, Side
from evalkit.verdict.plan import ProtocolPlan, Statistics
from evalkit.verdict.signoff import judging
from evalkit.verdict.signoff.history import differences
from evalkit.verdict.signoff.judging import Judge, value_of
from evalkit.verdict.signoff.record import Cell, Limit, NonInferiority
from evalkit.verdict.signoff.run import overall


def protocol(**values: Any) -> ProtocolPlan:
    plan = {
        "kind": "ijbc",
        "settings": {"far": [1e-4]},
        "primary": "tar@far=1e-04",
        "margin": {"points": 1},
    }
    return ProtocolPlan.model_validate(plan | values)


def metric(value: float | None, **values: Any) -> Metric:
    at = {"target": 1e-4, "similarity": 0.5}
    counts = {"impostors": 10**6}
    plain = {"name": "tar@far=1e-04", "figure": "tar", "value": value, "rule": "at_most"}
    return Metric.model_validate({**plain, "at": at, "counts": counts, **values})


class Bounded(Change):
    """A change whose bounds are known."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__("draws, paired")
        object.__setattr__(self, "ends", (low, high))

    def bounds(self, gain: float, level: float, weights: Any, sign: int = 1) -> Bounds:
        return Bounds(gain, *self.ends, level, 0.01)  # type: ignore[attr-defined]


def subjects(count: int = 100) -> SubjectComparisons:
    """Each subject has one genuine comparison, and one with the next."""
    first = np.arange(count)
    pairs = np.concatenate([np.stack([first, first], 1), np.stack([first, (first + 1) % count], 1)])
    genuine = pairs[:, 0] == pairs[:, 1]
    return SubjectComparisons(genuine.astype(float), genuine, pairs, first, first)


def hold(low: float, high: float, before: Metric, after: Metric) -> NonInferiority:
    judge = Judge(protocol(), Statistics(), Side.__new__(Side))
    judge.__dict__["_evidence"] = subjects()
    return judge._test(before, after, Bounded(low, high))


@pytest.mark.parametrize(
    ("low", "high", "outcome", "said"),
    [
        (-0.008, 0.002, "pass", "within the margin"),
        (-0.01, 0.0, "pass", "within the margin"),
        (-0.03, -0.012, "fail", "beyond the margin"),
        (-0.03, -0.002, "inconclusive", "on both sides"),
        (-0.03, 0.02, "inconclusive", "needs more data"),
    ],
)
def test_the_bounds_decide(low: float, high: float, outcome: str, said: str) -> None:
    test = hold(low, high, metric(0.97), metric(0.965))
    assert (test.outcome, test.margin) == (outcome, 0.01)
    assert said in test.reason


def test_where_nothing_changed_too_few_units_are_named() -> None:
    width = least_width(100, 0.95)
    test = hold(-width, width, metric(0.97), metric(0.97))
    assert test.outcome == "inconclusive"
    assert test.reason.endswith("needs more data: 100 subjects without a change show no less")


@pytest.mark.parametrize(
    "few", [{"flags": ("too_few_false_accepts",)}, {"counts": {"impostors": 299_999}}]
)
def test_few_expected_false_accepts_are_never_judged_on(few: dict[str, Any]) -> None:
    for low, high in ((0.0, 0.0), (-0.5, -0.4)):
        test = hold(low, high, metric(0.97, **few), metric(0.97))
        assert test.outcome == "inconclusive"
        assert "fewer than 30 false accepts" in test.reason
        assert test.low == low


def test_few_faces_are_never_judged_on() -> None:
    test = hold(0.0, 0.0, metric(0.97), metric(0.97, flags=("too_few_faces",)))
    assert test.outcome == "inconclusive"
    assert test.reason == "fewer than 30 faces are counted: too few to judge on"


def test_an_absent_figure_is_named_beside_those_of_all_data() -> None:
    names = ("fnmr@fmr=1e-04", "ap/hard/event=e")
    metrics = tuple(
        Metric(name=name, figure="f", value=1.0, rule="", part=part)
        for name, part in zip(names, ({}, {"event": "e"}), strict=True)
    )
    with pytest.raises(CannotJudgeError, match=rf"it has {names[0]}\. Correct 'primary'"):
        judging.primary(Result.model_construct(metrics=metrics), protocol())


def test_a_figure_that_rises_is_a_loss_where_lower_is_better() -> None:
    eer = {"name": "eer", "figure": "eer", "direction": "lower"}
    test = hold(-0.012, -0.008, metric(0.02, **eer), metric(0.03, **eer))
    assert test.difference == pytest.approx(-0.01)
    assert (test.low, test.outcome) == (-0.012, "inconclusive")
    change = Change("draws, paired", np.full(100, 0.01))
    bounds = change.bounds(-0.01, 0.95, np.ones(1000), -1)
    assert bounds is not None
    assert bounds.low < -0.01 < bounds.high < 0


def test_a_figure_that_is_no_number_is_not_judged() -> None:
    for value in (None, float("nan")):
        with pytest.raises(CannotJudgeError, match="not a number"):
            value_of(metric(value))


def drifted(cosine: float | None) -> Comparison:
    drift = DriftSummary.model_construct(cosine_p1=cosine)
    return Comparison.model_construct(drift=() if cosine is None else (drift,), notes=("gone",))


@pytest.mark.parametrize(
    ("limit", "cosine", "outcome"),
    [
        (None, 0.99, "pass"),
        (None, 0.2, "flag"),
        (None, None, "pass"),
        (0.95, 0.99, "pass"),
        (0.95, 0.94, "fail"),
        (0.95, None, "inconclusive"),
    ],
)
def test_drift_is_flagged_or_fails(limit: Any, cosine: float | None, outcome: str) -> None:
    (check,) = judging._drift_limit(protocol(limits={"drift_cosine_p1": limit}), drifted(cosine))
    assert (check.outcome, check.value, check.limit) == (outcome, cosine, limit)


def test_only_far_drift_is_called_another_embedding() -> None:
    near, far = (
        judging._drift_limit(protocol(limits={"drift_cosine_p1": 0.98}), drifted(cosine))[0]
        for cosine in (0.9796, 0.78)
    )
    assert near.message.endswith("at most 0.9796, under 0.98")
    assert far.message.endswith("under 0.98: these embeddings are not the reference's")


def test_more_failures_than_allowed_fail() -> None:
    class Ran:
        def __init__(self, failures: int) -> None:
            self.failures_to_enrol = (Failure(name="x", reason="y"),) * failures

    plan = protocol(limits={"failures_to_enrol": 1})
    for now, outcome in ((3, "pass"), (4, "fail")):
        limits = judging._limits(plan, Ran(2), Ran(now), drifted(1.0))  # type: ignore[arg-type]
        assert [limit.outcome for limit in limits] == ["pass", outcome]


def test_a_cell_fails_by_its_test_or_a_limit() -> None:
    passed = hold(-0.001, 0.0, metric(0.97), metric(0.97))
    unsure = hold(-0.02, 0.0, metric(0.97), metric(0.97))

    def limit(outcome: Any) -> tuple[Limit, ...]:
        return (Limit(name="drift cosine p1", value=0, limit=1, outcome=outcome, message="far"),)

    assert judging._together(passed, limit("pass"))[0] == "pass"
    assert judging._together(passed, limit("flag")) == ("pass", f"{passed.reason}; far")
    assert judging._together(passed, limit("fail")) == ("fail", "far")
    assert judging._together(unsure, limit("fail"))[0] == "fail"
    assert judging._together(unsure, limit("pass"))[0] == "inconclusive"
    assert judging._together(passed, limit("inconclusive"))[0] == "inconclusive"


def cells(*outcomes: str) -> list[Cell]:
    return [
        Cell(
            protocol="p",
            backend=str(row),
            precision="fp16",
            optional=outcome.endswith("?"),
            outcome=outcome.rstrip("?"),  # type: ignore[arg-type]
            reason="",
        )
        for row, outcome in enumerate(("reference", *outcomes))
    ]


@pytest.mark.parametrize(
    ("outcomes", "whole"),
    [
        (("pass", "pass"), "pass"),
        (("pass", "cannot_run?"), "pass"),
        (("pass", "not_run?"), "pass"),
        (("pass", "cannot_run"), "inconclusive"),
        (("pass", "not_run"), "inconclusive"),
        (("pass", "inconclusive?"), "inconclusive"),
        (("pass", "fail?"), "fail"),
        (("fail", "cannot_run"), "fail"),
        (("cannot_run?",), "inconclusive"),
        ((), "inconclusive"),
    ],
)
def test_all_must_pass(outcomes: tuple[str, ...], whole: str) -> None:
    outcome, reason = overall(cells(*outcomes))
    assert outcome == whole
    assert reason
    left_out = [o for o in outcomes if o in {"cannot_run?", "not_run?"}]
    assert ("optional and without a result: p/" in reason) is (outcome == "pass" and bool(left_out))


def test_changes_of_protocols_are_told_by_their_names() -> None:
    before = {"protocols": [{"name": "a", "margin": 1}, {"name": "b", "margin": 1}], "x": [1, 2]}
    after = {"protocols": [{"name": "b", "margin": 2}], "x": [1]}
    assert list(differences(before, after)) == [
        'protocols.a.name: "a" -> nothing',
        "protocols.a.margin: 1 -> nothing",
        "protocols.b.margin: 1 -> 2",
        "x: [1, 2] -> [1]",
    ]
