"""YuNet: one anchor-free prediction for each cell on each stride.

After Wu et al., "YuNet: A Tiny Millisecond-level Face Detector" (2023), in the layout of the
exported models that OpenCV's ``FaceDetectorYN`` reads.
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
class YuNet(StrideHead):
    """The head ``yunet``; see `StrideHead`.

    A stride has a row for each cell, and twice 1 column: class and objectness, after the sigmoid.
    The score is the root of their product, so their order does not matter. It has 4 columns of the
    box (centre from the cell's top left corner in strides, logarithm of the size in strides), and
    10 of landmarks (in strides from the same corner).

    Attributes
    ----------
    strides : tuple of int
    """

    name: ClassVar[str] = "yunet"
    counts = ([2, 1, 1],)
    columns = "1, 1, 4 and 10"

    def decode_level(
        self, tables: list[Floats], size: Size, stride: int, threshold: float
    ) -> Detections:
        """See `StrideHead.decode_level`."""
        # A half-precision sigmoid may leave 0..1 by a rounding error; np.clip keeps NaN.
        likelihood, presence = (np.clip(table[:, 0], 0, 1) for table in tables[:2])
        scores = np.sqrt(likelihood * presence)
        rows = np.flatnonzero(decoding.passes(scores, threshold))
        step = np.float32(stride)
        cells = self.anchors_of(size, stride)[rows]
        box = tables[2][rows]
        boxes = decoding.from_center((cells + box[:, :2]) * step, np.exp(box[:, 2:]) * step)
        landmarks = (cells[:, None] + tables[3][rows].reshape(-1, 5, 2)) * step
        return Detections(boxes, scores[rows], landmarks)
