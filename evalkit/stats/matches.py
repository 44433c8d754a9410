"""Evidence of detections matched with faces: average precision under draws of images.

The faces of one image succeed and fail together, so images are drawn with replacement [1]_, and a
draw weighs each image by how often it came. AP needs no more of an image than how many detections
and how many recalled faces join at each score step: the curve of a draw is the weighted sum of
these counts, and all draws together are one sparse matrix product.

The counts stay as they were made on the full set. WIDER FACE stretches the scores of a whole set to
0..1, and with them the steps; a draw that misses the image of the highest score is not stretched
anew. So the interval speaks of the images, given the detector's scale of scores.

References
----------
.. [1] B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from evalkit.core.results import Metric
from evalkit.stats.evidence import Evidence
from evalkit.widerface_eval import HIT, IGNORED, Evaluation

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]

REPLICATES = 2000
_BLOCK_CELLS = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class ImageCounts:
    """What each image adds to the curves of precision and recall.

    A cell is an image at a score step where it adds anything; cells are sorted by image.

    Attributes
    ----------
    subsets : tuple of str
    steps : int
        Of the curves.
    faces : ndarray of int, shape (subsets, images)
        Faces kept.
    offsets : ndarray of int, shape (images + 1,)
        The cells of image i are ``offsets[i]`` to ``offsets[i + 1]``.
    step : ndarray of int, shape (cells,)
    proposals : ndarray of int, shape (subsets, cells)
        Detections that count from this step on and are not ignored.
    recalled : ndarray of int, shape (subsets, cells)
        Faces that they recall.

    Raises
    ------
    ValueError
        The arrays do not fit together.
    """

    subsets: tuple[str, ...]
    steps: int
    faces: Ints
    offsets: Ints
    step: Ints
    proposals: Ints
    recalled: Ints

    def __post_init__(self) -> None:
        rows, cells = len(self.subsets), len(self.step)
        shapes = [array.shape for array in (self.faces, self.proposals, self.recalled)]
        if shapes != [(rows, self.images), (rows, cells), (rows, cells)]:
            raise ValueError(f"counts of shapes {shapes} do not fit {rows} subsets, {cells} cells")
        bounds = self.offsets.tolist()
        if bounds[:1] != [0] or bounds[-1] != cells or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"the offsets do not rise from 0 to {cells}")
        if cells and not 0 <= self.step.min() <= self.step.max() < self.steps:
            raise ValueError(f"a step is not among the {self.steps} of the curve")

    @property
    def images(self) -> int:
        """How many there are."""
        return max(len(self.offsets) - 1, 0)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Give all as arrays of the smallest types that hold them, for a file."""
        return {
            "subsets": np.array(self.subsets),
            "steps": np.array(self.steps),
            "faces": _small(self.faces),
            "cell_offsets": _small(self.offsets),
            "cell_step": _small(self.step),
            "cell_proposals": _small(self.proposals),
            "cell_recalled": _small(self.recalled),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> ImageCounts:
        """Read what `arrays` gave.

        Raises
        ------
        ValueError
            An array is missing, is not of whole numbers, or does not fit the others.
        """
        names = ("faces", "cell_offsets", "cell_step", "cell_proposals", "cell_recalled")
        for name in ("subsets", "steps", *names):
            if name not in arrays:
                raise ValueError(f"there is no array {name}")
            if name != "subsets" and arrays[name].dtype.kind not in "iu":
                raise ValueError(f"the array {name} is of {arrays[name].dtype}")
        # Signed, because differences are taken.
        parts = [arrays[name].astype(np.int64) for name in names]
        subsets = tuple(map(str, arrays["subsets"].tolist()))
        return ImageCounts(subsets, int(arrays["steps"]), *parts)


def image_counts(evaluation: Evaluation) -> ImageCounts:
    """Count an evaluation's detections and recalled faces by image and score step."""
    truth, steps = evaluation.ground_truth, evaluation.settings.steps
    counting = evaluation.levels < steps
    outcome = evaluation.matches.outcome[:, counting]
    images = evaluation.detections.image_of[counting]
    keys = images * steps + evaluation.levels[counting]
    used = ~(outcome == IGNORED).all(axis=0)
    cells, cell_of = np.unique(keys[used], return_inverse=True)

    def counted(chosen: npt.NDArray[np.bool_]) -> Ints:
        rows = [np.bincount(cell_of[row[used]], minlength=len(cells)) for row in chosen]
        return np.array(rows).reshape(len(chosen), len(cells))

    return ImageCounts(
        subsets=tuple(truth.subsets),
        steps=steps,
        faces=np.array(
            [
                np.bincount(truth.image_of[kept], minlength=len(truth.images))
                for kept in truth.subsets.values()
            ]
        ),
        offsets=np.searchsorted(cells, np.arange(len(truth.images) + 1) * steps),
        step=cells % steps,
        proposals=counted(outcome != IGNORED),
        recalled=counted(outcome == HIT),
    )


class ImageBootstrap:
    """One set of draws of images, to be applied to any number of models.

    Parameters
    ----------
    images : int
        How many there are; each draw takes as many.
    replicates : int
    seed : int
        The draws are multinomial, from `numpy`'s PCG64.

    Raises
    ------
    ValueError
        There is no image or no replicate.
    """

    def __init__(self, images: int, *, replicates: int = REPLICATES, seed: int = 0) -> None:
        if images < 1 or replicates < 1:
            raise ValueError(f"{replicates} draws of {images} images give no interval")
        self.seed = seed
        rng = np.random.default_rng(seed)
        self.weights = rng.multinomial(images, np.full(images, 1 / images), replicates)

    @property
    def method(self) -> str:
        """How intervals from these draws are made, for results."""
        return f"image bootstrap, {len(self.weights)} draws, seed {self.seed}, percentile"

    def ap(self, counts: ImageCounts) -> Floats:
        """Return the AP of each subset in every draw.

        Returns
        -------
        ndarray of float64, shape (subsets, replicates)
            NaN in a draw without a kept face.

        Raises
        ------
        ValueError
            The counts are of another number of images.
        """
        return weighted_ap(counts, self.weights)


def weighted_ap(counts: ImageCounts, weights: npt.NDArray[Any]) -> Floats:
    """Return the AP of each subset where the images have weights.

    Parameters
    ----------
    counts : ImageCounts
    weights : ndarray of shape (replicates, images)
        How often each image counts.

    Returns
    -------
    ndarray of float64, shape (subsets, replicates)
        NaN where no face is kept.

    Raises
    ------
    ValueError
        The weights are of another number of images.
    """
    if weights.ndim != 2 or weights.shape[1] != counts.images:
        raise ValueError(f"weights of shape {weights.shape} do not fit {counts.images} images")
    table = _table(counts)
    areas = np.empty((len(counts.subsets), len(weights)))
    size = max(1, _BLOCK_CELLS // max(table.shape[0], 1))
    for start in range(0, len(weights), size):
        block = np.ascontiguousarray(weights[start : start + size].T, np.float64)
        curves = (table @ block).reshape(2, len(counts.subsets), counts.steps, -1)
        np.cumsum(curves, axis=2, out=curves)
        areas[:, start : start + size] = _areas(curves[0], curves[1], counts.faces @ block)
    return areas


class Matches(Evidence):
    """Detections of one run, matched with faces; images are drawn.

    Parameters
    ----------
    counts : ImageCounts
    """

    unit = "image"

    def __init__(self, counts: ImageCounts) -> None:
        self.counts = counts
        self._under: tuple[ImageBootstrap, Floats] | None = None

    def weights(self, metric: Metric) -> Ints:
        """See `Evidence.weights`: kept faces of each image."""
        faces = self.counts.faces[self.counts.subsets.index(metric.subset)]
        weights: Ints = faces[faces > 0]
        return weights

    def unpaired(self, other: Matches) -> str:
        """See `Evidence.unpaired`."""
        one, two = self.counts, other.counts
        if (one.subsets, one.steps) != (two.subsets, two.steps):
            return "they have different subsets or score steps"
        same = np.array_equal(one.faces, two.faces)
        return "" if same else "they are of different images or keep different faces"

    def draw(self, replicates: int | None = None, seed: int = 0) -> ImageBootstrap:
        """See `Evidence.draw`."""
        return ImageBootstrap(self.counts.images, replicates=replicates or REPLICATES, seed=seed)

    def once(self) -> ImageBootstrap:
        """See `Evidence.once`."""
        draws = self.draw(1)
        draws.weights = np.ones_like(draws.weights)
        return draws

    def replicates(self, metric: Metric, draws: ImageBootstrap) -> Floats | None:
        """See `Evidence.replicates`: AP of a subset; all are remembered for the last draws."""
        if metric.figure != "ap" or metric.part or metric.subset not in self.counts.subsets:
            return None
        if self._under is None or self._under[0] is not draws:
            self._under = draws, draws.ap(self.counts)
        row: Floats = self._under[1][self.counts.subsets.index(metric.subset)]
        return row


def _table(counts: ImageCounts) -> Any:
    """Put the counts into a sparse matrix: proposals, then recalled, by subset and step."""
    parts = np.concatenate([counts.proposals, counts.recalled])
    image = np.repeat(np.arange(counts.images), np.diff(counts.offsets))
    part, cell = np.nonzero(parts)
    row = part * counts.steps + counts.step[cell]
    shape = (len(parts) * counts.steps, counts.images)
    values = parts[part, cell].astype(np.float64)
    return csc_array((values, (row, image[cell])), shape=shape).tocsr()


def _areas(proposals: Floats, recalled: Floats, faces: Floats) -> Floats:
    """Return the areas under many curves, as `evalkit.widerface_eval.average_precision` does.

    Parameters
    ----------
    proposals, recalled : ndarray of shape (subsets, steps, replicates)
    faces : ndarray of shape (subsets, replicates)
    """
    gained = np.diff(recalled, axis=1, prepend=0.0)
    precision = np.divide(recalled, proposals, out=np.zeros_like(recalled), where=proposals > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    areas: Floats = np.full(faces.shape, np.nan)
    np.divide((gained * envelope).sum(axis=1), faces, out=areas, where=faces > 0)
    return areas


def _small(values: Ints) -> Ints:
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))
