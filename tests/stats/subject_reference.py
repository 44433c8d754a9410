"""Random comparisons of a few people, and TAR under weights in plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.stats.subjects import SubjectBootstrap

TARGETS = (0.0, 0.01, 0.1, 0.3, 1.0)


class Comparisons:
    """Random templates of a few subjects and comparisons between them."""

    def __init__(self, seed: int, subjects: int = 8, pairs: int = 250, levels: int = 40) -> None:
        rng = np.random.default_rng(seed)
        self.template_id = rng.permutation(1000)[: 3 * subjects]
        self.subject_id = 10 + np.repeat(np.arange(subjects), 3)
        rows = rng.integers(3 * subjects, size=(pairs, 2))
        rows = rows[rows[:, 0] != rows[:, 1]]
        self.pairs = self.template_id[rows]
        self.sides = self.subject_id[rows] - 10
        self.genuine = self.sides[:, 0] == self.sides[:, 1]
        # A few levels make ties; NaN and infinities are failures to enrol.
        self.scores = (rng.integers(levels, size=len(rows)) / levels + self.genuine / 3).astype(
            np.float32
        )
        self.scores[rng.random(len(rows)) < 0.05] = np.nan
        self.scores[rng.random(len(rows)) < 0.02] = np.inf

    def bootstrap(self, **options: Any) -> SubjectBootstrap:
        return SubjectBootstrap(
            self.pairs, self.genuine, self.template_id, self.subject_id, **options
        )


def brute_force(data: Comparisons, weights: NDArray[np.int32], targets: Any) -> list[float]:
    """TAR by trying every score as threshold, in plain loops."""
    genuine, impostors = [], []
    for (i, j), same, score in zip(data.sides, data.genuine, data.scores, strict=True):
        value = float(score) if np.isfinite(score) else -np.inf
        if same:
            genuine.append((value, int(weights[i])))
        else:
            impostors.append((value, int(weights[i]) * int(weights[j])))
    all_genuine = sum(w for _, w in genuine)
    all_impostors = sum(w for _, w in impostors)
    if not all_genuine or not all_impostors:
        return [np.nan] * len(targets)
    thresholds = sorted({s for s, _ in genuine + impostors if np.isfinite(s)})
    best = []
    for target in targets:
        tar = 0.0
        for threshold in thresholds:
            far = sum(w for s, w in impostors if s >= threshold) / all_impostors
            if far <= target:
                tar = max(tar, sum(w for s, w in genuine if s >= threshold) / all_genuine)
        best.append(tar)
    return best
