"""Finding outputs that lie under another image's name.

A face and its mirror image have nearly the same embedding. If the two outputs of an image disagree,
but each agrees with one of another image, the files of the two images were exchanged.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AGREE = 0.5
"""Cosine, about the mean, that two outputs of one face reach."""
DOUBTFUL = 0.7
"""Cosine of a face and its mirror image below which they are compared with others."""
CLEAR = 0.2
"""Difference of two cosines that is not chance."""
MOST = 20_000
"""Doubtful images that are compared with one another."""
_FIRST = 512
_BLOCK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """The embeddings of an image and of its mirror image, shape (dim,) each."""

    name: str
    plain: NDArray[np.float32]
    flipped: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What the mirror images tell.

    Attributes
    ----------
    images, doubtful : int
        How many there are, and in how many the two halves differ.
    exchanged : tuple of (str, str)
        Images that have each other's output.
    """

    images: int
    doubtful: int
    exchanged: tuple[tuple[str, str], ...]


def disagreement(pairs: Iterable[Halves]) -> Disagreement:
    """Compare the outputs of images with those of their mirror images.

    Cosines are taken about the mean of the first images, since the embeddings of some models share
    a large common part.

    Parameters
    ----------
    pairs : iterable of Halves
        Read once. The first `MOST` doubtful images are compared with one another. Outputs that
        are not finite are left out: the evaluation counts them as failures.
    """
    stream = (pair for pair in pairs if np.isfinite([pair.plain, pair.flipped]).all())
    first = list(itertools.islice(stream, _FIRST))
    if not first:
        return Disagreement(0, 0, ())
    centre = np.mean([half for pair in first for half in (pair.plain, pair.flipped)], axis=0)
    kept: list[Halves] = []
    images = doubtful = 0
    for pair in itertools.chain(first, stream):
        images += 1
        centred = Halves(pair.name, pair.plain - centre, pair.flipped - centre)
        if _cosine(centred.plain, centred.flipped) < DOUBTFUL:
            doubtful += 1
            if len(kept) < MOST:
                kept.append(centred)
    return Disagreement(images, doubtful, _exchanged(kept))


def _exchanged(kept: list[Halves]) -> tuple[tuple[str, str], ...]:
    if len(kept) < 2:
        return ()
    plain = unit(np.stack([pair.plain for pair in kept]))
    flipped = unit(np.stack([pair.flipped for pair in kept]))
    own = np.einsum("ij,ij->i", plain, flipped)
    pairs: list[tuple[str, str]] = []
    for first in range(0, len(kept), _BLOCK):
        rows = slice(first, first + _BLOCK)
        forth, back = plain[rows] @ flipped.T, flipped[rows] @ plain.T
        least = np.maximum(AGREE, np.maximum(own[rows, None], own) + CLEAR)
        # Images of one person, or of poor quality, agree with each other too.
        mutual = (np.minimum(forth, back) >= least) & (forth - plain[rows] @ plain.T >= CLEAR)
        for row, other in np.argwhere(mutual).tolist():
            if first + row < other:
                pairs.append((kept[first + row].name, kept[other].name))
    return tuple(pairs)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return rows of length 1, shape (n, dim); what is not finite counts as 0."""
    wide = np.nan_to_num(rows.astype(np.float64), posinf=0, neginf=0)
    lengths: NDArray[np.float64] = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.maximum(lengths, 1e-30)


def _cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    one, other = unit(np.stack([first, second]))
    return float(one @ other)
