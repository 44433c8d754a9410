"""Verification of image pairs, as reported on LFW and the sets of its family.

Numerics only: embeddings in, figures out. The rules are those of `evalkit.protocols.folds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from evalkit.protocols.folds import (
    Bools,
    Floats,
    Layout,
    Rule,
    TenFold,
    ValAtFar,
    assign_folds,
    checked_labels,
    ten_fold_accuracy,
    val_at_far,
)
from evalkit.protocols.roc import EqualErrorRate, OperatingPoint, auc, eer, tar_at_far

_CHUNK: Final = 512
"""Images that are copied to float64 at once: they fit a core's cache. Even, for the pairs."""


@dataclass(frozen=True, slots=True, eq=False)
class PairDistances:
    """Distances of pairs.

    Attributes
    ----------
    squared : ndarray of float64, shape (n_pairs,)
        Squared L2 distance of normalised embeddings, 0 to 4; infinite where a side failed.
    failed : ndarray of bool, shape (2 * n_pairs,)
        Images whose embedding is not finite, or zero, and so has no direction.
    xnorm : float
        Mean L2 norm of all embeddings, original and flipped, before normalising; embeddings
        that are not finite are left out.
    """

    squared: Floats
    failed: Bools
    xnorm: float

    @property
    def cosine(self) -> Floats:
        """Cosine similarity of each pair, minus infinity where a side failed."""
        return 1 - self.squared / 2


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """All figures of one set of pairs.

    Attributes
    ----------
    pairs, same, different : int
        How many pairs, and how many of each kind.
    flip : bool
        Whether embeddings of mirrored images were added.
    layout : {'contiguous', 'interleaved'}
        How pairs were laid into folds; see `assign_folds`.
    failures : tuple of int
        Images (pair i is 2i and 2i + 1) that failed to enrol; their pairs are never the same.
    accuracy : tuple of TenFold
        One for each rule.
    val : tuple of ValAtFar
    tar : tuple of OperatingPoint
        Over all pairs, by the rule ``at_most``; scores are cosines.
    auc : float
    eer : EqualErrorRate
    distances : PairDistances
    warnings : tuple of str
    """

    pairs: int
    same: int
    different: int
    flip: bool
    layout: Layout
    failures: tuple[int, ...]
    accuracy: tuple[TenFold, ...]
    val: tuple[ValAtFar, ...]
    tar: tuple[OperatingPoint, ...]
    auc: float
    eer: EqualErrorRate
    distances: PairDistances
    warnings: tuple[str, ...]


def evaluate(
    embeddings: ArrayLike,
    issame: ArrayLike,
    flipped: ArrayLike | None = None,
    *,
    rules: Sequence[Rule] = ("insightface", "exact"),
    fars: Sequence[float] = (1e-3,),
    layout: Layout | Literal["auto"] = "auto",
) -> Verification:
    """Return every figure of a set of pairs.

    Parameters
    ----------
    embeddings : array_like of shape (2 * n_pairs, dimensions)
        Pair i is rows 2i and 2i + 1; not normalised. Computed on in float64.
    issame : array_like of shape (n_pairs,)
        Whether a pair shows one person.
    flipped : array_like of the shape of `embeddings`, optional
        Embeddings of the mirrored images, to be added. The rule ``facexzoo`` leaves them out.
    rules : sequence of {'insightface', 'exact', 'facexzoo'}
    fars : sequence of float
        False accept rates for VAL@FAR and TAR@FAR, above 0 and at most 1.
    layout : {'auto', 'contiguous', 'interleaved'}
        See `assign_folds`.

    Raises
    ------
    ValueError
        The shapes do not fit, there are fewer than ten pairs, or only one kind of pair.
    """
    same = checked_labels(issame)
    distances = pair_distances(embeddings, flipped)
    if distances.squared.size != same.size:
        raise ValueError(
            f"There are embeddings of {distances.squared.size} pairs, but labels of {same.size} "
            "pairs."
        )
    fold, used, warnings = assign_folds(same, layout)
    accuracy = []
    for rule in rules:
        plain = rule == "facexzoo" and flipped is not None
        measured = pair_distances(embeddings) if plain else distances
        accuracy.append(ten_fold_accuracy(measured.squared, same, fold, rule))
    scores = distances.cosine[same], distances.cosine[~same]
    n_same = int(np.count_nonzero(same))
    return Verification(
        pairs=same.size,
        same=n_same,
        different=same.size - n_same,
        flip=flipped is not None,
        layout=used,
        failures=tuple(np.flatnonzero(distances.failed).tolist()),
        accuracy=tuple(accuracy),
        val=tuple(val_at_far(distances.squared, same, fold, far) for far in fars),
        tar=tar_at_far(*scores, fars),
        auc=auc(*scores),
        eer=eer(*scores),
        distances=distances,
        warnings=warnings,
    )


def pair_distances(embeddings: ArrayLike, flipped: ArrayLike | None = None) -> PairDistances:
    """Return the squared L2 distance of each pair, after flip fusion and normalising.

    Parameters
    ----------
    embeddings, flipped : array_like of shape (2 * n_pairs, dimensions)
        As for `evaluate`. The fused embedding is their sum, normalised.

    Raises
    ------
    ValueError
        The shapes do not fit.

    Examples
    --------
    >>> pair_distances([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [5.0, 5.0]]).squared.round(6)
    array([2., 0.])
    """
    copies = [np.asarray(array) for array in (embeddings, flipped) if array is not None]
    shape = copies[0].shape
    if len(shape) != 2 or shape[0] % 2 or not shape[0] or not shape[1]:
        raise ValueError(f"Embeddings must have shape (2 * pairs, dimensions), not {shape}.")
    if copies[-1].shape != shape:
        raise ValueError(f"Flipped embeddings have shape {copies[-1].shape}, original {shape}.")
    squared = np.empty(shape[0] // 2)
    failed = np.empty(shape[0], bool)
    norms = np.empty((len(copies), shape[0]))
    for start in range(0, shape[0], _CHUNK):
        rows = slice(start, start + _CHUNK)
        parts = [np.ascontiguousarray(array[rows], np.float64) for array in copies]
        with np.errstate(over="ignore", invalid="ignore"):
            norms[:, rows] = [np.sqrt(np.vecdot(part, part)) for part in parts]
            fused = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        unit, failed[rows] = _normalised(fused)
        squared[start // 2 : (start + _CHUNK) // 2] = np.sum(np.square(unit[::2] - unit[1::2]), 1)
    squared[failed[::2] | failed[1::2]] = np.inf
    finite = norms[np.isfinite(norms)]
    # A running sum, because the public script's figure stems from one.
    xnorm = float(np.cumsum(finite)[-1] / finite.size) if finite.size else float("nan")
    return PairDistances(squared, failed, xnorm)


def _normalised(fused: Floats) -> tuple[Floats, Bools]:
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", fused, fused))
    failed = ~np.isfinite(norms) | (norms == 0)
    norms[failed] = 1
    unit = fused / norms[:, None]
    unit[failed] = 0
    return unit, failed
