"""Time and memory of the paired bootstrap of AP over images, and the ratio to a plain loop.

python benchmarks/ap_bootstrap.py                                   # a made-up set
python benchmarks/ap_bootstrap.py GROUND_TRUTH PREDICTIONS_A PREDICTIONS_B
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wider_set import IMAGES, made_up

from evalkit.core.machine import peak_memory_mb
from evalkit.stats.matches import REPLICATES, ImageBootstrap, image_counts
from evalkit.stats.subjects import percentile_interval
from evalkit.widerface_eval import (
    HIT,
    IGNORED,
    Evaluation,
    evaluate,
    read_ground_truth,
    read_predictions,
)

PLAIN_DRAWS = 10


def evaluations(files: list[Path], images: int) -> list[Evaluation]:
    """Evaluate two sets of predictions of the same images."""
    if not files:
        truth, found = made_up(images, detectors=2)
        return [evaluate(truth, detections) for detections in found]
    truth = read_ground_truth(files[0])
    return [evaluate(truth, read_predictions(p, truth.images).detections) for p in files[1:]]


def plain_ap(evaluation: Evaluation, weights: NDArray[np.int64]) -> list[float]:
    """AP of each subset in one draw: every detection is weighed and counted."""
    truth, steps = evaluation.ground_truth, evaluation.settings.steps
    counting = evaluation.levels < steps
    level = evaluation.levels[counting]
    weight = weights[evaluation.detections.image_of[counting]]
    areas = []
    for outcome, kept in zip(evaluation.matches.outcome, truth.subsets.values(), strict=True):
        found, recalled = (
            np.cumsum(np.bincount(level, weight * chosen, steps))
            for chosen in (outcome[counting] != IGNORED, outcome[counting] == HIT)
        )
        precision = np.divide(recalled, found, out=np.zeros(steps), where=found > 0)
        envelope = [precision[step:].max() for step in range(steps)]
        faces = weights[truth.image_of[kept]].sum()
        areas.append(float((np.diff(recalled, prepend=0) * envelope).sum() / faces))
    return areas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*", help="ground truth, and two predictions")
    parser.add_argument("--images", type=int, default=IMAGES, help="of the made-up set")
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    options = parser.parse_args()
    if len(options.files) not in (0, 3):
        parser.error("name the ground truth and two sets of predictions, or none of them")
    pair = evaluations(options.files, options.images)
    images = len(pair[0].ground_truth.images)
    counts = [image_counts(evaluation) for evaluation in pair]
    wall, cpu = time.perf_counter(), time.process_time()
    bootstrap = ImageBootstrap(images, replicates=options.replicates)
    changes = bootstrap.ap(counts[1]) - bootstrap.ap(counts[0])
    differences = dict(zip(counts[0].subsets, map(percentile_interval, changes), strict=True))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    for subset, interval in differences.items():
        if interval is not None:
            print(f"{subset}: {100 * interval.low:+.2f}..{100 * interval.high:+.2f} points")
    print(
        f"{options.replicates:,} draws of {images:,} images, {len(differences)} subsets, 2 "
        f"modes: {wall:.2f} s ({cpu:.2f} s of the processors), peak {peak_memory_mb():,.0f} MiB"
    )
    start = time.perf_counter()
    draws = bootstrap.weights[:PLAIN_DRAWS]
    plain = np.array([[plain_ap(evaluation, draw) for draw in draws] for evaluation in pair])
    one = (time.perf_counter() - start) / len(draws)
    fast = np.array([bootstrap.ap(count)[:, : len(draws)].T for count in counts])
    error = float(np.abs(fast - plain).max())
    print(f"a plain loop: {one * options.replicates:.1f} s, largest difference {error:.1e}")
    print(f"ratio {one * options.replicates / wall:.1f}")
    raise SystemExit(0 if error <= 1e-12 else 1)


if __name__ == "__main__":
    main()
