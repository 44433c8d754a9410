"""Models that return final boxes: their outputs are only named and converted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from evalkit.heads import decoding
from evalkit.heads.detection import DetectionHead, DetectionOptions, Detections, Floats, Outputs
from evalkit.heads.sizing import Size


@dataclass(frozen=True, slots=True)
class Boxes(DetectionHead):
    """The head ``boxes``; by default it suppresses nothing.

    Attributes
    ----------
    boxes : str
        Output of shape (batch, n, 4 or more); the first four columns are the box.
    scores : str or None
        Output of shape (batch, n) or (batch, n, classes), whose last class is the face; None if
        the fifth column of `boxes` is the score.
    landmarks : str or None
        Output of shape (batch, n, 10) or (batch, n, 5, 2); None if there is none.
    form : str
        ``xyxy`` corners, ``xywh`` corner and size, ``cxcywh`` centre and size. An image with an
        inverted box (x2 < x1 or y2 < y1) counts as a failure.
    units : str
        ``pixels`` of the input, or ``fractions`` of its width and height.
    """

    name: ClassVar[str] = "boxes"
    boxes: str = "boxes"
    scores: str | None = "scores"
    landmarks: str | None = None
    form: Literal["xyxy", "xywh", "cxcywh"] = "xyxy"
    units: Literal["pixels", "fractions"] = "pixels"

    def options(self) -> DetectionOptions:
        """Return options without suppression: the model has done it."""
        return DetectionOptions(nms_threshold=None)

    def decode(self, outputs: Outputs, size: Size, threshold: float) -> list[Detections]:
        """See `DetectionHead.decode`."""
        tables, scores, points = self._tables(outputs)
        height, width = size
        pixels = (width, height) if self.units == "fractions" else (1, 1)
        scale = np.array(pixels, np.float32)
        images = []
        for image, face in enumerate(scores):
            rows = np.flatnonzero(decoding.passes(face, threshold))
            first, second = tables[image, rows, :2] * scale, tables[image, rows, 2:4] * scale
            landmarks = None if points is None else points[image, rows] * scale
            corners = self._corners(first, second)
            # An inverted box is a sign of the wrong `form`: the image fails.
            corners[(corners[:, 2:] < corners[:, :2]).any(axis=1)] = np.nan
            images.append(Detections(corners, face[rows], landmarks))
        return images

    def _corners(self, first: Floats, second: Floats) -> Floats:
        if self.form == "cxcywh":
            return decoding.from_center(first, second)
        return np.concatenate([first, first + second if self.form == "xywh" else second], axis=1)

    def _tables(self, outputs: Outputs) -> tuple[Floats, Floats, Floats | None]:
        """Boxes (batch, n, columns), scores (batch, n) and landmarks (batch, n, 5, 2)."""
        names = [name for name in (self.boxes, self.scores, self.landmarks) if name is not None]
        if not set(names) <= set(outputs):
            raise self.misfit(outputs, f"outputs named {', '.join(names)}")
        # Without a batch axis, all outputs are of one image.
        alone = outputs[self.boxes].ndim == 2
        tables, *others = (outputs[name][None] if alone else outputs[name] for name in names)
        columns = 5 if self.scores is None else 4
        if (
            tables.ndim != 3
            or tables.shape[2] < columns
            or not decoding.same_batch([tables, *others])
        ):
            expected = f"boxes of at least {columns} columns, one row for each box"
            raise self.misfit(outputs, expected)
        scores = tables[:, :, 4] if self.scores is None else others[0]
        scores = scores[:, :, -1] if scores.ndim == 3 and scores.shape[2] else scores
        points = None
        if self.landmarks is not None and others[-1].size == tables.shape[0] * tables.shape[1] * 10:
            points = others[-1].reshape(*tables.shape[:2], 5, 2)
        if scores.shape != tables.shape[:2] or (self.landmarks is not None and points is None):
            expected = "one score, and with landmarks 10 numbers, for each box"
            raise self.misfit(outputs, expected)
        return tables, scores, points
