"""Evidence of WIDER FACE: counts of each image, whose images are drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evalkit.core.results import Result
from evalkit.stats.evidence import Array, damaged, foreign
from evalkit.stats.matches import ImageCounts, Matches, weighted_ap
from evalkit.tasks.widerface.scenes import Scene, saved_scenes

_ROUNDING = 1e-9


class SceneMatches(Matches):
    """Matches, and the scenes of the worst images for pictures.

    Parameters
    ----------
    counts : ImageCounts
    arrays : mapping of str to ndarray
        What lies beside the result.
    """

    def __init__(self, counts: ImageCounts, arrays: Mapping[str, Array]) -> None:
        super().__init__(counts)
        self._arrays = arrays

    def scenes(self) -> tuple[str, list[Scene]]:
        """Return a subset and its scenes: see `saved_scenes`."""
        return saved_scenes(self._arrays)


def read(arrays: Mapping[str, Array], result: Result) -> dict[str, SceneMatches]:
    """Make evidence of the counts beside a result, once they are seen to give its AP.

    Raises
    ------
    evalkit.core.errors.InputError
        The counts are damaged, or those of another result.
    """
    try:
        counts = ImageCounts.from_arrays(arrays)
    except ValueError as error:
        raise damaged(error) from error
    aps = weighted_ap(counts, np.ones((1, counts.images)))[:, 0]
    known = dict(zip(counts.subsets, aps.tolist(), strict=True))
    for metric in result.metrics:
        if metric.figure == "ap" and not metric.part:
            value = np.nan if metric.value is None else metric.value
            ap = known.pop(metric.subset, None)
            if ap is None or not np.isclose(value, ap, 0, _ROUNDING, equal_nan=True):
                raise foreign(metric)
    return {"": SceneMatches(counts, arrays)}
