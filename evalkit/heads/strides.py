"""What the heads with tables of anchors on several strides share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from evalkit.heads import decoding
from evalkit.heads.detection import DetectionHead, Detections, Floats, Outputs, joined
from evalkit.heads.sizing import Size


@dataclass(frozen=True, slots=True)
class StrideHead(DetectionHead):
    """A head whose outputs are told apart by their shape, whatever their names and order.

    Each stride has a row for each anchor, and tables of scores (1 column), boxes (4 columns) and
    landmarks (10 columns).

    Attributes
    ----------
    counts : sequence of list of int
        The numbers of tables of 1, 4 and 10 columns that a stride may have.
    columns : str
        The same in words, for messages.
    strides : tuple of int
    """

    counts: ClassVar[Sequence[list[int]]]
    columns: ClassVar[str]
    strides: tuple[int, ...] = (8, 16, 32)

    @abstractmethod
    def decode_level(
        self, tables: list[Floats], size: Size, stride: int, threshold: float
    ) -> Detections:
        """Decode one stride of one image: tables of scores, boxes and perhaps landmarks."""

    def anchors_of(self, size: Size, stride: int) -> Floats:
        """Return column and row of each anchor of a stride."""
        return decoding.grid(size, stride, 1)

    def decode(self, outputs: Outputs, size: Size, threshold: float) -> list[Detections]:
        """See `DetectionHead.decode`."""
        levels = [self._tables(outputs, size, stride) for stride in self.strides]
        tables = [table for level in levels for table in level]
        if not decoding.same_batch(tables) or len({len(level) for level in levels}) != 1:
            raise self.misfit(outputs, "the same tables of one batch on every stride")
        return [
            joined(
                [
                    self.decode_level([table[image] for table in level], size, stride, threshold)
                    for level, stride in zip(levels, self.strides, strict=True)
                ]
            )
            for image in range(len(tables[0]))
        ]

    def _tables(self, outputs: Outputs, size: Size, stride: int) -> list[Floats]:
        rows = len(self.anchors_of(size, stride))
        groups = [decoding.tables_of(outputs, rows, columns) for columns in (1, 4, 10)]
        if [len(tables) for tables in groups] not in self.counts:
            raise self.misfit(
                outputs,
                f"{rows} rows of {self.columns} columns on stride {stride} for an input of "
                f"{size[1]}x{size[0]} pixels",
            )
        return [table for tables in groups for table in tables]
