"""Tools of heads: from tensors to the candidates of one image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evalkit.heads.detection import Floats, Outputs
from evalkit.heads.sizing import Size


def batched(value: Floats, axes: int) -> Floats:
    """Return an output with a batch axis, which models of one image lack."""
    return value[None] if value.ndim == axes - 1 else value


def passes(scores: Floats, threshold: float) -> NDArray[np.bool_]:
    """Return which scores reach the threshold; NaN counts, so that it is not lost."""
    return ~(scores < threshold)


def tables_of(outputs: Outputs, rows: int, columns: int) -> list[Floats]:
    """Return the outputs of a number of rows and columns, in their order, with a batch axis."""
    tables = [batched(value, 3) for value in outputs.values()]
    return [table for table in tables if table.ndim == 3 and table.shape[1:] == (rows, columns)]


def same_batch(tables: Sequence[Floats]) -> bool:
    """Whether all tables have the same number of images."""
    return len({len(table) for table in tables}) == 1


@lru_cache(maxsize=64)
def grid(size: Size, stride: int, repeats: int) -> Floats:
    """Return column and row of each anchor of a level, row by row, each place `repeats` times.

    Returns
    -------
    ndarray of float32, shape (rows x columns x repeats, 2), read-only

    Examples
    --------
    >>> grid((16, 24), 8, 1).tolist()
    [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]
    """
    rows, columns = -(-size[0] // stride), -(-size[1] // stride)
    places = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    cells: Floats = np.repeat(places, repeats, axis=0).astype(np.float32)
    cells.setflags(write=False)
    return cells


def from_center(center: Floats, size: Floats) -> Floats:
    """Return corners x1 y1 x2 y2 of boxes, from centres and sizes of shape (n, 2)."""
    half = size / np.float32(2)
    return np.concatenate([center - half, center + half], axis=1)
