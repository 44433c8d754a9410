"""Time and memory of the paired bootstrap of AP, on two real sets of predictions.

python benchmarks/ap_bootstrap.py GROUND_TRUTH PREDICTIONS_A PREDICTIONS_B
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from evalkit.core.machine import peak_memory_mb
from evalkit.stats.ap import REPLICATES, ImageBootstrap, ImageCounts, ap_difference, image_counts
from evalkit.widerface_eval import evaluate, read_ground_truth, read_predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ground_truth", type=Path)
    parser.add_argument("predictions", type=Path, nargs=2)
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    options = parser.parse_args()
    truth = read_ground_truth(options.ground_truth)
    counts: list[ImageCounts] = []
    for folder in options.predictions:
        evaluation = evaluate(truth, read_predictions(folder, truth.images).detections)
        counts.append(image_counts(evaluation))
        size = sum(array.nbytes for array in counts[-1].arrays().values())
        print(
            f"{folder.name}: {len(evaluation.levels):,} detections in {len(counts[-1].step):,} "
            f"cells, {size / 1024:,.0f} KiB"
        )
    wall, cpu = time.perf_counter(), time.process_time()
    bootstrap = ImageBootstrap(len(truth.images), replicates=options.replicates)
    found = ap_difference(counts[0], counts[1], bootstrap)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    for subset, interval in found.items():
        if interval is not None:
            print(f"{subset}: {100 * interval.low:+.2f}..{100 * interval.high:+.2f} points")
    print(
        f"{options.replicates:,} draws of {len(truth.images):,} images, {len(found)} subsets, 2 "
        f"modes: {wall:.1f} s ({cpu:.1f} s of the processors), peak {peak_memory_mb():,.0f} MiB"
    )


if __name__ == "__main__":
    main()
