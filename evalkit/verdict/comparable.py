"""Whether two results may be set side by side: same data, same rules, same number of samples."""

from __future__ import annotations

from dataclasses import dataclass

from evalkit.core.errors import EvalkitError
from evalkit.core.option import options_of
from evalkit.core.results import OUTCOMES, READY_MADE, DatasetInfo, Metric, Result
from evalkit.tasks import settings_of


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why two results cannot be compared.

    Attributes
    ----------
    what : str
        ``protocol``, ``data``, ``rules`` or ``sample counts``.
    message : str
        What differs, with both values.
    """

    what: str
    message: str


def mismatches(baseline: Result, candidate: Result) -> tuple[Mismatch, ...]:
    """Return what keeps two results from being compared; empty where nothing does."""
    other = _differ("protocol", "the protocol", baseline.task, candidate.task)
    if other:
        return tuple(other)  # everything else differs too, and explains nothing
    differences = [
        *_different_data(baseline.dataset, candidate.dataset),
        *_different_settings(baseline, candidate),
    ]
    before, after = baseline.dataset.counts, candidate.dataset.counts
    for name in sorted({*before, *after}):
        differences += _differ(
            "sample counts", f"the number of {name}", before.get(name), after.get(name)
        )
    for metric in baseline.metrics:
        same = metric_named(candidate, metric.name)
        if same is not None:
            differences += _different_metric(metric, same)
    return tuple(differences)


def metric_named(result: Result, name: str) -> Metric | None:
    """Return the metric of a name, or None."""
    return next((metric for metric in result.metrics if metric.name == name), None)


def run_label(result: Result) -> str:
    """Return model, runtime and precision in a few words."""
    ran = result.ran
    if ran.backend == READY_MADE:
        return f"{result.model.name}, {READY_MADE}"
    return f"{result.model.name}, {ran.backend} {ran.version}, {ran.precision_ran}"


def _different_data(baseline: DatasetInfo, candidate: DatasetInfo) -> list[Mismatch]:
    """Compare the data's hashes; beside ready-made input, for which no image was read, the rest."""
    images = baseline.content_sha256, candidate.content_sha256
    annotations = baseline.annotations_sha256, candidate.annotations_sha256
    if None in images and None not in annotations:
        return _differ("data", "the hash of the annotations", *annotations)
    differences = _differ("data", "the data's hash", baseline.sha256, candidate.sha256)
    if None not in images:
        differences += _differ("data", "the hash of the images", *images)
    return differences


def _different_settings(baseline: Result, candidate: Result) -> list[Mismatch]:
    before, after = baseline.settings, candidate.settings
    differences = []
    for name in sorted({*before, *after} - _choices(baseline.task)):
        # A result without 1:N has no rule of 1:N. Input that was made elsewhere does not say how it
        # was fused.
        known = all(
            result.settings.get(name) is not None or result.ran.backend != READY_MADE
            for result in (baseline, candidate)
        )
        if name in before and name in after and known:
            differences += _differ("rules", f"the setting {name}", before[name], after[name])
    return differences


def _choices(task: str) -> frozenset[str]:
    """Return a task's settings that choose which figures are computed, and move none.

    A task that is not installed has none: every setting is compared then.
    """
    try:
        options = options_of(settings_of(task))
    except EvalkitError:
        return frozenset()
    return frozenset(name for name, option in options.items() if option.chooses)


def _different_metric(baseline: Metric, candidate: Metric) -> list[Mismatch]:
    name = baseline.name
    differences = _differ("rules", f"the rule of {name}", baseline.rule, candidate.rule)
    for count in sorted({*baseline.counts, *candidate.counts} - OUTCOMES):
        before, after = baseline.counts.get(count), candidate.counts.get(count)
        differences += _differ("sample counts", f"the number of {count} of {name}", before, after)
    return differences


def _differ(what: str, which: str, before: object, after: object) -> list[Mismatch]:
    if before == after:
        return []
    return [Mismatch(what, f"{which} is {before} in the baseline and {after} in the candidate")]
