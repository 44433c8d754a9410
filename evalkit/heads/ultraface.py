"""Ultra-Light-Fast-Generic face detectors: boxes decoded in the graph, normalised to 0..1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.heads import decoding
from evalkit.heads.detection import DetectionHead, Detections, Outputs
from evalkit.heads.sizing import Size


@dataclass(frozen=True, slots=True)
class UltraFace(DetectionHead):
    """The head ``ultraface``.

    Outputs are told apart by their columns: 2 scores (background, face; after the softmax) and
    4 of corners x1 y1 x2 y2 as fractions of the input's width and height.
    """

    name: ClassVar[str] = "ultraface"

    def decode(self, outputs: Outputs, size: Size, threshold: float) -> list[Detections]:
        """See `DetectionHead.decode`."""
        tables = [decoding.batched(value, 3) for value in outputs.values()]
        columns = [table.shape[-1] for table in tables if table.ndim == 3]
        if sorted(columns) != [2, 4] or len(tables) != 2 or not decoding.same_batch(tables):
            raise self.misfit(
                outputs, "scores of 2 columns and boxes of 4, one row for each anchor"
            )
        scores, corners = tables if columns[0] == 2 else tables[::-1]
        if scores.shape[1] != corners.shape[1]:
            raise self.misfit(outputs, "as many rows of scores as of boxes")
        height, width = size
        pixels = np.array((width, height, width, height), np.float32)
        images = []
        for face, boxes in zip(scores[:, :, 1], corners, strict=True):
            rows = np.flatnonzero(decoding.passes(face, threshold))
            images.append(Detections(boxes[rows] * pixels, face[rows]))
        return images
