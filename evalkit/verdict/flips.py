"""Decisions that differ between two runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from evalkit.core.records import Record
from evalkit.core.results import Metric
from evalkit.stats.evidence import Decisions

EXAMPLES = 10


class FlippedPair(Record):
    """A comparison that the two runs decide differently; scores are cosines of unit templates."""

    pair: str
    genuine: bool
    accepted: bool
    baseline: float | None
    candidate: float | None


class Flips(Record):
    """Decisions that differ between the two runs.

    Attributes
    ----------
    metric : str
        Where the thresholds come from.
    thresholds : str
        ``own``: each run's own; ``baseline``: the baseline's for both.
    genuine, impostors : int
        All comparisons.
    genuine_lost, genuine_gained : int
        Accepted before and refused now; the reverse.
    impostors_let_in, impostors_kept_out : int
        Refused before and accepted now; the reverse.
    examples : tuple of FlippedPair
        Those whose scores changed most.
    """

    metric: str
    thresholds: str
    genuine: int
    impostors: int
    genuine_lost: int
    genuine_gained: int
    impostors_let_in: int
    impostors_kept_out: int
    examples: tuple[FlippedPair, ...]


def flips(metric: Metric, thresholds: str, before: Decisions, after: Decisions) -> Flips:
    """Count the decisions that differ, and show those whose scores changed most."""
    old, new, genuine = before.accepted, after.accepted, before.genuine
    lost, won = old & ~new, new & ~old
    return Flips(
        metric=metric.name,
        thresholds=thresholds,
        genuine=int(np.count_nonzero(genuine)),
        impostors=int(np.count_nonzero(~genuine)),
        genuine_lost=int(np.count_nonzero(lost & genuine)),
        genuine_gained=int(np.count_nonzero(won & genuine)),
        impostors_let_in=int(np.count_nonzero(won & ~genuine)),
        impostors_kept_out=int(np.count_nonzero(lost & ~genuine)),
        examples=tuple(
            FlippedPair(
                pair=before.label(row),
                genuine=bool(genuine[row]),
                accepted=bool(new[row]),
                baseline=_number(before.similarity[row]),
                candidate=_number(after.similarity[row]),
            )
            for row in before.changed(after)[:EXAMPLES]
        ),
    )


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
