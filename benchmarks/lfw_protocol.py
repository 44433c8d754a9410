"""Ten-fold accuracy and VAL@FAR of 6,000 pairs: against the loop that public scripts run.

    python benchmarks/lfw_protocol.py [--pairs 6000] [--dimensions 512] [--repeats 5]

Both sides start from the same embeddings, original and flipped, in one process, and must agree to
the last digit; the loop over folds and thresholds is the tests' reference. The exact rule's loop
(one pass over the pairs for each midpoint) is timed on one fold and counted ten times.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.protocols.folds import assign_folds, ten_fold_accuracy, val_at_far
from evalkit.protocols.verification import pair_distances

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "protocols"))
import verification_reference as reference

FAR = 1e-3


def made_up(pairs: int, dimensions: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    same = np.arange(pairs) % (pairs // 10) < pairs // 20
    first = rng.normal(size=(pairs, dimensions))
    other = np.where(same[:, None], first, rng.normal(size=first.shape))
    both = np.stack([first, other], 1).reshape(2 * pairs, dimensions)
    views = [(both + 1.6 * rng.normal(size=both.shape)).astype(np.float32) for _ in range(2)]
    return views[0], views[1], same


def seconds(work: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    embeddings, flipped, same = made_up(options.pairs, options.dimensions)

    def fast() -> tuple[Any, Any, Any]:
        distances = pair_distances(embeddings, flipped).squared
        fold, _, _ = assign_folds(same, "contiguous")
        return (
            ten_fold_accuracy(distances, same, fold, "insightface"),
            val_at_far(distances, same, fold, FAR),
            ten_fold_accuracy(distances, same, fold, "exact"),
        )

    def loop() -> tuple[Any, Any]:
        distances, _ = reference.distances(embeddings, flipped)
        accuracy = reference.cross_validate(distances, same, reference.grid)
        return accuracy, reference.val(distances, same, FAR)

    (grid, val, _), (accuracy, rates) = fast(), loop()
    assert grid.fold_accuracy == tuple(accuracy[0])
    assert grid.fold_threshold == tuple(accuracy[1])
    assert val.fold_val == tuple(rates[:, 0])
    quick, slow = seconds(fast, options.repeats), seconds(loop, 2)
    print(f"{options.pairs} pairs, {options.dimensions} dimensions; accuracy {grid.accuracy:.5f}")
    print(f"loop: distances, insightface rule, VAL@FAR             {1e3 * slow:9.1f} ms")
    print(f"evalkit: the same, and the exact rule                  {1e3 * quick:9.1f} ms")
    print(f"ratio                                                  {slow / quick:9.1f}")
    distances = pair_distances(embeddings, flipped).squared
    train = distances[reference.folds(options.pairs)[0][0]]
    thresholds = reference.midpoints(train)
    one = seconds(
        lambda: [reference.accuracy_at(t, train, same[: train.size]) for t in thresholds], 1
    )
    print(
        f"loop with the exact rule too (ten times one fold)      {1e3 * (slow + 10 * one):9.1f} ms"
    )
    print(
        f"ratio                                                  {(slow + 10 * one) / quick:9.1f}"
    )


if __name__ == "__main__":
    main()
