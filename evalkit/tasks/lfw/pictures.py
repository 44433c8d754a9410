"""Pictures of pairs that a run decides wrongly, or otherwise than the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from evalkit.core.errors import InputError
from evalkit.core.results import Result
from evalkit.datasets.errors import UnreadableImage
from evalkit.datasets.lfw import LfwImages, load_bin
from evalkit.stats.evidence import Decisions
from evalkit.tasks.lfw.evidence import FoldedPairs
from evalkit.tasks.panels import Gallery, Picture, Runs, Scored
from evalkit.tasks.pictures import (
    Image,
    first_run,
    flipped,
    gallery,
    moved,
    side_by_side,
    worst_pairs,
)


def pictures(runs: Runs) -> tuple[Gallery, ...]:
    """Return the worst pairs, the decisions that flipped and the images that moved furthest."""

    def errors() -> Iterator[Gallery]:
        first = first_run(runs)
        images = _images(first.result)
        yield _worst_pairs(first, images)
        yield from flipped(runs, partial(_pair, images))

    drifted = gallery("Images that moved furthest", lambda: moved(runs, _by_name))
    return (*gallery("Worst pairs", errors), *drifted)


def _images(result: Result) -> LfwImages:
    pairs = load_bin(result.dataset.path)
    if pairs.sha256 != result.dataset.sha256:
        raise InputError(f"{result.dataset.path} is no longer the file that was evaluated")
    return LfwImages(pairs)


def _worst_pairs(run: Scored, images: LfwImages) -> Gallery:
    """Return the worst pairs at the threshold of the first accuracy, a squared distance."""
    accuracy = next((m for m in run.result.metrics if m.figure == "accuracy"), None)
    evidence = run.main
    if accuracy is None or not isinstance(evidence, FoldedPairs):
        raise InputError("the result has no accuracy, or no scores lie beside it")
    threshold, distances = accuracy.at["distance"] or 0.0, evidence.distances
    decisions = Decisions(
        distances < threshold, evidence.genuine, evidence.similarity, evidence.label
    )
    wrong = np.flatnonzero(~decisions.right)
    wrong = wrong[np.argsort(-np.abs(distances[wrong] - threshold), kind="stable")]
    pair = partial(_pair, images)
    return worst_pairs(run, decisions, wrong.tolist(), 1 - threshold / 2, pair)


def _pair(images: LfwImages, row: int, caption: str) -> Picture | None:
    try:
        first, second = (images.load(2 * row + side)[:, :, ::-1] for side in (0, 1))
    except (UnreadableImage, IndexError):
        return None
    return side_by_side(first, second, caption)


def _by_name(result: Result) -> Callable[[str], Image]:
    """Return what loads an image of a set by its name."""
    images = _images(result)
    rows = {images.name(row): row for row in range(len(images))}

    def load(name: str) -> Image:
        if name not in rows:
            raise InputError(f"there is no image {name}")
        return np.ascontiguousarray(images.load(rows[name])[:, :, ::-1])

    return load
