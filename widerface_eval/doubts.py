"""Warnings about figures that are probably wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evalkit.widerface_eval.errors import listed
from evalkit.widerface_eval.matching import HIT, Matches
from evalkit.widerface_eval.records import Detections, GroundTruth

# Real detections whose boxes have another form reach .0001 to .004 by chance.
_BY_CHANCE = 0.01


def silence(detections: Detections, ground_truth: GroundTruth) -> tuple[str, ...]:
    """Name the events without a detection."""
    counts = np.bincount(
        ground_truth.event_of_image, np.diff(detections.offsets), len(ground_truth.events)
    )
    silent = [event for event, count in zip(ground_truth.events, counts, strict=True) if not count]
    if not silent:
        return ()
    return (f"There is no detection at all in {len(silent)} events: {listed(silent)}.",)


def hardly_a_hit(aps: Sequence[float], matches: Matches, iou: float) -> tuple[str, ...]:
    """Suspect boxes of another form where no AP is higher than by chance.

    Parameters
    ----------
    aps : sequence of float
        Of the subsets that keep a face.
    matches : Matches
    iou : float
        The overlap of a hit.
    """
    if not aps or max(aps) >= _BY_CHANCE:
        return ()
    hits = np.count_nonzero((matches.outcome == HIT).any(axis=0))
    return (
        f"{hits or 'None'} of {matches.outcome.shape[1]} detections "
        f"{'hits' if hits < 2 else 'hit'} a face with an overlap of {iou}, and no AP reaches "
        f"{_BY_CHANCE}. Check that boxes are x y width height, not x1 y1 x2 y2 or their centres, "
        "in pixels of the original image, each in its own image's file, and that higher scores "
        "are better.",
    )
