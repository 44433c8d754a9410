"""How fast suppression is on crowds, beside OpenCV's.

    python benchmarks/nms.py [--scale 1]

Faces stand on a 1024x1024 image at random; each is found several times with some jitter. The
last row is the worst case: boxes so small and so far apart that nearly all stay.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.heads.nms import nms

THRESHOLD = 0.4


def crowd(
    faces: int, copies: int, side: tuple[float, float], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes (faces x copies, 4) and scores."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(*side, (faces, 1, 1))
    place = rng.uniform(0, 1024, (faces, 1, 2))
    corner = place + rng.normal(0, 0.08, (faces, copies, 2)) * size
    shape = size * rng.uniform(0.85, 1.15, (faces, copies, 2))
    boxes = np.concatenate([corner, corner + shape], axis=2).reshape(-1, 4)
    scores = rng.uniform(0.02, 1, len(boxes))
    return boxes.astype(np.float32), scores.astype(np.float32)


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median time of one call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the faces")
    scale = parser.parse_args().scale
    cases = [
        ("a few faces", crowd(round(scale * 10), 20, (50, 200), 0)),
        ("a crowd", crowd(round(scale * 300), 10, (10, 40), 1)),
        ("the densest", crowd(round(scale * 1000), 10, (6, 20), 2)),
        ("nothing to suppress", crowd(round(scale * 40_000), 1, (1, 2), 3)),
    ]
    for name, (boxes, scores) in cases:
        wide = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).astype(np.float64)
        kept = nms(boxes, scores, THRESHOLD, overlap="continuous")
        ours = seconds(lambda b=boxes, s=scores: nms(b, s, THRESHOLD, overlap="continuous"))  # type: ignore[misc]
        opencv = seconds(
            lambda w=wide, s=scores: cv2.dnn.NMSBoxes(w, s, 0.0, THRESHOLD)  # type: ignore[misc]
        )
        print(
            f"{name:20} {len(boxes):6} boxes, {len(kept):6} stay: {ours * 1e3:9.3f} ms, "
            f"OpenCV {opencv * 1e3:9.3f} ms, ratio {opencv / ours:5.1f}"
        )


if __name__ == "__main__":
    main()
