"""How far the embeddings of two runs lie apart, as a comparison tells it."""

from __future__ import annotations

import numpy as np

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.records import Record
from evalkit.core.results import Result, Text
from evalkit.run.drift import stored_drift, stores_of
from evalkit.stats.drift import RTOL, Drift

WORST = 10
_FIELDS = ("embeddings", "flipped")


class WorstSample(Record):
    """A sample whose embeddings differ much."""

    name: Text
    cosine: float


class DriftSummary(Record):
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


def drifts(before: Result, after: Result, notes: list[str]) -> tuple[DriftSummary, ...]:
    """Summarise the drift of each view; note why it was not measured."""
    try:
        first, second = stores_of(before, after)
        fields = [name for name in _FIELDS if name in first.fields & second.fields]
        return tuple(
            _summary(stored_drift(first, second, field), field, first.names()) for field in fields
        )
    except (InputError, CannotJudgeError) as error:
        notes.append(f"embedding drift was not measured: {str(error).rstrip('.')}")
        return ()


def _summary(apart: Drift, field: str, names: list[str]) -> DriftSummary:
    usable = np.flatnonzero(np.isfinite(apart.cosines))
    cosines = apart.cosines[usable]
    worst = usable[np.argsort(cosines, kind="stable")[:WORST]]
    some = len(cosines) > 0
    infinite = not np.isfinite(apart.largest_relative)
    return DriftSummary(
        view=field,
        samples=len(cosines),
        cosine_mean=float(cosines.mean()) if some else None,
        cosine_p1=float(np.percentile(cosines, 1)) if some else None,
        cosine_min=float(cosines.min()) if some else None,
        largest_absolute=apart.largest_absolute,
        largest_relative=None if infinite else apart.largest_relative,
        atol_needed=apart.atol_needed,
        rtol=RTOL,
        lost=apart.lost,
        gained=apart.gained,
        worst=tuple(
            WorstSample(name=names[row], cosine=float(apart.cosines[row])) for row in worst
        ),
    )
