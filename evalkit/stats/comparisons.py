"""Evidence of comparisons of faces: similarities, and which are of one person.

`SubjectComparisons` draws people, `PairComparisons` draws pairs where nobody says who is who. Both
accept a comparison when its similarity is at least a threshold. A task whose rules differ
overrides `accepted`; a task with figures of its own overrides `PairComparisons.figure`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from evalkit.core.results import Metric
from evalkit.protocols.roc import auc, eer, tar_at_far
from evalkit.stats.evidence import (
    Array,
    Bools,
    Decisions,
    Evidence,
    Floats,
    Rates,
    damaged,
    foreign,
)
from evalkit.stats.paired import PAIR_REPLICATES, PairDraws
from evalkit.stats.subjects import REPLICATES, SubjectBootstrap, subjects_of

Rows = npt.NDArray[np.integer[Any]]
Figure = Callable[[Rows], float]

_TAR: Final = frozenset({"tar", "fnmr"})
"""A rate of accepted genuine pairs, and FNMR, which is one minus it."""

_SHARES: Final = frozenset({("true_accepts", "genuine"), ("correct", "pairs")})
"""Shares of single decisions; others are of searches."""


class Comparisons(Evidence):
    """What both units share: similarities, and decisions by them.

    Parameters
    ----------
    similarity : ndarray of float, shape (comparisons,)
        Not finite where a side failed to enrol: refused at every threshold.
    genuine : ndarray of bool, shape (comparisons,)

    Raises
    ------
    ValueError
        The shapes differ.
    """

    def __init__(self, similarity: Array, genuine: Array) -> None:
        if similarity.ndim != 1 or similarity.shape != genuine.shape:
            raise ValueError(f"scores of shape {similarity.shape} are not of {genuine.size} pairs")
        finite = np.isfinite(similarity)
        lowest = similarity.dtype.type(-np.inf)
        self.similarity = similarity if finite.all() else np.where(finite, similarity, lowest)
        self.genuine: Bools = genuine.astype(bool, copy=False)

    def label(self, row: int) -> str:
        """Name a comparison for a reader."""
        return f"pair {row}"

    def scores(self, rows: Rows | slice = slice(None)) -> tuple[Array, Array]:
        """Return the similarities of rows: those of genuine pairs, and the others."""
        similarity, genuine = self.similarity[rows], self.genuine[rows]
        return similarity[genuine], similarity[~genuine]

    def threshold(self, at: Metric) -> float | None:
        """Return the one threshold that a metric has for all comparisons; None if it has none."""
        return at.at.get("similarity") if at.share in _SHARES else None

    def accepted(self, at: Metric) -> Bools | None:
        """Return which comparisons are accepted at a metric's thresholds; None if it has none."""
        threshold = self.threshold(at)
        if threshold is None:
            return None
        accepted: Bools = self.similarity >= threshold
        return accepted

    def decisions(self, metric: Metric, at: Metric) -> Decisions | None:
        """See `Evidence.decisions`."""
        accepted = self.accepted(at)
        if accepted is None or metric.share not in _SHARES:
            return None
        decisions = Decisions(accepted, self.genuine, self.similarity, self.label)
        # An interpolated point lies beside its threshold's.
        if at is metric and metric.rule != "interpolated":
            successes = metric.share[0]
            counted = decisions.right if successes == "correct" else accepted & self.genuine
            if np.count_nonzero(counted) != metric.counts[successes]:
                raise foreign(metric)
        return decisions

    def rates(self, at: Metric, draws: Any = None) -> Rates | None:
        """See `Evidence.rates`."""
        accepted = self.accepted(at)
        if accepted is None:
            return None
        genuine = accepted[self.genuine]
        return Rates(
            fmr=float(np.mean(accepted[~self.genuine])),
            fnmr=float(np.mean(~genuine)),
            tar=float(np.mean(genuine)),
            similarity=self.threshold(at),
        )


