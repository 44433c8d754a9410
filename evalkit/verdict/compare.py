"""Two runs on the same data: what changed, by how much, and for which samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from evalkit.core.errors import CannotJudgeError
from evalkit.core.records import Record, TaskRecord
from evalkit.core.results import Interval, Kind, Metric, Result, Text, too_few
from evalkit.stats.evidence import Draws
from evalkit.tasks import TASKS
from evalkit.tasks.figures import rate_name
from evalkit.verdict.comparable import metric_named, mismatches, run_label
from evalkit.verdict.drift import DriftSummary, drifts
from evalkit.verdict.flips import Flips, flips
from evalkit.verdict.paired import Carried, Paired, Side


class MetricChange(Record):
    """A metric of both runs.

    Attributes
    ----------
    figure : str
        What is measured, as `evalkit.core.results.Metric` has it; ``far`` and ``tar``, or ``fmr``
        and ``fnmr``, at the baseline's threshold.
    difference : float or None
        Candidate minus baseline.
    interval : Interval or None
        Of the difference, paired: both runs under the same draws, or the same decisions.
    p_value : float or None
        Of McNemar's exact test, where the metric is a share of decisions on pairs.
    kind : {"rate", "area", "norm", "small rate"}
        As `evalkit.core.results.Metric` has it; a small rate is written with its power of ten.
    threshold_of : str
        The point whose threshold the baseline keeps in use; empty where each run has its own.
    """

    name: str
    figure: str
    rule: str
    baseline: float | None
    candidate: float | None
    difference: float | None
    interval: Interval | None
    p_value: float | None = None
    flags: tuple[str, ...] = ()
    kind: Kind | Literal["small rate"] = "rate"
    part: dict[str, str] = Field(default_factory=dict)
    view: str = ""
    threshold_of: str = ""

    @property
    def too_few(self) -> str:
        """What the figure of a run rests on too little of; empty where both have enough."""
        return too_few(self.flags)


class Comparison(TaskRecord):
    """Everything that differs between two runs.

    Attributes
    ----------
    task : str
        Registered name of the benchmark.
    differs : dict of str to tuple of str
        Settings of model, backend and machine that differ: of the baseline, of the candidate.
    notes : tuple of str
        What could not be compared, and why.
    """

    dataset: Text
    baseline: Text
    candidate: Text
    differs: dict[str, tuple[str, str]]
    metrics: tuple[MetricChange, ...]
    flips: tuple[Flips, ...]
    drift: tuple[DriftSummary, ...]
    notes: tuple[str, ...]


def compare(baseline: Path, candidate: Path) -> Comparison:
    """Compare two result files on the same data by the same rules, their scores beside them.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        Data, pairs, rules or sample counts differ.
    evalkit.core.errors.InputError
        A file is missing or damaged.
    """
    return compare_sides(Side(baseline), Side(candidate))


def compare_sides(
    baseline: Side, candidate: Side, draws: Mapping[str, Draws] | None = None
) -> Comparison:
    """Compare two runs; see `compare`.

    Parameters
    ----------
    baseline, candidate : Side
    draws : mapping of str to Draws, optional
        Of the baseline's evidence by view, where they are at hand.
    """
    before, after = baseline.result, candidate.result
    differences = mismatches(before, after)
    if differences:
        listed = "\n  ".join(f"{each.what}: {each.message}" for each in differences)
        raise CannotJudgeError(
            f"{baseline.path} and {candidate.path} cannot be compared:\n  {listed}\n"
            "Run both on the same data with the same settings."
        )
    notes: list[str] = []
    paired = _paired(baseline, candidate, draws or {}, notes)
    metrics, carried, flipped = _changes(before, after, paired)
    metrics += carried
    bare = [change for change in metrics if change.interval is None]
    whole = [change.name for change in bare if not change.part]
    if whole:
        notes.append(f"no paired interval of {', '.join(whole)}")
    if len(whole) < len(bare):
        parts = dict.fromkeys(f"by {name}" for change in bare for name in change.part)
        notes.append(f"no paired intervals of parts of the data ({', '.join(parts)})")
    embedding = TASKS.get(before.task).head == "embedding"
    return Comparison(
        task=before.task,
        dataset=before.dataset.name,
        baseline=_label(before, baseline.path, candidate.path),
        candidate=_label(after, candidate.path, baseline.path),
        differs=_differs(before, after),
        metrics=tuple(metrics),
        flips=tuple(flipped),
        drift=drifts(before, after, notes) if embedding else (),
        notes=tuple(notes),
    )


def _paired(
    baseline: Side, candidate: Side, draws: Mapping[str, Draws], notes: list[str]
) -> dict[str, Paired]:
    """Pair the evidence of each view that both runs have."""
    absent = [str(side.path) for side in (baseline, candidate) if side.result.scores_file is None]
    if absent:
        notes.append(f"no intervals and no flips: no scores beside {' and '.join(absent)}")
        return {}
    return {
        view: Paired(evidence, candidate.evidence[view], draws.get(view))
        for view, evidence in baseline.evidence.items()
        if view in candidate.evidence
    }


def _changes(
    before: Result, after: Result, paired: Mapping[str, Paired]
) -> tuple[list[MetricChange], list[MetricChange], list[Flips]]:
    """Return the changes of metrics, of rates at carried thresholds, and of decisions."""
    changes: list[MetricChange] = []
    carried: list[MetricChange] = []
    flipped: list[Flips] = []
    main = next(iter(paired), "")
    for metric in before.metrics:
        other = metric_named(after, metric.name)
        if other is None:
            continue
        pair = paired.get(metric.view)
        changes.append(_change(metric, other, pair))
        decisions = pair.decisions(metric, other) if pair is not None else None
        if pair is None or decisions is None:
            continue
        suffix = "" if metric.view == main else f"/{metric.view.replace(' ', '-')}"
        rates = pair.carried(metric, other)
        one_threshold = rates is not None and rates.reference.similarity is not None
        if rates is not None and one_threshold:
            carried += _rates(metric, rates, suffix)
        if metric.view == main:
            flipped.append(flips(metric, "own", *decisions))
            both = pair.decisions(metric, other, carried=True) if one_threshold else None
            if both is not None:
                flipped.append(flips(metric, "baseline", *both))
    return changes, carried, flipped


def _change(metric: Metric, other: Metric, pair: Paired | None) -> MetricChange:
    change = pair and pair.change(metric, other)
    test = change and change.test()
    both = metric.value is not None and other.value is not None
    return MetricChange(
        name=metric.name,
        figure=metric.figure,
        rule=metric.rule,
        baseline=metric.value,
        candidate=other.value,
        difference=(other.value or 0) - (metric.value or 0) if both else None,
        interval=change and change.interval(),
        p_value=test and test.p_value,
        flags=tuple(sorted({*metric.flags, *other.flags})),
        kind=metric.kind,
        part=metric.part,
        view=metric.view,
    )


def _rates(metric: Metric, carried: Carried, suffix: str) -> list[MetricChange]:
    """Return both rates where the baseline's threshold stays in use.

    They are FMR and FNMR for a rate of errors at a target, FAR and TAR for any other figure.
    """
    target = metric.at.get("target")
    old, new = carried.reference, carried.candidate
    names, right = ("far", "tar"), (old.tar, new.tar, carried.tar)
    if target is not None and metric.direction == "lower":
        names, right = ("fmr", "fnmr"), (old.fnmr, new.fnmr, carried.fnmr)
    point = metric.name if target is None else f"{names[0]}={rate_name(target)}{suffix}"
    kinds: tuple[Literal["small rate"], Literal["rate"]] = ("small rate", "rate")
    rows = ((old.fmr, new.fmr, carried.fmr), right)
    return [
        MetricChange(
            name=f"{figure}@baseline-threshold-of-{point}",
            figure=figure,
            rule="baseline_threshold",
            baseline=before,
            candidate=after,
            difference=after - before,
            interval=change and change.interval(),
            flags=metric.flags,
            kind=kind,
            view=metric.view,
            threshold_of=point,
        )
        for figure, kind, (before, after, change) in zip(names, kinds, rows, strict=True)
    ]


def _label(result: Result, path: Path, other: Path) -> str:
    """Name a run by its file; by its folder too where both files have one name."""
    name = path.name if path.name != other.name else str(Path(path.parent.name, path.name))
    return f"{name}: {run_label(result)}"


def _differs(before: Result, after: Result) -> dict[str, tuple[str, str]]:
    def facts(result: Result) -> dict[str, object]:
        ran = result.ran
        return {
            "model": result.model.name,
            "model sha256": result.model.sha256,
            **{f"preprocessing {k}": v for k, v in result.model.preprocessing.items()},
            "backend": ran.backend,
            "backend version": ran.version,
            "device": ran.device,
            "precision": ran.precision_ran,
            "threads": ran.threads,
            "batch size": ran.batch_size,
            "evalkit": result.evalkit_version,
            "failures to enrol": len(result.failures_to_enrol),
        }

    old, new = facts(before), facts(after)
    names = dict.fromkeys([*old, *new])
    return {
        name: (str(old.get(name)), str(new.get(name)))
        for name in names
        if old.get(name) != new.get(name)
    }
