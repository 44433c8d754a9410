"""FNMR at FMR, EER, AUC and accuracy of pairs, with the evidence for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from evalkit.core.results import Interval, Metric
from evalkit.protocols.roc import OperatingPoint, auc, eer, tar_at_far
from evalkit.stats.comparisons import Comparisons, PairComparisons, SubjectComparisons
from evalkit.stats.evidence import Array, Bools, Floats
from evalkit.stats.subjects import LEVEL, SubjectBootstrap, percentile_interval
from evalkit.tasks.figures import (
    accept_counts,
    few_false_accepts,
    rate_name,
    subject_interval,
)
from evalkit.tasks.tables import interval, percent, ratio, threshold


class _Saved:
    """What both kinds of evidence share: the name of a pair, and what is saved of it."""

    similarity: Array
    genuine: Bools
    sides: Array | None = None

    def label(self, row: int) -> str:
        """See `Comparisons.label`."""
        return f"pair {row + 1}"

    def arrays(self) -> dict[str, Array]:
        """Return what is saved beside the result."""
        saved = {"similarity": self.similarity, "genuine": self.genuine}
        return saved if self.sides is None else {**saved, "sides": self.sides}


class NamedPairs(_Saved, SubjectComparisons):
    """Pairs whose subjects are named."""

    def arrays(self) -> dict[str, Array]:
        """See `_Saved.arrays`."""
        return {**super().arrays(), "subjects": self.pairs}


class NamelessPairs(_Saved, PairComparisons):
    """Pairs without names, taken as independent."""


def _numbers_sides(rows: Array, pairs: int) -> bool:
    if rows.shape != (pairs, 2) or rows.dtype.kind not in "iu":
        return False
    return not pairs or bool(0 <= rows.min() <= rows.max() < 2 * pairs)


def evidence_of(
    similarity: Array, genuine: Bools, codes: Array | None, sides: Array | None = None
) -> NamedPairs | NamelessPairs:
    """Return the evidence of pairs.

    Parameters
    ----------
    similarity : ndarray of float64, shape (pairs,)
    genuine : ndarray of bool, shape (pairs,)
    codes : ndarray of int, shape (pairs, 2), or None
        A number for each subject; subjects are drawn where they are known, pairs otherwise.
    sides : ndarray of int, shape (pairs, 2), optional
        The images of each pair, for pictures.

    Raises
    ------
    ValueError
        An array does not fit the others, or has another kind of numbers.
    """
    if similarity.dtype.kind != "f":
        raise ValueError(f"similarity has {similarity.dtype}; floats are expected")
    for name, rows in (("subjects", codes), ("sides", sides)):
        if rows is not None and not _numbers_sides(rows, len(genuine)):
            raise ValueError(f"{name} does not number both sides of {len(genuine)} pairs")
    evidence: NamedPairs | NamelessPairs
    if codes is None:
        evidence = NamelessPairs(similarity, genuine)
    else:
        everyone = np.arange(int(codes.max()) + 1)
        evidence = NamedPairs(similarity, genuine, codes, everyone, everyone)
    evidence.sides = sides
    return evidence


def codes_of(subjects: NDArray[np.str_] | None) -> NDArray[np.int64] | None:
    """Return a number for each subject of each pair; None where nobody is named."""
    if subjects is None:
        return None
    return np.unique(subjects, return_inverse=True)[1].reshape(-1, 2).astype(np.int64)


def similarity_of(plain: Array, mirrored: Array | None, sides: Array) -> Floats:
    """Return the cosine of each pair, NaN where a side has no usable embedding."""
    fused = np.asarray(plain, np.float64)
    if mirrored is not None:
        fused = fused + mirrored
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        units = fused / np.linalg.norm(fused, axis=1, keepdims=True)
    first, second = sides.T
    similarity: Floats = np.einsum("ij,ij->i", units[first], units[second])
    return similarity


def metrics_of(
    evidence: NamedPairs | NamelessPairs, targets: Sequence[float]
) -> tuple[Metric, ...]:
    """Return all figures with their intervals.

    Raises
    ------
    ValueError
        A class of pairs is empty.
    """
    scores = evidence.scores()
    points = tar_at_far(*scores, targets)
    settled = [point.target for point in points if not point.too_few] or [points[-1].target]
    equal = eer(*scores)
    metrics = (
        *(_fnmr(point, headline=point.target == settled[0]) for point in points),
        Metric(
            name="eer",
            figure="eer",
            direction="lower",
            value=equal.eer,
            rule="nearest_rates",
            at={"similarity": equal.threshold, "far": equal.far, "frr": equal.frr},
        ),
        Metric(name="auc", figure="auc", kind="area", value=auc(*scores), rule="mann_whitney"),
        _best_accuracy(evidence),
    )
    draws = evidence.draw() if isinstance(evidence, NamedPairs) else None
    return tuple(
        metric.model_copy(update={"interval": _interval(metric, evidence, draws)})
        for metric in metrics
    )


def _fnmr(point: OperatingPoint, *, headline: bool) -> Metric:
    return Metric(
        name=f"fnmr@fmr={rate_name(point.target)}",
        figure="fnmr",
        direction="lower",
        value=(point.genuine - point.true_accepts) / point.genuine,
        rule=point.rule,
        counts=accept_counts(
            point.true_accepts, point.genuine, point.false_accepts, point.impostors
        ),
        share=("true_accepts", "genuine"),
        at={"target": point.target, "achieved": point.far, "similarity": point.threshold},
        headline=headline,
        flags=few_false_accepts(point.target, point.impostors),
    )


def _best_accuracy(evidence: Comparisons) -> Metric:
    """Return the highest accuracy of any threshold: chosen on the pairs that it is judged by."""
    order = np.argsort(-evidence.similarity, kind="stable")
    scores = evidence.similarity[order]
    true = np.cumsum(evidence.genuine[order])
    impostors = np.count_nonzero(~evidence.genuine)
    correct = true + impostors - (np.arange(1, len(true) + 1) - true)
    last = np.append(scores[1:] != scores[:-1], True)
    correct[~last | ~np.isfinite(scores)] = -1
    place = int(np.argmax(correct))
    threshold, best = float(scores[place]), int(correct[place])
    if impostors > best:
        threshold, best = float(np.nextafter(scores[0], np.inf)), int(impostors)
    return Metric(
        name="accuracy/best_threshold",
        figure="accuracy",
        value=best / len(true),
        rule="best_threshold",
        counts={"correct": best, "pairs": len(true)},
        share=("correct", "pairs"),
        at={"similarity": threshold},
    )


def _interval(
    metric: Metric, evidence: NamedPairs | NamelessPairs, draws: SubjectBootstrap | None
) -> Interval | None:
    """Return an interval over subjects where they are named, else over pairs at the threshold."""
    if isinstance(evidence, NamedPairs):
        values = evidence.replicates(metric, draws) if draws is not None else None
        bounds = percentile_interval(values) if values is not None else None
        if bounds is None or draws is None or metric.value is None:
            return None
        subjects = len(evidence.weights(metric))
        return subject_interval(metric.value, bounds, draws.method, subjects)
    if metric.share is None:
        return None
    right, trials = (metric.counts[name] for name in metric.share)
    wrong = metric.direction == "lower"
    bounds = binomtest(trials - right if wrong else right, trials).proportion_ci(method="wilson")
    return Interval(
        low=bounds.low, high=bounds.high, level=LEVEL, method="wilson at the threshold, pair-level"
    )


def row_of(metric: Metric) -> tuple[str, ...]:
    """Return a figure's row of the table."""
    counts = metric.counts
    rejects = counts.get("genuine", 0) - counts.get("true_accepts", 0)
    return (
        metric.name,
        percent(metric.value),
        interval(metric),
        threshold(metric.at.get("similarity")),
        ratio(metric, "false_accepts", "impostors"),
        f"{rejects:,}/{counts['genuine']:,}" if "genuine" in counts else "",
        "few" if metric.too_few else "",
    )
