"""The figures of a set of pairs, by every rule asked for, with mirrored images and without."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.core.results import Interval, Metric
from evalkit.protocols.folds import TenFold
from evalkit.protocols.verification import Verification
from evalkit.tasks.figures import accept_counts, few_false_accepts, rate_name, tar_metric


def metrics_of(runs: Sequence[Verification]) -> tuple[Metric, ...]:
    """Return the figures of each run; those of the second are named as without mirrored images.

    The headline is the accuracy by the rule that is usually published.
    """
    rules = [fold.rule for fold in runs[0].accuracy]
    headline = next((rule for rule in ("insightface", "exact") if rule in rules), rules[0])
    metrics = []
    for run in runs:
        mark = "" if run is runs[0] else "/no-flip"
        metrics += [
            metric.model_copy(
                update={
                    "name": metric.name + mark,
                    "view": "flip" if run.flip else "no flip",
                    "headline": not mark and metric.name == f"accuracy/{headline}",
                }
            )
            for metric in (*map(_accuracy, run.accuracy), *_rates(run), *_scalars(run))
        ]
    return tuple(metrics)


def _rates(run: Verification) -> list[Metric]:
    """Return VAL and TAR at each target."""
    val = [
        Metric(
            name=f"val@far={rate_name(point.target)}",
            figure="val",
            value=point.val,
            rule="insightface",
            counts=accept_counts(
                point.true_accepts, point.same, point.false_accepts, point.different
            ),
            share=("true_accepts", "genuine"),
            at={"target": point.target, "achieved": point.far, "std": point.std},
            flags=few_false_accepts(point.target, point.different),
            series={"fold_val": point.fold_val, "fold_distance": point.fold_threshold},
        )
        for point in run.val
    ]
    tar = [
        metric.model_copy(update={"at": {**metric.at, "distance": 2 - 2 * point.threshold}})
        for point in run.tar
        for metric in (tar_metric(point),)
    ]
    return [*val, *tar]


def _scalars(run: Verification) -> list[Metric]:
    """Return the figures that need no target."""
    equal = run.eer
    return [
        Metric(name="auc", figure="auc", kind="area", value=run.auc, rule="mann_whitney"),
        Metric(
            name="eer",
            figure="eer",
            direction="lower",
            value=equal.eer,
            rule="nearest_rates",
            at={"similarity": equal.threshold, "far": equal.far, "frr": equal.frr},
        ),
        Metric(
            name="xnorm",
            figure="xnorm",
            kind="norm",
            direction=None,
            unit="length of the embedding",
            value=run.distances.xnorm,
            rule="mean_norm",
        ),
    ]


def _accuracy(fold: TenFold) -> Metric:
    low, high = fold.interval
    return Metric(
        name=f"accuracy/{fold.rule}",
        figure="accuracy",
        value=fold.accuracy,
        rule=fold.rule,
        interval=Interval(low=low, high=high, level=0.95, method="wilson, pair-level"),
        counts={"correct": fold.correct, "pairs": fold.pairs},
        share=("correct", "pairs"),
        at={
            fold.spread_is: fold.spread,
            "similarity": fold.cosine_threshold,
            "distance": fold.threshold,
        },
        series={"fold_accuracy": fold.fold_accuracy, "fold_distance": fold.fold_threshold},
    )
