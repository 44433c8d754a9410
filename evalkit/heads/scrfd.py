"""SCRFD: distances from anchor points to a box's four sides, on each stride.

After Guo et al., "Sample and Computation Redistribution for Efficient Face Detection" (2021), in
the layout of its exported models: for each stride a table of scores, of distances and of landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.heads import decoding
from evalkit.heads.detection import Detections, Floats
from evalkit.heads.sizing import Size
from evalkit.heads.strides import StrideHead


@dataclass(frozen=True, slots=True)
class Scrfd(StrideHead):
    """The head ``scrfd``; see `StrideHead`.

    A stride has 1 column of scores (after the sigmoid), 4 of distances in strides, and 10 of
    landmarks in strides (optional).

    Attributes
    ----------
    strides : tuple of int
    anchors : int
        At each place; they share its point, which is the cell's top left corner.
    """

    name: ClassVar[str] = "scrfd"
    counts = ([1, 1, 0], [1, 1, 1])
    columns = "1, 4 and perhaps 10"
    anchors: int = 2

    def anchors_of(self, size: Size, stride: int) -> Floats:
        """See `StrideHead.anchors_of`."""
        return decoding.grid(size, stride, self.anchors)

    def decode_level(
        self, tables: list[Floats], size: Size, stride: int, threshold: float
    ) -> Detections:
        """See `StrideHead.decode_level`."""
        scores = tables[0][:, 0]
        rows = np.flatnonzero(decoding.passes(scores, threshold))
        step = np.float32(stride)
        points = self.anchors_of(size, stride)[rows] * step
        distances = tables[1][rows] * step
        boxes = np.concatenate([points - distances[:, :2], points + distances[:, 2:]], axis=1)
        landmarks = None
        if len(tables) == 3:
            landmarks = points[:, None] + tables[2][rows].reshape(-1, 5, 2) * step
        return Detections(boxes, scores[rows], landmarks)
