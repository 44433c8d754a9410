"""Evidence of the LFW family: pairs in ten folds, decided by squared distances."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evalkit.core.results import Metric, Result
from evalkit.protocols.folds import assign_folds, val_at_far
from evalkit.stats.comparisons import Figure, PairComparisons
from evalkit.stats.evidence import Array, Bools, damaged, required


class FoldedPairs(PairComparisons):
    """Pairs in folds that each have a threshold of their own.

    Similarities are what readers are shown. Accuracy and VAL decide on the distances themselves,
    because a similarity is rounded.

    Parameters
    ----------
    distances : ndarray of float64, shape (pairs,)
        Squared; not finite where a side failed to enrol.
    genuine : ndarray of bool, shape (pairs,)
    layout : str
        How pairs are laid into folds.
    """

    def __init__(self, distances: Array, genuine: Array, layout: str) -> None:
        self.distances = np.where(np.isnan(distances), np.inf, distances)
        self.fold, _, _ = assign_folds(genuine, layout)  # type: ignore[arg-type]
        strata = 2 * self.fold + genuine.astype(bool)
        super().__init__(1 - self.distances / 2, genuine, strata)

    def threshold(self, at: Metric) -> float | None:
        """See `Comparisons.threshold`: folds have no common one."""
        return None if "fold_distance" in at.series else super().threshold(at)

    def accepted(self, at: Metric) -> Bools | None:
        """See `Comparisons.accepted`."""
        if "fold_distance" not in at.series:
            return super().accepted(at)
        if at.rule == "facexzoo":  # a pair on the threshold is wrong there, accepted or not
            return None
        thresholds = np.array(at.series["fold_distance"], np.float64)[self.fold]
        accepted: Bools = self.distances < thresholds
        return accepted

    def figure(self, metric: Metric) -> Figure | None:
        """See `PairComparisons.figure`."""
        target = metric.at.get("target")
        if metric.figure != "val" or target is None:
            return super().figure(metric)
        return lambda rows: (
            val_at_far(self.distances[rows], self.genuine[rows], self.fold[rows], target).val
        )


def read(arrays: Mapping[str, Array], result: Result) -> dict[str, FoldedPairs]:
    """Make evidence of the arrays beside a result, by view.

    Raises
    ------
    evalkit.core.errors.InputError
        An array is missing, or the arrays do not fit together.
    """
    distances, genuine = required(arrays, "distances", "issame")
    views = {"flip" if result.settings.get("flip") == "sum" else "no flip": distances}
    if "distances_no_flip" in arrays:
        views["no flip"] = arrays["distances_no_flip"]
    try:
        layout = result.settings.get("folds", "")
        return {view: FoldedPairs(values, genuine, layout) for view, values in views.items()}
    except ValueError as error:
        raise damaged(error) from error
