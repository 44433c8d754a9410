"""Time and memory of the paired subject bootstrap at IJB-C's size, and the ratio to plain loops.

python benchmarks/subject_bootstrap.py [--replicates 2000] [--scale 1]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalkit.core.machine import available_cores, peak_memory_mb
from evalkit.stats.subjects import SubjectBootstrap

SUBJECTS, TEMPLATES, GENUINE, IMPOSTORS = 3531, 23124, 19557, 15638932
TARGETS = (1e-5, 1e-4)
SECONDS, MEMORY_MB = 30.0, 2048.0


class Set(NamedTuple):
    """Pairs of two models."""

    pairs: NDArray[np.int32]
    genuine: NDArray[np.bool_]
    template_id: NDArray[np.int64]
    subject_id: NDArray[np.int64]
    scores: tuple[NDArray[np.float32], NDArray[np.float32]]


def synthetic(subjects: int, templates: int, genuine: int, impostors: int) -> Set:
    """Enrolled templates against probes, scores with effects of the subjects."""
    rng = np.random.default_rng(0)
    owner = np.concatenate([np.arange(subjects), rng.integers(subjects, size=templates - subjects)])
    probes = rng.choice(np.arange(subjects, templates), genuine, replace=False)
    first = rng.integers(subjects, size=impostors)
    second = rng.integers(subjects, templates, size=impostors)
    first[owner[first] == owner[second]] += 1
    first %= subjects
    pairs = np.concatenate(
        [np.column_stack([owner[probes], probes]), np.column_stack([first, second])]
    ).astype(np.int32)
    same = np.arange(len(pairs)) < genuine
    effect = rng.normal(0, 0.03, subjects).astype(np.float32)
    scores = rng.normal(0, 0.1, len(pairs)).astype(np.float32) + effect[owner[pairs]].sum(axis=1)
    scores[same] = rng.normal(0.75, 0.12, genuine) + 2 * effect[owner[probes]]
    other = scores + rng.normal(0, 1e-3, len(scores)).astype(np.float32)
    return Set(pairs, same, np.arange(templates), owner, (scores, other))


def fast(data: Set, replicates: int, targets: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the change of TAR in every draw, by evalkit."""
    bootstrap = SubjectBootstrap(
        data.pairs, data.genuine, data.template_id, data.subject_id, replicates=replicates
    )
    before, after = (bootstrap.tar(scores, targets) for scores in data.scores)
    return after - before


def slow(data: Set, replicates: int, targets: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the same with all pairs weighed and sorted in every draw."""
    rng = np.random.default_rng(0)
    subjects = len(np.unique(data.subject_id))
    draws = rng.multinomial(subjects, np.full(subjects, 1 / subjects), replicates)
    sides = data.subject_id[data.pairs]
    order = [np.argsort(-scores, kind="stable") for scores in data.scores]
    changes = np.empty((len(targets), replicates))
    for row, weights in enumerate(draws):
        both = weights[sides].prod(axis=1)
        false = np.where(data.genuine, 0, both)
        true = np.where(data.genuine, weights[sides[:, 0]], 0)
        tars = [
            [_tar(scores[o], true[o], false[o], target) for target in targets]
            for scores, o in zip(data.scores, order, strict=True)
        ]
        changes[:, row] = np.subtract(tars[1], tars[0])
    return changes


def _tar(scores: NDArray[Any], true: NDArray[Any], false: NDArray[Any], target: float) -> float:
    """TAR at the lowest threshold between distinct scores whose FAR is at most the target."""
    last = np.append(scores[1:] != scores[:-1], True)
    allowed = last & (np.cumsum(false) / false.sum() <= target)
    accepted = np.flatnonzero(allowed)
    return float(np.cumsum(true)[accepted[-1]] / true.sum()) if len(accepted) else 0.0


def timed(work: Callable[[], NDArray[np.float64]]) -> tuple[NDArray[np.float64], float]:
    """Do some work; return it and the seconds."""
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--scale", type=float, default=1.0, help="share of IJB-C's counts")
    options = parser.parse_args()
    replicates = options.replicates

    small, draws, targets = synthetic(200, 2000, 1500, 200_000), 50, (1e-3, 1e-2)
    quick, quick_s = timed(lambda: fast(small, draws, targets))
    plain, plain_s = timed(lambda: slow(small, draws, targets))
    error = float(np.abs(quick - plain).max())
    print(f"small set ({len(small.pairs):,} pairs, {draws} draws, two models, two FARs)")
    print(f"  plain {plain_s:.2f} s, evalkit {quick_s:.3f} s")
    print(f"  largest difference {error:.1e} (at most 1e-12)")

    counts = (SUBJECTS, TEMPLATES, GENUINE, IMPOSTORS)
    whole = synthetic(*(round(options.scale * count) for count in counts))
    before = peak_memory_mb()
    changes, seconds = timed(lambda: fast(whole, replicates, TARGETS))
    peak = peak_memory_mb()
    print(f"{options.scale:g} of IJB-C's size ({len(whole.pairs):,} pairs, {replicates:,} draws,")
    print(f"two models, FAR 1e-5 and 1e-4) on {available_cores()} cores")
    print(f"  {seconds:.1f} s (at most {SECONDS:g})")
    print(f"  peak memory {peak:,.0f} MiB (at most {MEMORY_MB:,.0f}), {before:,.0f} with the data")
    for target, row in zip(TARGETS, changes, strict=True):
        low, high = 100 * np.nanquantile(row, (0.025, 0.975))
        print(f"  TAR at FAR {target:g}: change between {low:+.3f} and {high:+.3f} points")
    print(f"ratio {plain_s / quick_s:.0f} (small set)")
    held = error <= 1e-12 and peak <= MEMORY_MB and (seconds <= SECONDS or replicates > 2000)
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()
