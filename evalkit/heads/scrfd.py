"""SCRFD: distances from anchor points to a box's four sides, on each stride.

After Guo et al., "Sample and Computation Redistribution for Efficient Face Detection" (2021), in
the layout of its exported models: a table each of scores, distances and landmarks a stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.heads.detection import (
    DetectionHead,
    Detections,
    Floats,
    Outputs,
    grid,
    joined,
    misfit,
    passes,
    same_batch,
    tables_of,
)
from evalkit.heads.sizing import Size


@dataclass(frozen=True, slots=True)
class Scrfd(DetectionHead):
    """The head ``scrfd``.

    Outputs are told apart by their shape, whatever their names and order: each stride has as
    many rows as anchors, with 1 column of scores (after the sigmoid), 4 of distances in strides,
    and 10 of landmarks in strides (may be missing).

    Attributes
    ----------
    strides : tuple of int
    anchors : int
        At each place; they share its point, which is the cell's top left corner.
    """

    name: ClassVar[str] = "scrfd"
    strides: tuple[int, ...] = (8, 16, 32)
    anchors: int = 2

    def decode(self, outputs: Outputs, size: Size, threshold: float) -> list[Detections]:
        """See `DetectionHead.decode`."""
        levels = [self._level(outputs, size, stride) for stride in self.strides]
        if not same_batch([table for level in levels for table in level]) or (
            len({len(level) for level in levels}) != 1
        ):
            raise misfit(self.name, outputs, "the same tables of one batch on every stride")
        return [
            joined(
                [
                    _decode_level(
                        [table[image] for table in level], size, stride, self.anchors, threshold
                    )
                    for level, stride in zip(levels, self.strides, strict=True)
                ]
            )
            for image in range(len(levels[0][0]))
        ]

    def _level(self, outputs: Outputs, size: Size, stride: int) -> list[Floats]:
        rows = len(grid(size, stride, self.anchors))
        found = [tables_of(outputs, rows, columns) for columns in (1, 4, 10)]
        if [len(tables) for tables in found] not in ([1, 1, 0], [1, 1, 1]):
            raise misfit(
                self.name,
                outputs,
                f"{rows} rows of 1, 4 and perhaps 10 columns on stride {stride} for an input of "
                f"{size[1]}x{size[0]} pixels",
            )
        return [table for tables in found for table in tables]


def _decode_level(
    tables: list[Floats], size: Size, stride: int, anchors: int, threshold: float
) -> Detections:
    scores = tables[0][:, 0]
    rows = np.flatnonzero(passes(scores, threshold))
    step = np.float32(stride)
    points = grid(size, stride, anchors)[rows] * step
    distances = tables[1][rows] * step
    boxes = np.concatenate([points - distances[:, :2], points + distances[:, 2:]], axis=1)
    landmarks = None
    if len(tables) == 3:
        landmarks = points[:, None] + tables[2][rows].reshape(-1, 5, 2) * step
    return Detections(boxes, scores[rows], landmarks)
