"""Time the WIDER FACE AP of a whole set beside the slow reference, in one process.

    python benchmarks/widerface_eval.py [--images 300]                  # a made-up set
    python benchmarks/widerface_eval.py -p PREDICTIONS -g GROUND_TRUTH [--images 300]

The reference is the way of the Python tools that people know: one subset at a time, a Python loop
over the detections of an image, and one over the thresholds. By default it runs over all images;
``--images`` lets both run over the first ones only. The two must agree to 1e-9.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from wider_set import IMAGES, made_up
from wider_slow import evaluate_subset

from evalkit.widerface_eval import (
    Detections,
    GroundTruth,
    evaluate,
    read_ground_truth,
    read_predictions,
)


def slow_ap(truth: GroundTruth, detections: Detections) -> dict[str, float]:
    low, high = detections.scores.min(), detections.scores.max()
    table = np.column_stack([detections.boxes, (detections.scores - low) / (high - low)])
    rows = np.split(table, detections.offsets[1:-1])
    faces = np.split(truth.boxes, truth.offsets[1:-1])
    return {
        name: evaluate_subset(rows, faces, np.split(kept, truth.offsets[1:-1]))
        for name, kept in truth.subsets.items()
    }


def seconds(work: Callable[[], Any], repeat: int) -> tuple[float, float, Any]:
    """Best and median of some runs, and the last answer."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        answer = work()
        times.append(time.perf_counter() - start)
    return min(times), float(np.median(times)), answer


def first(truth: GroundTruth, detections: Detections, count: int) -> tuple[GroundTruth, Detections]:
    faces, found = int(truth.offsets[count]), int(detections.offsets[count])
    return (
        GroundTruth(
            truth.images[:count],
            truth.offsets[: count + 1],
            truth.boxes[:faces],
            {name: kept[:faces] for name, kept in truth.subsets.items()},
        ),
        Detections(
            detections.images[:count],
            detections.offsets[: count + 1],
            detections.boxes[:found],
            detections.scores[:found],
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-p", "--pred", type=Path)
    parser.add_argument("-g", "--gt", type=Path)
    parser.add_argument("--images", type=int, help="only the first ones (default: all)")
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()

    if (options.pred is None) != (options.gt is None):
        parser.error("name both -p and -g, or neither")
    if options.gt is None:
        truth, (detections,) = made_up(options.images or IMAGES)
    else:
        truth = read_ground_truth(options.gt)
        detections = read_predictions(options.pred, truth.images).detections
        if options.images:
            truth, detections = first(truth, detections, options.images)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors")
    print(
        f"{len(truth.images)} images, {len(truth.boxes)} faces, {len(detections.scores)} detections"
    )

    best, median, fast = seconds(lambda: evaluate(truth, detections).ap, options.repeat)
    print(
        f"fast       {median * 1e3:10.1f} ms median, {best * 1e3:.1f} ms best of {options.repeat}"
    )
    one, _, _ = seconds(lambda: evaluate(truth, detections, threads=1).ap, options.repeat)
    print(f"one thread {one * 1e3:10.1f} ms best")
    slow_time, _, slow = seconds(lambda: slow_ap(truth, detections), 1)
    print(f"reference  {slow_time * 1e3:10.1f} ms")
    worst = max(abs(fast[name] - slow[name]) for name in fast)
    print(f"AP {fast}; differs from the reference's by at most {worst:.1e}")
    if worst > 1e-9:
        sys.exit("The fast AP is not that of the reference.")
    if options.gt is not None and not options.images:
        command = [sys.executable, "-m", "evalkit.widerface_eval"]
        command += ["-p", str(options.pred), "-g", str(options.gt)]
        _, whole, _ = seconds(lambda: subprocess.run(command, check=True, capture_output=True), 3)
        print(f"the command, from files to figures: {whole:.2f} s")
    print(f"ratio {slow_time / median:.0f}")


if __name__ == "__main__":
    main()
