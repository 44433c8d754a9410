"""How far two models' embeddings of the same images lie apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RTOL = 1e-3
"""The relative tolerance beside which `Drift.atol_needed` stands."""


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """Differences of embeddings, image by image.

    Attributes
    ----------
    cosines : ndarray of float64, shape (n,)
        Between the two embeddings of each image; NaN where either is unusable.
    largest_absolute : float
        Of any element: the ``atol`` that `numpy.testing.assert_allclose` would have needed with
        ``rtol=0``.
    largest_relative : float
        Of any element, by the baseline's magnitude: the ``rtol`` needed with ``atol=0``. Infinite
        where an element was 0 and is not.
    atol_needed : float
        The ``atol`` needed beside ``rtol=1e-3``.
    lost, gained : int
        Images whose embedding was usable and is not; was not and is.
    """

    cosines: npt.NDArray[np.float64]
    largest_absolute: float
    largest_relative: float
    atol_needed: float
    lost: int
    gained: int


def drift(baseline: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> Drift:
    """Compare embeddings row by row, in float64.

    Parameters
    ----------
    baseline, candidate : ndarray of float, shape (n, dim)
        A row with an element that is not finite, or of zero length, is unusable.

    Raises
    ------
    ValueError
        The shapes differ.

    Examples
    --------
    >>> apart = drift(np.array([[3.0, 4.0]]), np.array([[3.0, 4.5]]))
    >>> round(float(apart.cosines[0]), 4), apart.largest_absolute, apart.largest_relative
    (0.9985, 0.5, 0.125)
    """
    before, after = (np.asarray(rows, np.float64) for rows in (baseline, candidate))
    if before.shape != after.shape or before.ndim != 2:
        raise ValueError(f"embeddings of shapes {before.shape} and {after.shape} do not match")
    usable_before, usable_after = _usable(before), _usable(after)
    both = usable_before & usable_after
    cosines = np.full(len(before), np.nan)
    before, after = before[both], after[both]
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines[both] = np.clip(np.einsum("nd,nd->n", before, after) / lengths, -1, 1)
    change, size = np.abs(after - before), np.abs(before)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(change > 0, change / size, 0.0)
    return Drift(
        cosines=cosines,
        largest_absolute=float(change.max(initial=0)),
        largest_relative=float(relative.max(initial=0)),
        atol_needed=float((change - RTOL * size).max(initial=0)),
        lost=int(np.count_nonzero(usable_before & ~usable_after)),
        gained=int(np.count_nonzero(usable_after & ~usable_before)),
    )


def joined(parts: list[Drift]) -> Drift:
    """Put the drifts of consecutive images together."""
    return Drift(
        cosines=np.concatenate([part.cosines for part in parts]),
        largest_absolute=max(part.largest_absolute for part in parts),
        largest_relative=max(part.largest_relative for part in parts),
        atol_needed=max(part.atol_needed for part in parts),
        lost=sum(part.lost for part in parts),
        gained=sum(part.gained for part in parts),
    )


def _usable(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    # The squared length is 0 for a zero row and not finite for a row with NaN or infinity.
    lengths = np.einsum("nd,nd->n", rows, rows)
    usable: npt.NDArray[np.bool_] = np.isfinite(lengths) & (lengths > 0)
    return usable
