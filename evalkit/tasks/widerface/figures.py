"""The figures of a detector: AP of each subset, and of its faces by height and by event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalkit.core.results import Interval, Metric
from evalkit.stats.matches import ImageBootstrap, ImageCounts
from evalkit.stats.subjects import percentile_interval
from evalkit.widerface_eval import Evaluation, Slice, by_event, by_height

FEW_FACES = 30
"""A figure over fewer faces is too coarse to judge a model by: one face is over 3 points."""


def intervals_of(counts: ImageCounts) -> dict[str, Interval | None]:
    """Return the interval of each subset's AP over images."""
    bootstrap = ImageBootstrap(counts.images)
    intervals = map(percentile_interval, bootstrap.ap(counts))
    return {
        subset: None
        if bounds is None
        else Interval(low=bounds.low, high=bounds.high, level=bounds.level, method=bootstrap.method)
        for subset, bounds in zip(counts.subsets, intervals, strict=True)
    }


def metrics_of(
    evaluation: Evaluation, intervals: Mapping[str, Interval | None]
) -> tuple[Metric, ...]:
    """Return all figures of an evaluation; the headline is the AP of the hard faces."""
    metrics = [_ap_metric(evaluation, *entry) for entry in intervals.items()]
    for part in by_height(evaluation):
        metrics += _slice_metrics(part, "height", evaluation)
    for part in by_event(evaluation):
        metrics += _slice_metrics(part, "event", evaluation)
    return tuple(metrics)


def _ap_metric(evaluation: Evaluation, subset: str, interval: Interval | None) -> Metric:
    summary = evaluation.curves[subset].summary()
    ap = summary.pop("ap")
    recall = summary.pop("recall")
    return Metric(
        name=f"ap/{subset}",
        figure="ap",
        kind="area",
        value=ap,
        rule=evaluation.settings.rule,
        interval=interval,
        counts=summary,
        at={"recall": recall},
        subset=subset,
        headline=subset == "hard",
        flags=_flags(summary["faces"]),
    )


def _slice_metrics(part: Slice, kind: str, evaluation: Evaluation) -> Sequence[Metric]:
    summary = part.curve.summary()
    values = {"ap": summary.pop("ap"), "recall": summary.pop("recall")}
    if values["ap"] is None:
        return []
    return [
        Metric(
            name=f"{figure}/{part.subset}/{kind}={part.name}",
            figure=figure,
            kind="area" if figure == "ap" else "rate",
            value=value,
            rule=evaluation.settings.rule,
            counts=summary,
            subset=part.subset,
            part={kind: part.name},
            flags=_flags(summary["faces"]),
        )
        for figure, value in values.items()
    ]


def _flags(faces: int) -> tuple[str, ...]:
    if not faces:
        return ("no_face_kept",)
    return ("too_few_faces",) if faces < FEW_FACES else ()
