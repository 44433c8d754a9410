"""Two runs on the same data: what changed, by how much, and for which samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.results import Interval, Kind, Result, Text, load_result
from evalkit.run.drift import stored_drift, stores_of
from evalkit.stats.drift import RTOL, Drift
from evalkit.verdict.comparable import mismatches, named, run_label
from evalkit.verdict.compare_detections import detection_changes
from evalkit.verdict.compare_scores import Draws, Flips, Paired, pair_changes, template_changes

WORST = 10
_METHODS = {
    "ijbb": template_changes,
    "ijbc": template_changes,
    "lfw": pair_changes,
    "widerface": detection_changes,
}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricChange(_Record):
    """A metric of both runs.

    Attributes
    ----------
    difference : float or None
        Candidate minus baseline.
    interval : Interval or None
        Of the difference, paired: both runs under the same draws, or the same decisions.
    p_value : float or None
        Of McNemar's exact test, where the metric is a share of decisions on pairs.
    """

    name: str
    rule: str
    baseline: float | None
    candidate: float | None
    difference: float | None
    interval: Interval | None
    p_value: float | None = None
    flags: tuple[str, ...] = ()
    kind: Kind = "rate"
    part: dict[str, str] = {}


class WorstSample(_Record):
    """A sample whose embeddings differ much."""

    name: Text
    cosine: float


class DriftSummary(_Record):
    """How far the embeddings of the two stores lie apart.

    Attributes
    ----------
    view : str
        ``embeddings``, or ``flipped`` for those of the mirrored images.
    samples : int
        Images with usable embeddings in both.
    cosine_mean, cosine_p1, cosine_min : float or None
        Mean, first percentile and least cosine; None where no image is usable in both.
    largest_absolute, largest_relative, atol_needed : float or None
        See `evalkit.stats.drift.Drift`; None is infinite.
    rtol : float
        The relative tolerance beside `atol_needed`.
    lost, gained : int
        Images whose embedding became unusable, or usable.
    worst : tuple of WorstSample
        Images of the lowest cosines.
    """

    view: str
    samples: int
    cosine_mean: float | None
    cosine_p1: float | None
    cosine_min: float | None
    largest_absolute: float
    largest_relative: float | None
    atol_needed: float
    rtol: float
    lost: int
    gained: int
    worst: tuple[WorstSample, ...]


class Comparison(_Record):
    """Everything that differs between two runs.

    Attributes
    ----------
    differs : dict of str to tuple of str
        Settings of model, backend and machine that differ: of the baseline, of the candidate.
    notes : tuple of str
        What could not be compared, and why.
    """

    protocol: str
    dataset: Text
    baseline: Text
    candidate: Text
    differs: dict[str, tuple[str, str]]
    metrics: tuple[MetricChange, ...]
    flips: tuple[Flips, ...]
    drift: tuple[DriftSummary, ...]
    notes: tuple[str, ...]


def compare(baseline: Path, candidate: Path, draws: Draws | None = None) -> Comparison:
    """Compare two result files.

    Parameters
    ----------
    baseline, candidate : Path
        Results on the same data by the same rules, their scores beside them.
    draws : SubjectBootstrap or ImageBootstrap, optional
        Of the baseline's pairs or images, where they are at hand; made anew otherwise.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        Data, pairs, rules or sample counts differ.
    evalkit.core.errors.InputError
        A file is missing or damaged.
    """
    before, after = load_result(baseline), load_result(candidate)
    found = mismatches(before, after)
    if found:
        listed = "\n  ".join(f"{mismatch.what}: {mismatch.message}" for mismatch in found)
        raise CannotJudgeError(
            f"{baseline} and {candidate} cannot be compared:\n  {listed}\n"
            "Run both on the same data with the same settings."
        )
    notes: list[str] = []
    paired = _paired(baseline, before, candidate, after, notes, draws)
    metrics = (*_metric_changes(before, after, paired), *_carried(paired))
    bare = [change for change in metrics if change.interval is None]
    whole = [change.name for change in bare if not change.part]
    if whole:
        notes.append(f"no paired interval of {', '.join(whole)}")
    if len(whole) < len(bare):
        notes.append("no paired intervals of parts of the data (by height, by event)")
    return Comparison(
        protocol=before.task.upper(),
        dataset=before.dataset.name,
        baseline=_label(before, baseline, candidate),
        candidate=_label(after, candidate, baseline),
        differs=_differs(before, after),
        metrics=metrics,
        flips=paired.flips,
        drift=() if before.task == "widerface" else _drifts(before, after, notes),
        notes=tuple(notes),
    )


def load_scores(path: Path, result: Result) -> dict[str, Any]:
    """Read the scores beside a result, never unpickling anything.

    Raises
    ------
    evalkit.core.errors.InputError
        The file is missing or damaged.
    """
    file = path.parent / Path(result.scores_file or "").name
    if not file.is_file():
        raise InputError(
            f"Cannot read the scores of {path}: {file} is missing. A result is two files; copy "
            "this one from beside the other. Make the result again where it is lost."
        )
    try:
        with np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        raise InputError(
            f"Cannot read the scores {file} of {path}: {error}. Make the result again."
        ) from error


def _paired(
    baseline: Path,
    before: Result,
    candidate: Path,
    after: Result,
    notes: list[str],
    draws: Draws | None,
) -> Paired:
    method = _METHODS.get(before.task)
    absent = [
        str(path)
        for path, result in ((baseline, before), (candidate, after))
        if result.scores_file is None
    ]
    if method is None:
        return Paired({}, {}, (), ())
    if absent:
        notes.append(f"no intervals and no flips: {' and '.join(absent)} has no scores beside it")
        return Paired({}, {}, (), ())
    scores = load_scores(baseline, before), load_scores(candidate, after)
    return method(before, after, *scores, draws)


def _metric_changes(before: Result, after: Result, paired: Paired) -> list[MetricChange]:
    changes = []
    for metric in before.metrics:
        other = named(after, metric.name)
        if other is None:
            continue
        both = metric.value is not None and other.value is not None
        changes.append(
            MetricChange(
                name=metric.name,
                rule=metric.rule,
                baseline=metric.value,
                candidate=other.value,
                difference=(other.value or 0) - (metric.value or 0) if both else None,
                interval=paired.intervals.get(metric.name),
                p_value=paired.p_values.get(metric.name),
                flags=tuple(sorted({*metric.flags, *other.flags})),
                kind=metric.kind,
                part=metric.part,
            )
        )
    return changes


def _carried(paired: Paired) -> list[MetricChange]:
    return [
        MetricChange(
            name=change.name,
            rule="baseline_threshold",
            baseline=change.baseline,
            candidate=change.candidate,
            difference=change.candidate - change.baseline,
            interval=change.interval,
            flags=change.flags,
        )
        for change in paired.carried
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


def _drifts(before: Result, after: Result, notes: list[str]) -> tuple[DriftSummary, ...]:
    try:
        first, second = stores_of(before, after)
        fields = [
            name for name in ("embeddings", "flipped") if name in first.fields & second.fields
        ]
        return tuple(
            _summary(stored_drift(first, second, field), field, first.names()) for field in fields
        )
    except (InputError, CannotJudgeError) as error:
        notes.append(f"embedding drift was not measured: {str(error).rstrip('.')}")
        return ()


def _summary(found: Drift, field: str, names: list[str]) -> DriftSummary:
    usable = np.flatnonzero(np.isfinite(found.cosines))
    cosines = found.cosines[usable]
    worst = usable[np.argsort(cosines, kind="stable")[:WORST]]
    some = len(cosines) > 0
    infinite = not np.isfinite(found.largest_relative)
    return DriftSummary(
        view=field,
        samples=len(cosines),
        cosine_mean=float(cosines.mean()) if some else None,
        cosine_p1=float(np.percentile(cosines, 1)) if some else None,
        cosine_min=float(cosines.min()) if some else None,
        largest_absolute=found.largest_absolute,
        largest_relative=None if infinite else found.largest_relative,
        atol_needed=found.atol_needed,
        rtol=RTOL,
        lost=found.lost,
        gained=found.gained,
        worst=tuple(
            WorstSample(name=names[row], cosine=float(found.cosines[row])) for row in worst
        ),
    )