class SubjectComparisons(Comparisons):
    """Comparisons of templates whose subjects are known; subjects are drawn.

    Parameters
    ----------
    similarity, genuine
        See `Comparisons`.
    pairs : ndarray of int, shape (comparisons, 2)
        Template ids.
    template_id, subject_id : ndarray of int, shape (templates,)
        Every template of the pairs, once, and its subject.
    targets : sequence of float
        FARs whose TARs a verdict asks for: they share most of their cost.
    """

    unit = "subject"

    def __init__(
        self,
        similarity: Array,
        genuine: Array,
        pairs: Array,
        template_id: Array,
        subject_id: Array,
        targets: Sequence[float] = (),
    ) -> None:
        super().__init__(similarity, genuine)
        if pairs.shape != (len(similarity), 2) or template_id.shape != subject_id.shape:
            raise ValueError(f"pairs of shape {pairs.shape} do not fit the scores or the subjects")
        self.pairs, self.template_id, self.subject_id = pairs, template_id, subject_id
        self.targets = tuple(targets)
        self._under: tuple[SubjectBootstrap, dict[float, Floats]] | None = None

    def label(self, row: int) -> str:
        """See `Comparisons.label`."""
        return f"templates {self.pairs[row, 0]} and {self.pairs[row, 1]}"

    def weights(self, metric: Metric) -> Array:
        """See `Evidence.weights`: genuine comparisons of each subject."""
        sides, _ = subjects_of(self.pairs[self.genuine], self.template_id, self.subject_id)
        return np.unique(sides[:, 0], return_counts=True)[1]

    def unpaired(self, other: Self) -> str:
        """See `Evidence.unpaired`."""
        for name in ("pairs", "genuine", "template_id", "subject_id"):
            if not np.array_equal(getattr(self, name), getattr(other, name)):
                return f"they compared different pairs: their {name} differ"
        return ""

    def draw(self, replicates: int | None = None, seed: int = 0) -> SubjectBootstrap | None:
        """See `Evidence.draw`.

        Raises
        ------
        evalkit.core.errors.InputError
            A pair names a template without a subject.
        """
        return self._bootstrap(replicates or REPLICATES, seed)

    def once(self) -> SubjectBootstrap | None:
        """See `Evidence.once`."""
        return self._bootstrap(1, each_once=True)

    def _bootstrap(
        self, replicates: int, seed: int = 0, *, each_once: bool = False
    ) -> SubjectBootstrap | None:
        one_kind = self.genuine.all() or not self.genuine.any()
        if one_kind or len(np.unique(self.subject_id)) < 2:
            return None
        try:
            return SubjectBootstrap(
                self.pairs,
                self.genuine,
                self.template_id,
                self.subject_id,
                replicates=replicates,
                seed=seed,
                each_once=each_once,
            )
        except ValueError as error:
            raise damaged(error) from error

    def replicates(self, metric: Metric, draws: SubjectBootstrap) -> Floats | None:
        """See `Evidence.replicates`: TAR or FNMR by the rule ``at_most``."""
        target = metric.at.get("target")
        if metric.figure not in _TAR or metric.rule != "at_most" or target is None:
            return None
        tar = self._tar(target, draws)
        return 1 - tar if metric.figure == "fnmr" else tar

    def _tar(self, target: float, draws: SubjectBootstrap) -> Floats:
        """Return the TAR in every draw, remembered for the last draws."""
        if self._under is None or self._under[0] is not draws:
            self._under = draws, {}
        rows = self._under[1]
        if target not in rows:
            targets = self.targets if target in self.targets else (target,)
            rows |= dict(zip(targets, draws.tar(self.similarity, targets), strict=True))
        return rows[target]

    def rates(self, at: Metric, draws: SubjectBootstrap | None = None) -> Rates | None:
        """See `Evidence.rates`."""
        rates, threshold = super().rates(at), self.threshold(at)
        if rates is None or threshold is None or draws is None:
            return rates
        fmr, tar = draws.rates(self.similarity, threshold)
        return replace(rates, fmr_draws=fmr, tar_draws=tar)


class PairComparisons(Comparisons):
    """Comparisons of pairs that are taken as independent; pairs are drawn.

    Parameters
    ----------
    similarity, genuine
        See `Comparisons`.
    strata : ndarray of int, shape (comparisons,), optional
        Pairs of one stratum are drawn among themselves; the two kinds of pairs if not given.
    """

    unit = "pair"

    def __init__(self, similarity: Array, genuine: Array, strata: Array | None = None) -> None:
        super().__init__(similarity, genuine)
        self.strata = self.genuine if strata is None else strata

    def weights(self, metric: Metric) -> Array:
        """See `Evidence.weights`: one decision a pair, of all pairs or of the genuine."""
        every = metric.share is not None and metric.share[1] == "pairs"
        return np.ones(self.genuine.size if every else np.count_nonzero(self.genuine))

    def unpaired(self, other: Self) -> str:
        """See `Evidence.unpaired`."""
        same = np.array_equal(self.genuine, other.genuine)
        return "" if same else "they compared different pairs: their labels differ"

    def draw(self, replicates: int | None = None, seed: int = 0) -> PairDraws:
        """See `Evidence.draw`."""
        return PairDraws(self.strata, replicates or PAIR_REPLICATES, seed)

    def once(self) -> PairDraws:
        """See `Evidence.once`: each pair is drawn from itself alone."""
        return PairDraws(np.arange(len(self.genuine)), 1)

    def replicates(self, metric: Metric, draws: PairDraws) -> Floats | None:
        """See `Evidence.replicates`."""
        figure = self.figure(metric)
        return None if figure is None else np.array([figure(rows) for rows in draws])

    def figure(self, metric: Metric) -> Figure | None:
        """Return what computes a metric on some rows; None if nothing does."""
        target = metric.at.get("target")
        if metric.figure in _TAR and metric.rule == "at_most" and target is not None:
            return partial(self._tar, target, missed=metric.figure == "fnmr")
        if metric.figure == "auc":
            return lambda rows: auc(*self.scores(rows))
        if metric.figure == "eer":
            return lambda rows: eer(*self.scores(rows)).eer
        return None

    def _tar(self, target: float, rows: Rows, *, missed: bool) -> float:
        tar = tar_at_far(*self.scores(rows), [target])[0].tar
        return 1 - tar if missed else tar
