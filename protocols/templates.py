"""The IJB 1:1 protocol: templates compared in pairs.

The score of a pair is the dot product of its templates' features. A pair with a template that
failed to enrol scores NaN, which lies below every threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from evalkit.protocols.fusion import Ints, Templates
from evalkit.protocols.roc import FAR_TARGETS, FarRule, OperatingPoint, tar_at_far
from evalkit.protocols.scores import Floats

Progress: TypeAlias = Callable[[int], None]

PAIR_BLOCK = 1 << 20
DENSE_BLOCK_CELLS = 1 << 25
GATHER_BLOCK_VALUES = 1 << 18
GATHER_COST = 40
"""Cells of a matrix product that cost as much as one gathered pair (measured: 37 to 48)."""


def verification_points(
    scores: npt.ArrayLike,
    genuine: npt.ArrayLike,
    targets: Sequence[float] = FAR_TARGETS,
    rule: FarRule = "at_most",
) -> tuple[OperatingPoint, ...]:
    """Return the TAR table of ready-made scores.

    Parameters
    ----------
    scores : array_like of shape (n_pairs,)
    genuine : array_like of shape (n_pairs,)
        Whether the pair shows one subject (bool, or 0 and 1).
    targets, rule
        As for `tar_at_far`.

    Returns
    -------
    tuple of OperatingPoint

    Raises
    ------
    ValueError
        If shapes differ, a label is neither 0 nor 1, or a class of pairs is empty.
    """
    scores, labels = np.asarray(scores), np.asarray(genuine)
    if scores.shape != labels.shape:
        raise ValueError(f"{scores.shape} scores do not fit {labels.shape} labels")
    mask = labels.astype(bool)
    if not np.array_equal(mask, labels):
        raise ValueError("labels of pairs must be 0 or 1")
    return tar_at_far(scores[mask], scores[~mask], targets, rule)


def score_pairs(templates: Templates, pairs: Ints, *, progress: Progress | None = None) -> Floats:
    """Return the dot product of the templates of each pair.

    Pairs that fill much of the table of first by second templates (in IJB-C a quarter of
    gallery x probe) are read from a blocked matrix product; scattered pairs are gathered in
    blocks. The estimated cost decides. Either needs less than 1 GB beside its result.

    Parameters
    ----------
    templates : Templates
    pairs : ndarray of int, shape (n_pairs, 2)
        Template ids.
    progress : callable, optional
        Called as the work goes on with the number of pairs done since the last call.

    Returns
    -------
    ndarray of float, shape (n_pairs,)
        NaN where a template failed to enrol.

    Raises
    ------
    ValueError
        If the shape is wrong, or a pair names an unknown template.
    """
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs must have the shape (n, 2), not {pairs.shape}")
    first, second = (templates.rows(pairs[:, side]) for side in (0, 1))
    cells = _distinct(first, templates.ids.size).size * _distinct(second, templates.ids.size).size
    score = _score_dense if cells <= GATHER_COST * first.size else _score_gathered
    return score(templates.features, first, second, progress or (lambda _: None))


def _distinct(rows: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    present = np.zeros(count, bool)
    present[rows] = True
    return np.flatnonzero(present)


def _score_dense(
    features: Floats, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], progress: Progress
) -> Floats:
    """Multiply blocks of first templates with all second ones, then pick the pairs."""
    scores = np.empty(first.size, features.dtype)
    galleries, probes = (_distinct(rows, len(features)) for rows in (first, second))
    place = np.zeros((2, len(features)), np.intp)
    place[0, galleries], place[1, probes] = np.arange(galleries.size), np.arange(probes.size)
    probe_features = features[probes]
    height = max(1, DENSE_BLOCK_CELLS // max(probes.size, 1))
    for start in range(0, galleries.size, height):
        product = features[galleries[start : start + height]] @ probe_features.T
        done = 0
        for at in range(0, first.size, PAIR_BLOCK):
            row = place[0][first[at : at + PAIR_BLOCK]] - start
            chosen = np.flatnonzero((row >= 0) & (row < height))
            column = place[1][second[at : at + PAIR_BLOCK][chosen]]
            scores[at + chosen] = product.ravel()[row[chosen] * probes.size + column]
            done += chosen.size
        progress(done)
    return scores


def _score_gathered(
    features: Floats, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], progress: Progress
) -> Floats:
    scores = np.empty(first.size, features.dtype)
    step = max(1, GATHER_BLOCK_VALUES // max(features.shape[1], 1))
    for start in range(0, first.size, step):
        part = slice(start, start + step)
        np.einsum("ij,ij->i", features[first[part]], features[second[part]], out=scores[part])
        progress(scores[part].size)
    return scores
