"""The gate: whether a result is no worse than a pinned baseline, by margins fixed beforehand.

Nothing here is random: the same two files and the same policy give the same verdict. Margins are
on the *error* rate, because one point on 99.5 % hides three times the errors; they are one-sided,
so an improvement never fails.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from evalkit.core.errors import EXIT_CANNOT_JUDGE, EXIT_FAILED, EXIT_OK, CannotJudgeError
from evalkit.core.records import Record, TaskRecord
from evalkit.core.results import Metric, Result, Text, load_result
from evalkit.core.validation import find_yaml, read_yaml, validate
from evalkit.verdict.comparable import metric_named, mismatches, run_label

Outcome = Literal["pass", "fail", "cannot_judge", "skipped"]
_WILD = frozenset("*?[")
_GUARDS = ("protocol", "data", "rules", "sample counts")


class MetricPolicy(Record):
    """How much worse a metric may be.

    The error rate may exceed the baseline's by the largest of its margins.

    Attributes
    ----------
    name : str
        Of a metric, or a pattern (``tar@far=*``). A metric that is named without wildcards must be
        there and be fit to judge. A pattern skips metrics that are not.
    absolute : float
        Margin on the error rate: 0.001 is a tenth of a point.
    relative : float
        Margin as a share of the baseline's error rate: 0.05 is a twentieth more errors.
    errors : int
        Margin in wrong decisions.
    """

    name: str = Field(min_length=1)
    absolute: float = Field(default=0.0, ge=0, lt=1)
    relative: float = Field(default=0.0, ge=0)
    errors: int = Field(default=0, ge=0)

    @property
    def exact(self) -> bool:
        """Whether it names one metric."""
        return not _WILD & set(self.name)


class Policy(Record):
    """The margins of a gate.

    Attributes
    ----------
    metrics : tuple of MetricPolicy
        The first whose name fits a metric holds for it.
    headline : MetricPolicy or None
        Holds for the headline figure where no name fits it, whatever its task. The figure must be
        fit to judge: other figures alone do not pass a gate.
    failures_to_enrol : int
        How many more samples may fail than in the baseline.
    """

    metrics: tuple[MetricPolicy, ...] = Field(min_length=1)
    headline: MetricPolicy | None = None
    failures_to_enrol: int = Field(default=0, ge=0)

    @field_validator("headline", mode="before")
    @classmethod
    def _of_any_name(cls, values: Any) -> Any:
        return {"name": "*", **values} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _names_once(self) -> Policy:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError("a metric is named twice; leave one out")
        return self


class Check(Record):
    """One check of a gate.

    Attributes
    ----------
    name : str
        ``data``, ``failures to enrol``, or a metric's.
    outcome : {"pass", "fail", "cannot_judge", "skipped"}
    message : str
        Why, with the figures.
    baseline, candidate, limit : float or None
        Error rates (or counts of failures), and the most that the policy allows.
    """

    name: Text
    outcome: Outcome
    message: Text
    baseline: float | None = None
    candidate: float | None = None
    limit: float | None = None


class Verdict(TaskRecord):
    """The outcome of a gate, and its checks.

    Attributes
    ----------
    outcome : {"pass", "fail", "cannot_judge"}
    exit_code : int
        0, 1 or 3.
    """

    outcome: Literal["pass", "fail", "cannot_judge"]
    exit_code: int
    dataset: Text
    baseline: Text
    candidate: Text
    checks: tuple[Check, ...]
    policy: Policy


def load_policy(named_or_file: str) -> Policy:
    """Read a policy: a YAML file, or the name of one in ``configs/gates``.

    Raises
    ------
    evalkit.core.errors.InputError
        There is none, or it is wrong.
    """
    path = find_yaml(named_or_file, "gates", "policy")
    return validate(Policy, read_yaml(path), str(path))


def judge(result: Result, baseline: Result, policy: Policy) -> Verdict:
    """Compare a result with a baseline.

    The guards come first: where data, rules or sample counts differ, or a run is partial, no
    figure is looked at.
    """
    checks = _guards(result, baseline)
    if all(check.outcome == "pass" for check in checks):
        checks.append(_failures(result, baseline, policy))
        checks += _figures(result, baseline, policy)
    outcomes = {check.outcome for check in checks}
    outcome: Literal["pass", "fail", "cannot_judge"] = "pass"
    if "cannot_judge" in outcomes:
        outcome = "cannot_judge"
    elif "fail" in outcomes:
        outcome = "fail"
    codes = {"pass": EXIT_OK, "fail": EXIT_FAILED, "cannot_judge": EXIT_CANNOT_JUDGE}
    return Verdict(
        outcome=outcome,
        exit_code=codes[outcome],
        task=result.task,
        dataset=result.dataset.name,
        baseline=run_label(baseline),
        candidate=run_label(result),
        checks=tuple(checks),
        policy=policy,
    )


def trimmed(result: Result) -> Result:
    """Return what a baseline needs: no scores, timings, folds or paths of this machine."""
    return result.model_copy(
        update={
            "dataset": result.dataset.model_copy(update={"path": ""}),
            "model": result.model.model_copy(
                update={"file": result.model.file and Path(result.model.file).name}
            ),
            "metrics": tuple(metric.model_copy(update={"series": {}}) for metric in result.metrics),
            "stages": (),
            "scores_file": None,
            "store": None,
            "command": "",
        }
    )


def update_baseline(result: Result, path: Path) -> list[str]:
    """Make a result the baseline; return what changed, in lines for the log.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        The result is partial or lacks figures: no gate could use it.
    """
    if result.status != "complete":
        raise CannotJudgeError(
            "This result covers a part of the data, and a baseline needs all. Run on all data."
        )
    # A flag explains a figure that the data cannot give, such as an AP without faces.
    absent = [m.name for m in result.metrics if not _finite(m.value) and not m.flags]
    if absent or not result.metrics:
        listed = ", ".join(absent) or "any metric"
        raise CannotJudgeError(
            f"This result has no value of {listed}, and a baseline needs one. Run it again."
        )
    lines = [f"baseline: {path} is now {run_label(result)}"]
    if path.exists():
        old = load_result(path)
        lines += [f"  was of other data or rules: {m.message}" for m in mismatches(old, result)]
        for metric in result.metrics:
            before = metric_named(old, metric.name)
            if before is not None and before.value != metric.value:
                lines.append(f"  {metric.name}: {before.value} -> {metric.value}")
    trimmed(result).save(path)
    return lines


def _guards(result: Result, baseline: Result) -> list[Check]:
    differences = mismatches(baseline, result)
    partial = [
        name
        for name, side in (("result", result), ("baseline", baseline))
        if side.status != "complete"
    ]
    message = f"the {' and the '.join(partial)} cover a part of the data" if partial else ""
    checks = [_guard("complete", message)]
    for what in _GUARDS:
        checks.append(_guard(what, "; ".join(m.message for m in differences if m.what == what)))
        if what == "protocol" and checks[-1].outcome != "pass":
            break  # the others are not of one kind then, and were not looked at
    return checks


def _guard(name: str, message: str) -> Check:
    outcome: Outcome = "cannot_judge" if message else "pass"
    return Check(name=name, outcome=outcome, message=message or "as in the baseline")


def _failures(result: Result, baseline: Result, policy: Policy) -> Check:
    before, now = len(baseline.failures_to_enrol), len(result.failures_to_enrol)
    limit = before + policy.failures_to_enrol
    named_failures = ", ".join(failure.name for failure in result.failures_to_enrol[:5])
    return Check(
        name="failures to enrol",
        outcome="fail" if now > limit else "pass",
        message=f"{now} failed, {before} in the baseline, at most {limit} allowed"
        + (f": {named_failures}" if now > limit else ""),
        baseline=before,
        candidate=now,
        limit=limit,
    )


def _figures(result: Result, baseline: Result, policy: Policy) -> list[Check]:
    checks = []
    for margin in policy.metrics:
        if margin.exact and metric_named(baseline, margin.name) is None:
            message = "the baseline has no such figure; correct the policy or update the baseline"
            checks.append(Check(name=margin.name, outcome="cannot_judge", message=message))
    for metric in baseline.metrics:
        otherwise = policy.headline if metric.headline else None
        chosen = next((p for p in policy.metrics if _fits(p, metric.name)), otherwise)
        if chosen is not None:
            needed = chosen.exact or chosen is otherwise
            checks.append(_figure(metric, metric_named(result, metric.name), chosen, needed))
    if not any(check.outcome in {"pass", "fail"} for check in checks):
        message = "no figure of the baseline is fit to be judged under this policy"
        checks.append(Check(name="figures", outcome="cannot_judge", message=message))
    return checks


def _fits(policy: MetricPolicy, name: str) -> bool:
    return policy.name == name if policy.exact else fnmatchcase(name, policy.name)


def _figure(before: Metric, after: Metric | None, policy: MetricPolicy, needed: bool) -> Check:
    """Judge a figure. One that is `needed` must be fit to judge; any other is skipped."""
    unfit: Outcome = "cannot_judge" if needed else "skipped"
    if after is None:
        return Check(
            name=before.name, outcome="cannot_judge", message="the result has no such figure"
        )
    if not _finite(after.value) and _finite(before.value):
        return Check(
            name=before.name, outcome="cannot_judge", message="the result's figure is not a number"
        )
    few = before.too_few or after.too_few
    if few:
        message = f"fewer than 30 {few}: too few to gate on"
        return Check(name=before.name, outcome=unfit, message=message)
    old, new = before.error_rate, after.error_rate
    if old is None or new is None:
        message = "this figure is not an error rate, so a margin does not apply"
        return Check(name=before.name, outcome=unfit, message=message)
    return _within(before, old, new, policy)


def _within(metric: Metric, old: float, new: float, policy: MetricPolicy) -> Check:
    margin = max(policy.absolute, policy.relative * old)
    if policy.errors:
        total = metric.counts.get(metric.share[1]) if metric.share else None
        if not total:
            message = "'errors' needs a metric with counts; give 'absolute' or 'relative'"
            return Check(name=metric.name, outcome="cannot_judge", message=message)
        margin = max(margin, policy.errors / total)
    limit = old + margin
    # A margin that is met exactly is met: sums such as 0.1 + 0.2 must not fail it.
    failed = new > limit and not math.isclose(new, limit, rel_tol=1e-12, abs_tol=1e-15)
    words = "exceeds" if failed else "is within"
    return Check(
        name=metric.name,
        outcome="fail" if failed else "pass",
        message=f"error rate {new:.6g} {words} {limit:.6g} (baseline {old:.6g})",
        baseline=old,
        candidate=new,
        limit=limit,
    )


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
