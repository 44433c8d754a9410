"""YuNet: one anchor-free prediction a cell on each stride.

After Wu et al., "YuNet: A Tiny Millisecond-level Face Detector" (2023), in the layout of the
exported models that OpenCV's ``FaceDetectorYN`` reads.
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
    from_center,
    grid,
    joined,
    misfit,
    passes,
    same_batch,
    tables_of,
)
from evalkit.heads.sizing import Size


@dataclass(frozen=True, slots=True)
class YuNet(DetectionHead):
    """The head ``yunet``.

    Outputs are told apart by their shape: each stride has a row a cell, with twice 1 column
    (class and objectness, after the sigmoid; the score is the root of their product, so that
    their order does not matter), 4 of the box (centre from the cell's top left corner in strides,
    logarithm of the size in strides) and 10 of landmarks (in strides from the same corner).

    Attributes
    ----------
    strides : tuple of int
    """

    name: ClassVar[str] = "yunet"
    strides: tuple[int, ...] = (8, 16, 32)

    def decode(self, outputs: Outputs, size: Size, threshold: float) -> list[Detections]:
        """See `DetectionHead.decode`."""
        levels = [self._level(outputs, size, stride) for stride in self.strides]
        if not same_batch([table for level in levels for table in level]):
            raise misfit(self.name, outputs, "tables of one batch on every stride")
        return [
            joined(
                [
                    _decode_level([table[image] for table in level], size, stride, threshold)
                    for level, stride in zip(levels, self.strides, strict=True)
                ]
            )
            for image in range(len(levels[0][0]))
        ]

    def _level(self, outputs: Outputs, size: Size, stride: int) -> list[Floats]:
        rows = len(grid(size, stride, 1))
        found = [tables_of(outputs, rows, columns) for columns in (1, 4, 10)]
        if [len(tables) for tables in found] != [2, 1, 1]:
            raise misfit(
                self.name,
                outputs,
                f"{rows} rows of 1, 1, 4 and 10 columns on stride {stride} for an input of "
                f"{size[1]}x{size[0]} pixels",
            )
        return [table for tables in found for table in tables]


def _decode_level(tables: list[Floats], size: Size, stride: int, threshold: float) -> Detections:
    # A half-precision sigmoid may leave 0..1 by a rounding; NaN passes np.clip unchanged.
    likelihood, presence = (np.clip(table[:, 0], 0, 1) for table in tables[:2])
    scores = np.sqrt(likelihood * presence)
    rows = np.flatnonzero(passes(scores, threshold))
    step = np.float32(stride)
    cells = grid(size, stride, 1)[rows]
    box = tables[2][rows]
    boxes = from_center((cells + box[:, :2]) * step, np.exp(box[:, 2:]) * step)
    landmarks = (cells[:, None] + tables[3][rows].reshape(-1, 5, 2)) * step
    return Detections(boxes, scores[rows], landmarks)
