"""Faces fused into templates.

A template is one or more faces of a subject, from one or more media (stills or videos). Its
feature is the mean over the faces of one medium, summed over its media, made unit length [1]_.
A face whose embedding is not finite or is zero is a failure to enrol, and its template does without
it. A template without any other face has a feature of NaN.

References
----------
.. [1] B. Maze et al., "IARPA Janus Benchmark - C: Face Dataset and Protocol", ICB 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from evalkit.protocols.scores import Floats

Ints: TypeAlias = npt.NDArray[np.integer[Any]]

FACE_BLOCK = 16_384
ID_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class FusionSwitches:
    """The three choices that every published IJB figure depends on.

    Attributes
    ----------
    keep_norm : bool
        Weight a face by the norm of its feature (InsightFace's ``use_norm_score=True``), instead
        of making it unit length first.
    detector_score : bool
        Weight a face by its detector score.
    flip : {'none', 'sum', 'concat'}
        What the mirrored face's embedding does: nothing, added, or appended.
    """

    keep_norm: bool = True
    detector_score: bool = True
    flip: Literal["none", "sum", "concat"] = "sum"


@dataclass(frozen=True, slots=True)
class Templates:
    """Fused templates.

    Attributes
    ----------
    ids : ndarray of int, shape (n_templates,)
        Distinct and ascending; not contiguous.
    features : ndarray of float, shape (n_templates, n_features)
        Unit length; NaN where the template failed to enrol.
    failed : ndarray of bool, shape (n_templates,)
        Templates without a usable face.
    failed_faces : ndarray of int, shape (n_failed_faces,)
        Rows of the faces that were left out.
    """

    ids: Ints
    features: Floats
    failed: npt.NDArray[np.bool_]
    failed_faces: npt.NDArray[np.intp]

    def rows(self, ids: Ints) -> npt.NDArray[np.intp]:
        """Return the row of each template id.

        Raises
        ------
        ValueError
            If no face belongs to one of the ids; the message names it.
        """
        ids = np.asarray(ids)
        rows = np.empty(ids.shape, np.intp)
        find = self._finder(ids.size)
        for start in range(0, ids.size, ID_BLOCK):
            part = slice(start, start + ID_BLOCK)
            queries = ids[part].astype(np.int64)
            rows[part] = find(queries)
            unknown = self.ids[rows[part]] != queries
            if unknown.any():
                raise ValueError(f"no face belongs to template {queries[unknown][0]}")
        return rows

    def _finder(self, count: int) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.intp]]:
        """Return a function from `count` ids to rows, which are arbitrary for unknown ids."""
        first, last = int(self.ids[0]), int(self.ids[-1])
        if last - first > 8 * (self.ids.size + count):
            return lambda ids: np.minimum(np.searchsorted(self.ids, ids), self.ids.size - 1)
        table = np.zeros(last - first + 1, np.intp)
        table[self.ids.astype(np.int64) - first] = np.arange(self.ids.size)
        return lambda ids: np.take(table, ids - first, mode="clip")


def fuse_templates(
    features: npt.ArrayLike,
    template_ids: Ints,
    media_ids: Ints,
    *,
    features_flip: npt.ArrayLike | None = None,
    detector_scores: npt.ArrayLike | None = None,
    switches: FusionSwitches | None = None,
) -> Templates:
    """Fuse the embeddings of faces into template features.

    The order is: flip, unit length (unless the norm is kept), detector score, mean within a
    medium of the template, sum over its media, unit length.

    Parameters
    ----------
    features : array_like of float, shape (n_faces, n_dims)
        Embeddings of the faces, not normalised. float64 is fused and scored in float64,
        everything else in float32.
    template_ids, media_ids : ndarray of int, shape (n_faces,)
        A medium counts within its template; the same media id in another template is another.
    features_flip : array_like of float, shape (n_faces, n_dims), optional
        Embeddings of the mirrored faces; needed unless ``switches.flip`` is ``none``.
    detector_scores : array_like of float, shape (n_faces,), optional
        Needed where ``switches.detector_score`` is on.
    switches : FusionSwitches, optional

    Returns
    -------
    Templates

    Raises
    ------
    ValueError
        If there are no faces, shapes differ, or something the switches need is missing.
    """
    switches = switches or FusionSwitches()
    faces = _Faces.checked(features, features_flip, switches.flip)
    template_ids, media_ids = np.asarray(template_ids), np.asarray(media_ids)
    for name, array in (("template ids", template_ids), ("media ids", media_ids)):
        _check_length(name, array, faces.count)
    weights = np.ones(faces.count)
    if switches.detector_score:
        weights = _detector_weights(detector_scores, faces.count)
    norms = faces.norms()
    usable = norms > 0
    if not switches.keep_norm:
        weights = np.divide(weights, norms, where=usable, out=np.zeros(faces.count))
    ids, rows = np.unique(template_ids, return_inverse=True)
    weights[usable] /= _faces_of_medium(rows[usable], media_ids[usable])
    features, failed = _unit_length(faces.weighted_sums(weights, rows, usable, ids.size))
    return Templates(ids, features, failed, np.flatnonzero(~usable))


@dataclass(frozen=True, slots=True)
class _Faces:
    """Embeddings and mirrored embeddings, read in blocks, so that memory holds no second copy."""

    features: Floats
    flipped: Floats | None
    flip: Literal["none", "sum", "concat"]
    dtype: np.dtype[Any]

    @classmethod
    def checked(
        cls,
        features: npt.ArrayLike,
        flipped: npt.ArrayLike | None,
        flip: Literal["none", "sum", "concat"],
    ) -> _Faces:
        features = np.asarray(features)
        if features.ndim != 2 or not features.size:
            raise ValueError(f"features must have the shape (faces, dims), not {features.shape}")
        dtype = np.dtype(np.float64 if features.dtype == np.float64 else np.float32)
        if flip == "none":
            return cls(features, None, flip, dtype)
        if flipped is None:
            raise ValueError(f"flip is {flip!r}, but there are no features of mirrored faces")
        flipped = np.asarray(flipped)
        if flipped.shape != features.shape:
            raise ValueError(f"features {features.shape} and mirrored {flipped.shape} differ")
        return cls(features, flipped, flip, dtype)

    @property
    def count(self) -> int:
        return len(self.features)

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        for start in range(0, self.count, FACE_BLOCK):
            part = slice(start, start + FACE_BLOCK)
            block = self.features[part].astype(self.dtype, copy=False)
            if self.flipped is not None:
                mirrored = self.flipped[part].astype(self.dtype, copy=False)
                # The norm finds a sum that overflows or cancels infinities: no warning here.
                with np.errstate(over="ignore", invalid="ignore"):
                    block = block + mirrored if self.flip == "sum" else np.hstack([block, mirrored])
            yield part, block

    def norms(self) -> npt.NDArray[np.float64]:
        """Return the L2 norm of each face's feature; 0 marks a failure to enrol."""
        norms = np.empty(self.count)
        for part, block in self.blocks():
            squares = np.einsum("ij,ij->i", block, block).astype(np.float64)
            # Squares of float32 overflow or vanish where the embedding itself does neither.
            doubtful = np.flatnonzero(~((squares > np.finfo(np.float32).tiny) & (squares < np.inf)))
            squares[doubtful] = np.square(block[doubtful].astype(np.float64)).sum(axis=1)
            norms[part] = np.sqrt(np.where(np.isfinite(squares), squares, 0))
        return norms

    def weighted_sums(
        self,
        weights: npt.NDArray[np.float64],
        rows: npt.NDArray[np.intp],
        usable: npt.NDArray[np.bool_],
        count: int,
    ) -> Floats:
        """Return the weighted sum of the usable faces of each of `count` templates."""
        sums = np.zeros((count, 0), self.dtype)
        for part, block in self.blocks():
            if not sums.size:
                sums = np.zeros((count, block.shape[1]), self.dtype)
            columns = np.flatnonzero(usable[part])
            touched, local = np.unique(rows[part][columns], return_inverse=True)
            entries = weights[part][columns].astype(self.dtype), (local, columns)
            matrix = csr_array(entries, shape=(touched.size, block.shape[0]))
            sums[touched] += matrix @ block
        return sums


def _check_length(name: str, array: npt.NDArray[Any], count: int) -> None:
    if array.shape != (count,):
        raise ValueError(f"{name} of shape {array.shape} do not fit {count:,} faces")


def _detector_weights(scores: npt.ArrayLike | None, count: int) -> npt.NDArray[np.float64]:
    if scores is None:
        raise ValueError("the detector score switch is on, but there are no detector scores")
    weights = np.array(scores, np.float64)
    _check_length("detector scores", weights, count)
    if not np.isfinite(weights).all():
        row = int(np.flatnonzero(~np.isfinite(weights))[0])
        raise ValueError(f"the detector score of face {row} (from 0) is not finite")
    return weights


def _faces_of_medium(rows: npt.NDArray[np.intp], media_ids: Ints) -> npt.NDArray[np.intp]:
    """Return for each face the number of faces of its medium in its template."""
    media, medium = np.unique(media_ids, return_inverse=True)
    key = rows.astype(np.int64) * max(media.size, 1) + medium
    _, group, sizes = np.unique(key, return_inverse=True, return_counts=True)
    faces: npt.NDArray[np.intp] = sizes[group]
    return faces


def _unit_length(sums: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Make rows unit length in place; those that cannot be become NaN."""
    norms = np.sqrt(np.einsum("ij,ij->i", sums, sums, dtype=np.float64))
    failed = ~((norms > 0) & (norms <= np.finfo(sums.dtype).max))
    norms[failed] = np.nan
    sums /= norms[:, None].astype(sums.dtype)
    return sums, failed
