"""What the counts beside two WIDER FACE results tell: paired intervals of their AP."""

from __future__ import annotations

import numpy as np

from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.results import Interval, Result
from evalkit.stats.ap import ImageBootstrap, ImageCounts, ap_difference, weighted_ap
from evalkit.verdict.compare_scores import Draws, Paired, Scores

_ROUNDING = 1e-9


def detection_changes(
    before: Result, after: Result, old: Scores, new: Scores, draws: Draws | None = None
) -> Paired:
    """Compare the AP of every subset, under the same draws of images.

    Raises
    ------
    evalkit.core.errors.CannotJudgeError
        The images or their kept faces differ.
    evalkit.core.errors.InputError
        The counts are damaged, or not those of the results.
    """
    counts = [counts_of(*side) for side in ((before, old), (after, new))]
    bootstrap = draws if isinstance(draws, ImageBootstrap) else ImageBootstrap(counts[0].images)
    try:
        found = ap_difference(counts[0], counts[1], bootstrap)
    except ValueError as error:
        raise CannotJudgeError(f"The two runs cannot be paired: {error}.") from error
    intervals = {
        f"ap/{subset}": Interval(
            low=held.low, high=held.high, level=held.level, method=f"{bootstrap.method}, paired"
        )
        for subset, held in found.items()
        if held is not None
    }
    return Paired(intervals, {}, (), ())


def counts_of(result: Result, scores: Scores) -> ImageCounts:
    """Read the counts beside a result, once they are seen to give its AP.

    Raises
    ------
    evalkit.core.errors.InputError
        They are damaged, or those of another result.
    """
    try:
        counts = ImageCounts.from_arrays(scores)
    except ValueError as error:
        raise InputError(
            f"The counts beside the result of {result.model.name} are damaged: {error}. Make the "
            "result again."
        ) from error
    found = weighted_ap(counts, np.ones((1, counts.images)))[:, 0]
    held = {metric.name: metric.value for metric in result.metrics}
    for subset, ap in zip(counts.subsets, found.tolist(), strict=True):
        value = held.get(f"ap/{subset}")
        if not np.isclose(np.nan if value is None else value, ap, 0, _ROUNDING, equal_nan=True):
            raise InputError(
                f"The counts beside the result of {result.model.name} do not give its "
                f"ap/{subset}. The files do not belong together; make the result again."
            )
    return counts
