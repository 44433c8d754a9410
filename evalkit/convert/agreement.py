"""How close a converted model is to its fp32 source, on images that did not calibrate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cosines to fp32, one for each image.

    Attributes
    ----------
    mean, p1, minimum : float
        p1 is the 1st percentile. An image whose outputs are not finite counts as 0.
    images : int
    """

    mean: float
    p1: float
    minimum: float
    images: int


def compare(reference: Sequence[NDArray[Any]], candidate: Sequence[NDArray[Any]]) -> Agreement:
    """Compare two models' outputs for the same images, in float64.

    Several outputs make one cosine for each image: each output is scaled to a mean square of 1 over
    all images, since boxes in pixels would outweigh scores. With one output it is the plain cosine.

    Raises
    ------
    evalkit.core.errors.InputError
        The shapes differ, or the reference has a value that is not finite.

    Examples
    --------
    >>> compare([np.float32([[3, 4], [1, 0]])], [np.float32([[6, 8], [1, 0]])])
    Agreement(mean=1.0, p1=1.0, minimum=1.0, images=2)
    """
    shapes = [[rows.shape for rows in side] for side in (reference, candidate)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"The converted model gives outputs of shapes {shapes[1]}, its source {shapes[0]}: "
            "they are not the same network. Give the source that it was made from."
        )
    cross = before = after = np.zeros(len(reference[0]))
    for rows, others in zip(reference, candidate, strict=True):
        a, b = rows.astype(np.float64), others.astype(np.float64)
        if not np.isfinite(a).all():
            raise InputError(
                "The fp32 model itself gives NaN or infinite values for an image of the "
                "comparison, so nothing can be compared. Check the model, --mean and --std."
            )
        scale = 1 / (float((a * a).mean()) or 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            cross = cross + scale * np.einsum("nd,nd->n", a, b)
            before = before + scale * np.einsum("nd,nd->n", a, a)
            after = after + scale * np.einsum("nd,nd->n", b, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = cross / np.sqrt(before * after)
    # Two zero rows agree; a zero or non-finite row and another one do not.
    cosines = np.where((before == 0) & (after == 0), 1.0, np.nan_to_num(cosines, nan=0.0))
    cosines = np.clip(cosines, -1, 1)
    return Agreement(
        mean=float(cosines.mean()),
        p1=float(np.percentile(cosines, 1)),
        minimum=float(cosines.min()),
        images=len(cosines),
    )
