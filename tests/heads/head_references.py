"""Slow decoders, one anchor at a time, in plain float64 Python: what each head must equal.

Each takes the raw tensors of one image and gives (box, score, landmarks) by anchor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Face = tuple[list[float], float, list[list[float]] | None]
Raw = NDArray[np.float32]


def cells(size: tuple[int, int], stride: int) -> Iterator[tuple[int, int]]:
    for row in range(math.ceil(size[0] / stride)):
        for column in range(math.ceil(size[1] / stride)):
            yield row, column


def around(x: float, y: float, width: float, height: float) -> list[float]:
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def retinaface(
    loc: Raw, conf: Raw, points: Raw | None, size: tuple[int, int], *, logits: bool = False
) -> Iterator[Face]:
    row = 0
    for stride, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        for j, i in cells(size, stride):
            for side in sides:
                # The public code works with fractions of the input and scales at the end.
                cx, cy = (i + 0.5) * stride / size[1], (j + 0.5) * stride / size[0]
                w, h = side / size[1], side / size[0]
                d = [float(v) for v in loc[row]]
                box = around(
                    (cx + d[0] * 0.1 * w) * size[1],
                    (cy + d[1] * 0.1 * h) * size[0],
                    w * math.exp(d[2] * 0.2) * size[1],
                    h * math.exp(d[3] * 0.2) * size[0],
                )
                score = float(conf[row, 1])
                if logits:
                    powers = [math.exp(float(v)) for v in conf[row]]
                    score = powers[1] / sum(powers)
                marks = None
                if points is not None:
                    p = [float(v) for v in points[row]]
                    marks = [
                        [
                            (cx + p[2 * k] * 0.1 * w) * size[1],
                            (cy + p[2 * k + 1] * 0.1 * h) * size[0],
                        ]
                        for k in range(5)
                    ]
                yield box, score, marks
                row += 1
    assert row == len(loc)


def scrfd(tables: dict[int, tuple[Raw, Raw, Raw | None]], size: tuple[int, int]) -> Iterator[Face]:
    for stride, (scores, distances, points) in tables.items():
        row = 0
        for j, i in cells(size, stride):
            for _ in range(2):
                x, y = i * stride, j * stride
                d = [float(v) * stride for v in distances[row]]
                marks = None
                if points is not None:
                    p = [float(v) * stride for v in points[row]]
                    marks = [[x + p[2 * k], y + p[2 * k + 1]] for k in range(5)]
                yield [x - d[0], y - d[1], x + d[2], y + d[3]], float(scores[row, 0]), marks
                row += 1
        assert row == len(scores)


def yunet(tables: dict[int, tuple[Raw, Raw, Raw, Raw]], size: tuple[int, int]) -> Iterator[Face]:
    for stride, (classes, objects, boxes, points) in tables.items():
        for row, (j, i) in enumerate(cells(size, stride)):
            b, p = [float(v) for v in boxes[row]], [float(v) for v in points[row]]
            score = math.sqrt(
                min(max(float(classes[row, 0]), 0), 1) * min(max(float(objects[row, 0]), 0), 1)
            )
            box = around(
                (i + b[0]) * stride,
                (j + b[1]) * stride,
                math.exp(b[2]) * stride,
                math.exp(b[3]) * stride,
            )
            marks = [[(i + p[2 * k]) * stride, (j + p[2 * k + 1]) * stride] for k in range(5)]
            yield box, score, marks


def ultraface(scores: Raw, boxes: Raw, size: tuple[int, int]) -> Iterator[Face]:
    for score, box in zip(scores.tolist(), boxes.tolist(), strict=True):
        corners = [box[0] * size[1], box[1] * size[0], box[2] * size[1], box[3] * size[0]]
        yield corners, score[1], None


def yolo_rows(table: Raw, layout: str) -> Iterator[Face]:
    """One row a candidate; `layout` is v5, v7, v8, v5-plain or v8-plain."""
    for row in table.astype(float).tolist():
        box, score, marks = around(*row[:4]), row[4], None
        if layout == "v5":
            score *= row[15]
            marks = [row[5 + 2 * k : 7 + 2 * k] for k in range(5)]
        elif layout == "v7":
            score *= row[5]
            marks = [row[6 + 3 * k : 8 + 3 * k] for k in range(5)]
        elif layout == "v8":
            marks = [row[5 + 3 * k : 7 + 3 * k] for k in range(5)]
        elif layout == "v5-plain":
            score *= row[5]
        yield box, score, marks


def yolo_grid(levels: list[Raw], anchors: Any) -> Iterator[Face]:
    for level, stride, shapes in zip(levels, (8, 16, 32), anchors, strict=True):
        for which, (width, height) in enumerate(shapes):
            for j in range(level.shape[1]):
                for i in range(level.shape[2]):
                    v = [float(x) for x in level[which, j, i]]
                    box = around(
                        (sigmoid(v[0]) * 2 - 0.5 + i) * stride,
                        (sigmoid(v[1]) * 2 - 0.5 + j) * stride,
                        (sigmoid(v[2]) * 2) ** 2 * width,
                        (sigmoid(v[3]) * 2) ** 2 * height,
                    )
                    marks = [
                        [v[5 + 2 * k] * width + i * stride, v[6 + 2 * k] * height + j * stride]
                        for k in range(5)
                    ]
                    yield box, sigmoid(v[4]) * sigmoid(v[15]), marks


def overlap(a: Any, b: Any, extra: float) -> float:
    a, b = [float(v) for v in a], [float(v) for v in b]
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0] + extra) * (c[3] - c[1] + extra) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def greedy(boxes: Any, scores: Any, threshold: float, extra: float) -> list[int]:
    """Suppression as the textbook has it: take the best, strike out what overlaps it, repeat."""
    left = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    kept = []
    while left:
        best, *rest = left
        kept.append(best)
        left = [row for row in rest if overlap(boxes[best], boxes[row], extra) <= threshold]
    return kept
