"""Pictures of pairs that a run decides wrongly, or otherwise than the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from evalkit.core.errors import InputError
from evalkit.core.results import Result
from evalkit.run.drift import store_of
from evalkit.tasks.panels import Gallery, Picture, Runs, Scored
from evalkit.tasks.pictures import (
    Image,
    StoredSamples,
    first_run,
    flipped,
    gallery,
    moved,
    side_by_side,
    worst_pairs,
)

_HEIGHT = 96


def pictures(runs: Runs) -> tuple[Gallery, ...]:
    """Return the worst pairs, the decisions that flipped and the images that moved furthest."""

    def errors() -> Iterator[Gallery]:
        first = first_run(runs)
        pair = _Pairs(first)
        yield _worst_pairs(first, pair)
        yield from flipped(runs, pair)

    drifted = gallery("Images that moved furthest", lambda: moved(runs, _by_name))
    return (*gallery("Worst pairs", errors), *drifted)


def _by_name(result: Result) -> Callable[[str], Image]:
    return StoredSamples(result, Path(result.dataset.path)).load


class _Pairs:
    """Cuts the two images of a pair, side by side."""

    def __init__(self, run: Scored) -> None:
        self._load = _by_name(run.result)
        self._names: Sequence[str] = store_of(run.result).names()
        sides = getattr(run.main, "sides", None)
        if sides is None:
            raise InputError("the scores came without images")
        self._sides = sides

    def __call__(self, row: int, caption: str) -> Picture | None:
        try:
            images = [self._load(self._names[side]) for side in self._sides[row]]
        except (InputError, ValueError, IndexError):
            return None
        first, second = (_scaled(image) for image in images)
        return side_by_side(first, second, caption)


def _scaled(image: Image) -> Image:
    width = max(1, round(image.shape[1] * _HEIGHT / image.shape[0]))
    scaled: Image = cv2.resize(image, (width, _HEIGHT), interpolation=cv2.INTER_AREA)
    return scaled


def _worst_pairs(run: Scored, pair: _Pairs) -> Gallery:
    """Return the worst pairs at the threshold of the headline."""
    metric = run.result.headline
    decisions = run.main.decisions(metric, metric) if metric and run.main else None
    if metric is None or decisions is None:
        raise InputError("the result has no threshold")
    threshold = metric.at["similarity"] or 0.0
    wrong = np.flatnonzero(~decisions.right & np.isfinite(decisions.similarity))
    wrong = wrong[np.argsort(-np.abs(decisions.similarity[wrong] - threshold), kind="stable")]
    return worst_pairs(run, decisions, wrong.tolist(), threshold, pair)
