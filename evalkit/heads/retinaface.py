"""RetinaFace: prior boxes on three levels, refined by offsets.

After Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild" (2019), in the
layout of the PyTorch models: one table each of offsets, class scores and landmark offsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np

from evalkit.core.errors import InputError
from evalkit.heads import decoding
from evalkit.heads.detection import DetectionHead, Detections, Floats, Outputs
from evalkit.heads.sizing import Size


@lru_cache(maxsize=64)
def priors(
    size: Size, strides: tuple[int, ...], min_sizes: tuple[tuple[float, ...], ...]
) -> Floats:
    """Return the prior boxes of an input, by level, row and size.

    Returns
    -------
    ndarray of float32, shape (n, 3), read-only
        Centre x, centre y and side in pixels.
    """
    levels = []
    for stride, sides in zip(strides, min_sizes, strict=True):
        centers = (decoding.grid(size, stride, len(sides)) + np.float32(0.5)) * np.float32(stride)
        side = np.tile(np.array(sides, np.float32), len(centers) // len(sides))
        levels.append(np.column_stack([centers, side]))
    table: Floats = np.concatenate(levels)
    table.setflags(write=False)
    return table


@dataclass(frozen=True, slots=True)
class RetinaFace(DetectionHead):
    """The head ``retinaface``.

    Outputs are recognised by their columns, whatever their names and order: 4 offsets, 2 class
    scores (background, face), 10 landmark offsets (optional).

    Attributes
    ----------
    strides : tuple of int
        Of the levels.
    min_sizes : tuple of tuple of float
        Sides of the priors of each level, in pixels.
    variances : tuple of two floats
        Scale of the offsets of centres and of sizes.
    scores : str
        ``softmax``: probabilities; ``logits``: before the softmax; ``auto``: probabilities if
        all lie between 0 and 1 and each pair adds up to 1, within 0.05 for the sake of int8.
    """

    name: ClassVar[str] = "retinaface"
    strides: tuple[int, ...] = (8, 16, 32)
    min_sizes: tuple[tuple[float, ...], ...] = ((16, 32), (64, 128), (256, 512))
    variances: tuple[float, float] = (0.1, 0.2)
    scores: Literal["auto", "softmax", "logits"] = "auto"

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.min_sizes):
            raise InputError(
                f"The head 'retinaface' has {len(self.strides)} strides but min_sizes of "
                f"{len(self.min_sizes)} levels. Give one list of sizes for each stride."
            )

    def decode(self, outputs: Outputs, size: Size, threshold: float) -> list[Detections]:
        """See `DetectionHead.decode`."""
        anchors = priors(size, self.strides, self.min_sizes)
        offsets = decoding.tables_of(outputs, len(anchors), 4)
        scores = decoding.tables_of(outputs, len(anchors), 2)
        points = decoding.tables_of(outputs, len(anchors), 10)
        counts = len(offsets), len(scores), len(points)
        if counts not in {(1, 1, 0), (1, 1, 1)} or not decoding.same_batch(
            [*offsets, *scores, *points]
        ):
            raise self.misfit(
                outputs,
                f"{len(anchors)} rows of 4, 2 and perhaps 10 columns for an input of "
                f"{size[1]}x{size[0]} pixels",
            )
        tables = [offsets[0], self._probabilities(scores[0]), *points]
        return [
            self._decode_image([table[image] for table in tables], anchors, threshold)
            for image in range(len(offsets[0]))
        ]

    def _probabilities(self, scores: Floats) -> Floats:
        background, face = scores[:, :, 0], scores[:, :, 1]
        softmaxed = self.scores == "softmax"
        if self.scores == "auto":
            # Comparisons with NaN are false: a NaN stays, and is found later.
            lowest, highest = np.fmin.reduce(scores, axis=None), np.fmax.reduce(scores, axis=None)
            logits = lowest < -0.01 or highest > 1.01
            softmaxed = not (logits or (np.abs(background + face - 1) > 0.05).any())
        if softmaxed:
            return face
        probabilities: Floats = np.float32(1) / (1 + np.exp(background - face))
        return probabilities

    def _decode_image(self, tables: list[Floats], anchors: Floats, threshold: float) -> Detections:
        """Decode one image: tables of offsets, of probabilities, and perhaps of landmarks."""
        offsets, scores, *landmarks = tables
        rows = np.flatnonzero(decoding.passes(scores, threshold))
        center, side = anchors[rows, :2], anchors[rows, 2:]
        place, shape = np.float32(self.variances[0]), np.float32(self.variances[1])
        offsets = offsets[rows]
        boxes = decoding.from_center(
            center + offsets[:, :2] * place * side, side * np.exp(offsets[:, 2:] * shape)
        )
        points = None
        if landmarks:
            steps = landmarks[0][rows].reshape(-1, 5, 2) * place * side[:, None]
            points = center[:, None] + steps
        return Detections(boxes, scores[rows], points)
