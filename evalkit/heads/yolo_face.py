"""YOLO face detectors in the layouts of their public exports, recognised by shape.

N is the number of cells of all strides, before version 8 times three anchors:

- ``v5``: (batch, N, 16): cx cy w h, objectness, 5 landmarks x y, class;
- ``v5-grid``: the same on each stride before decoding, (batch, 3, rows, columns, 16), without
  sigmoid;
- ``v7``: (batch, N, 21): cx cy w h, objectness, class, 5 landmarks x y visibility;
- ``v8``: (batch, 20, N): cx cy w h, class, 5 landmarks x y visibility;
- without landmarks: (batch, N, 6) and (batch, 5, N).

Coordinates are pixels of the input. Both (batch, columns, N) and (batch, N, columns) are read.
Tested on synthetic tensors of these layouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from evalkit.core.errors import InputError
from evalkit.heads import decoding
from evalkit.heads.detection import DetectionHead, Detections, Floats, Outputs, joined
from evalkit.heads.sizing import Size


class _Layout(NamedTuple):
    """The meaning of columns; the score is the product of its columns."""

    columns: int
    anchors: int
    score: tuple[int, ...]
    points: slice | None
    values: int


_LAYOUTS = (
    _Layout(16, 3, (4, 15), slice(5, 15), 2),
    _Layout(21, 3, (4, 5), slice(6, 21), 3),
    _Layout(20, 1, (4,), slice(5, 20), 3),
    _Layout(6, 3, (4, 5), None, 0),
    _Layout(5, 1, (4,), None, 0),
)
_GRID_COLUMNS = 16


@dataclass(frozen=True, slots=True)
class YoloFace(DetectionHead):
    """The head ``yolo-face``.

    Attributes
    ----------
    strides : tuple of int
    anchors : tuple of tuple of pairs of float
        Widths and heights of each stride's anchors, for the layout ``v5-grid``; by default those
        of the public YOLOv5-face models of three strides.
    """

    name: ClassVar[str] = "yolo-face"
    strides: tuple[int, ...] = (8, 16, 32)
    anchors: tuple[tuple[tuple[float, float], ...], ...] = (
        ((4, 5), (8, 10), (13, 16)),
        ((23, 29), (43, 55), (73, 105)),
        ((146, 217), (231, 300), (335, 433)),
    )

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.anchors):
            raise InputError(
                f"The head 'yolo-face' has {len(self.strides)} strides but anchors of "
                f"{len(self.anchors)}. Give one list of anchors for each stride."
            )

    def decode(self, outputs: Outputs, size: Size, threshold: float) -> list[Detections]:
        """See `DetectionHead.decode`."""
        levels = self._grid_levels(outputs, size)
        if levels is None:
            table, layout = self._table(outputs, size)
            return [_decode_table(image, layout, threshold) for image in table]
        images = []
        for image in range(len(levels[0])):
            parts = zip(levels, self.strides, self.anchors, strict=True)
            images.append(
                joined(
                    [
                        _decode_grid(level[image], stride, np.array(anchors, np.float32), threshold)
                        for level, stride, anchors in parts
                    ]
                )
            )
        return images

    def _grid_levels(self, outputs: Outputs, size: Size) -> list[Floats] | None:
        """Return outputs of the layout ``v5-grid`` in the order of the strides, or None."""
        levels = []
        for stride, anchors in zip(self.strides, self.anchors, strict=True):
            cells = -(-size[0] // stride), -(-size[1] // stride)
            shape = (len(anchors), *cells, _GRID_COLUMNS)
            tables = [decoding.batched(value, 5) for value in outputs.values()]
            levels += [table for table in tables if table.ndim == 5 and table.shape[1:] == shape]
        return levels if len(levels) == len(self.strides) and decoding.same_batch(levels) else None

    def _table(self, outputs: Outputs, size: Size) -> tuple[Floats, _Layout]:
        """Return the decoded table, (batch, columns, N), and its layout."""
        cells = sum(len(decoding.grid(size, stride, 1)) for stride in self.strides)
        # Some exports have the undecoded levels beside the decoded table.
        for value in outputs.values():
            table = decoding.batched(value, 3)
            for layout in _LAYOUTS:
                rows = cells * layout.anchors
                if table.ndim == 3 and table.shape[1:] == (layout.columns, rows):
                    return table, layout
                if table.ndim == 3 and table.shape[1:] == (rows, layout.columns):
                    return table.transpose(0, 2, 1), layout
        raise self.misfit(
            outputs,
            f"{3 * cells} rows of 16, 21 or 6 columns or {cells} of 20 or 5 for an input of "
            f"{size[1]}x{size[0]} pixels, or grids of {_GRID_COLUMNS} columns on each stride",
        )


def _decode_table(table: Floats, layout: _Layout, threshold: float) -> Detections:
    scores: Floats = np.prod(table[list(layout.score)], axis=0)
    rows = np.flatnonzero(decoding.passes(scores, threshold))
    chosen = np.ascontiguousarray(table[:, rows].T)
    points = None
    if layout.points is not None:
        points = chosen[:, layout.points].reshape(-1, 5, layout.values)[:, :, :2]
    return Detections(decoding.from_center(chosen[:, :2], chosen[:, 2:4]), scores[rows], points)


def _decode_grid(level: Floats, stride: int, anchors: Floats, threshold: float) -> Detections:
    """Decode YOLOv5's grids: sigmoid, centre within two cells, size up to four anchors."""
    scores = _sigmoid(level[..., 4]) * _sigmoid(level[..., 15])
    which, row, column = np.nonzero(decoding.passes(scores, threshold))
    values = level[which, row, column]
    cells = np.column_stack([column, row]).astype(np.float32)
    step, anchor = np.float32(stride), anchors[which]
    center = (_sigmoid(values[:, :2]) * 2 - np.float32(0.5) + cells) * step
    shape = (_sigmoid(values[:, 2:4]) * 2) ** 2 * anchor
    points = values[:, 5:15].reshape(-1, 5, 2) * anchor[:, None] + cells[:, None] * step
    return Detections(decoding.from_center(center, shape), scores[which, row, column], points)


def _sigmoid(value: Floats) -> Floats:
    result: Floats = np.reciprocal(np.exp(-value) + np.float32(1))
    return result
