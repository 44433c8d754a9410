"""The figures of a release: TAR at each FAR, and identification."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.core.results import Interval, Metric
from evalkit.protocols.identification import GalleryResult, Identification
from evalkit.protocols.roc import OperatingPoint
from evalkit.tasks.figures import TOO_FEW_FALSE_ACCEPTS, tar_metric

_HEADLINES = (1e-4, 1e-3, 1e-2)


def tar_metrics(
    points: Sequence[OperatingPoint], intervals: Sequence[Interval | None]
) -> list[Metric]:
    """Return TAR at each point; the headline is one that is usually published and not too few."""
    first = _headline(points)
    return [
        tar_metric(point, interval, headline=point is first)
        for point, interval in zip(points, intervals, strict=True)
    ]


def _headline(points: Sequence[OperatingPoint]) -> OperatingPoint:
    """Choose the point to look at first: one that is usually published, with enough accepts."""
    known = [point for target in _HEADLINES for point in points if point.target == target]
    settled = [point for point in known if not point.too_few]
    return (settled or known or list(points))[0]


def identification_metrics(found: Identification) -> list[Metric]:
    """Return TPIR at each FPIR, over all galleries and of each, and the ranks."""
    metrics = []
    for place, (target, tpir) in enumerate(zip(found.targets, found.tpir, strict=True)):
        flags = [result.points[place].too_few for result in found.galleries]
        metrics.append(
            Metric(
                name=f"tpir@fpir={target:g}",
                figure="tpir",
                value=tpir,
                rule=found.rule,
                at={"target": target},
                flags=(TOO_FEW_FALSE_ACCEPTS,) if any(flags) else (),
            )
        )
        metrics += [_gallery_metric(result, place, found.rule) for result in found.galleries]
    metrics += [
        Metric(
            name=f"rank-{rank.rank}",
            figure="rank",
            value=rank.rate,
            rule=found.rule,
            counts={"hits": rank.hits, "mated": rank.mated},
            share=("hits", "mated"),
        )
        for rank in found.ranks
    ]
    return metrics


def _gallery_metric(result: GalleryResult, place: int, rule: str) -> Metric:
    point = result.points[place]
    return Metric(
        name=f"tpir@fpir={point.target:g}/{result.name}",
        figure="tpir",
        value=point.tpir,
        rule=rule,
        counts={
            "true_positives": point.true_positives,
            "mated": point.mated,
            "false_positives": point.false_positives,
            "searches": point.searches,
            "gallery": result.templates,
        },
        share=("true_positives", "mated"),
        at={"target": point.target, "achieved": point.fpir, "similarity": point.threshold},
        subset=result.name,
        flags=(TOO_FEW_FALSE_ACCEPTS,) if point.too_few else (),
    )
