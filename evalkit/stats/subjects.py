"""The bootstrap over subjects of comparisons between pairs of templates.

Comparisons that share a person are not independent, so an interval over pairs is far too narrow.
Here persons are drawn with replacement. One draw gives every subject a weight ``w`` (how often it
was drawn); a genuine comparison of subject ``i`` weighs ``w[i]``, an impostor comparison of ``i``
with ``j`` weighs ``w[i] * w[j]``, and every draw has its own threshold. This is the
subsets bootstrap of Bolle et al. [1]_ with the product weights of Owen's pigeonhole bootstrap [2]_
for comparisons that belong to two subjects at once; it errs to the wide side.

Only the impostor scores around the threshold are weighed one by one. The mass of all others is
the quadratic form ``w' C w``, where ``C`` counts the comparisons of each two subjects. The result
is exact; only its cost depends on how far down the threshold lies.

References
----------
.. [1] R. M. Bolle, N. K. Ratha, S. Pankanti, "Error analysis of pattern recognition systems: the
   subsets bootstrap", Computer Vision and Image Understanding 93(1), 2004.
.. [2] A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array

from evalkit.protocols.roc import most_accepts

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

REPLICATES = 2000
LEVEL = 0.95
_WALKED_AT_MOST = 100_000
_BLOCK_CELLS = 1 << 22
_DENSE_SUBJECTS = 8192
_WIDEST_TABLE = 1 << 24


class SubjectBootstrap:
    """One set of draws of subjects, to be applied to the scores of any number of models.

    Models scored under the same draws differ only by what the models do: their differences,
    replicate by replicate, give paired intervals.

    Parameters
    ----------
    pairs : ndarray of int, shape (n_pairs, 2)
        Template ids.
    genuine : ndarray of bool, shape (n_pairs,)
    template_id : ndarray of int, shape (n_templates,)
        Every template of the pairs, each once.
    subject_id : ndarray of int, shape (n_templates,)
        The subject of each.
    replicates : int
    seed : int
        The draws are multinomial: as many as there are subjects, from `numpy`'s PCG64.
    each_once : bool
        Take every subject once instead, in every draw.

    Raises
    ------
    ValueError
        A pair names an unknown template, a class of comparisons is empty, or there are fewer than
        two subjects.
    """

    def __init__(
        self,
        pairs: Ints,
        genuine: npt.NDArray[np.bool_],
        template_id: Ints,
        subject_id: Ints,
        *,
        replicates: int = REPLICATES,
        seed: int = 0,
        each_once: bool = False,
    ) -> None:
        if replicates < 1:
            raise ValueError(f"{replicates} replicates give no interval; use at least 1")
        sides, subjects = subjects_of(pairs, template_id, subject_id)
        self.subjects = subjects
        self._genuine = np.flatnonzero(genuine)
        self._impostors = np.flatnonzero(~np.asarray(genuine, bool))
        if subjects < 2 or not self._genuine.size or not self._impostors.size:
            raise ValueError(
                f"{subjects} subjects, {self._genuine.size} genuine and {self._impostors.size} "
                "impostor pairs: a bootstrap needs two subjects and both kinds of pairs"
            )
        self.seed = seed
        shares = np.full(subjects, 1 / subjects)
        self.weights = np.ones((replicates, subjects), np.int32)
        if not each_once:
            drawn = np.random.default_rng(seed).multinomial(subjects, shares, replicates)
            self.weights = drawn.astype(np.int32)
        self._own = sides[self._genuine, 0]
        self._first, self._second = sides[self._impostors].T.copy()
        self._mass = _masses(self._first, self._second, self.weights)
        self._genuine_mass = self.weights @ np.bincount(self._own, minlength=subjects)

    @property
    def method(self) -> str:
        """How intervals from these draws are made, for results."""
        return f"subject bootstrap, {self.replicates} draws, seed {self.seed}, percentile"

    @property
    def replicates(self) -> int:
        """How many draws there are."""
        return len(self.weights)

    def tar(self, scores: Floats, targets: Sequence[float]) -> npt.NDArray[np.float64]:
        """Return the TAR at each target FAR in every draw, by the rule ``at_most``.

        Parameters
        ----------
        scores : ndarray of float, shape (n_pairs,)
            Not finite means failure to enrol: refused, but counted.
        targets : sequence of float
            FARs, from 0 to 1.

        Returns
        -------
        ndarray of float64, shape (n_targets, replicates)
            NaN in a draw without genuine or without impostor comparisons.
        """
        if not targets:
            return np.empty((0, self.replicates))
        tail = _Tail(self._scores(scores, self._impostors), max(targets))
        barriers = np.stack([self._barriers(tail, target) for target in targets])
        return self._shares_above(self._scores(scores, self._genuine), barriers)

    def rates(
        self, scores: Floats, threshold: float
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return FAR and TAR at a fixed threshold in every draw: ``score >= threshold`` accepts.

        Returns
        -------
        far, tar : ndarray of float64, shape (replicates,)
            NaN in a draw without such comparisons.
        """
        let_in = np.flatnonzero(self._scores(scores, self._impostors) >= threshold)
        false = _masses(self._first[let_in], self._second[let_in], self.weights)
        accepted = self._own[self._scores(scores, self._genuine) >= threshold]
        true = self.weights @ np.bincount(accepted, minlength=self.subjects)
        return _ratio(false, self._mass), _ratio(true, self._genuine_mass)

    def _scores(self, scores: Floats, rows: npt.NDArray[np.intp]) -> Floats:
        values = scores[rows]
        finite = np.isfinite(values)
        return values if finite.all() else np.where(finite, values, values.dtype.type(-np.inf))

    def _barriers(self, tail: _Tail, target: float) -> npt.NDArray[np.float64]:
        """Return each draw's highest impostor score that must be refused."""
        total = len(self._impostors)
        allowed = np.array([most_accepts(target, int(m)) if m else 0 for m in self._mass])
        low, high = _bracket(target, total)
        while True:
            order = tail.order(high)
            first, second = self._first[order], self._second[order]
            head = _masses(first[:low], second[:low], self.weights)
            if (head > allowed).any():
                low //= 2
                continue
            barriers, complete = self._walk(
                first[low:], second[low:], allowed - head, tail.scores[order[low:]]
            )
            if complete or high >= total:
                return barriers
            high = min(2 * high, total)

    def _walk(
        self, first: Ints, second: Ints, allowed: Ints, scores: Floats
    ) -> tuple[npt.NDArray[np.float64], bool]:
        """Go down the scores until the mass exceeds what is allowed."""
        barriers = np.full(self.replicates, -np.inf)
        complete = True
        for row, weights in enumerate(self.weights):
            mass = np.cumsum(weights.take(first) * weights.take(second), dtype=np.int64)
            place = int(np.searchsorted(mass, allowed[row], "right"))
            if place < len(scores):
                barriers[row] = scores[place]
            elif self._mass[row]:
                complete = False
        return barriers, complete

    def _shares_above(
        self, scores: Floats, barriers: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return the weighted share of genuine scores above each barrier."""
        order = np.argsort(scores)[::-1]
        own = self._own[order]
        accepted = len(scores) - np.searchsorted(scores[order][::-1], barriers, "right")
        shares = np.full(barriers.shape, np.nan)
        for row, weights in enumerate(self.weights):
            if self._genuine_mass[row] and self._mass[row]:
                mass = np.concatenate([[0], np.cumsum(weights.take(own), dtype=np.int64)])
                shares[:, row] = mass[accepted[:, row]] / self._genuine_mass[row]
        return shares


class _Tail:
    """The highest scores in descending order, sorted only as deep as needed."""

    def __init__(self, scores: Floats, deepest: float) -> None:
        self.scores = scores
        self._order: npt.NDArray[np.intp] = np.empty(0, np.intp)
        self.order(_bracket(deepest, len(scores))[1])

    def order(self, count: int) -> npt.NDArray[np.intp]:
        """Return the rows of the `count` highest scores."""
        if count > len(self._order):
            rows = np.arange(len(self.scores))
            if count < len(rows):
                rows = np.argpartition(self.scores, len(rows) - count)[len(rows) - count :]
            self._order = rows[np.argsort(self.scores[rows])[::-1]]
        return self._order[:count]


def _bracket(target: float, total: int) -> tuple[int, int]:
    """Guess between which ranks the thresholds of all draws lie; a wrong guess is widened."""
    expected = target * total
    high = min(total, int(1.3 * expected) + 200)
    return (int(0.8 * expected) if high > _WALKED_AT_MOST else 0), high


def subjects_of(
    pairs: Ints, template_id: Ints, subject_id: Ints
) -> tuple[npt.NDArray[np.int32], int]:
    """Return the subject of both sides of each pair, numbered from 0, and how many there are."""
    ids, subjects = np.asarray(template_id), np.asarray(subject_id)
    unknown = "a pair names a template without a subject"
    if not len(ids) or (len(pairs) and not ids.min() <= pairs.min() <= pairs.max() <= ids.max()):
        raise ValueError(unknown)
    names, numbers = np.unique(subjects, return_inverse=True)
    lowest = int(ids.min())
    if int(ids.max()) - lowest < _WIDEST_TABLE:  # a table is thirty times as fast as a search
        table = np.full(int(ids.max()) - lowest + 1, -1, np.int32)
        table[ids - lowest] = numbers
        sides = table[pairs - lowest]
    else:
        order = np.argsort(ids)
        rows = order[np.searchsorted(ids, pairs, sorter=order)]
        sides = np.where(ids[rows] == pairs, numbers[rows], -1).astype(np.int32)
    if (sides < 0).any():
        raise ValueError(unknown)
    return sides, len(names)


def _masses(first: Ints, second: Ints, weights: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Return ``w' C w`` for each row of weights: the mass of the comparisons.

    All numbers are whole and far below 2**53, so float64 holds them exactly.
    """
    subjects = weights.shape[1]
    masses = np.empty(len(weights), np.int64)
    dense = subjects <= _DENSE_SUBJECTS and 20 * len(first) > subjects**2
    if dense:
        cells = first.astype(np.int64) * subjects + second
        counts: Any = np.bincount(cells, minlength=subjects**2).reshape(subjects, subjects)
        counts = counts.astype(np.float64)
    else:
        shape = (subjects, subjects)
        counts = coo_array((np.ones(len(first)), (first, second)), shape=shape).tocsr()
    step = max(1, _BLOCK_CELLS // subjects)
    for start in range(0, len(weights), step):
        block = weights[start : start + step].astype(np.float64)
        sums = block @ counts if dense else (counts.T @ block.T).T
        masses[start : start + step] = np.einsum("bs,bs->b", sums, block)
    return masses


def _ratio(part: Ints, whole: Ints) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = np.full(len(whole), np.nan)
    return np.divide(part, whole, out=shares, where=whole > 0)


@dataclass(frozen=True, slots=True)
class PercentileInterval:
    """An interval from bootstrap replicates.

    Attributes
    ----------
    low, high : float
        The quantiles that leave half of ``1 - level`` on either side.
    level : float
    """

    low: float
    high: float
    level: float


def percentile_interval(
    replicates: npt.NDArray[np.float64], level: float = LEVEL
) -> PercentileInterval | None:
    """Return the percentile interval of replicates; NaN ones are left out.

    None if fewer than half of the replicates are numbers: an interval of the others would be of a
    selection.

    Examples
    --------
    >>> percentile_interval(np.arange(101.0), 0.5)
    PercentileInterval(low=25.0, high=75.0, level=0.5)
    """
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; it must lie between 0 and 1")
    usable = replicates[~np.isnan(replicates)]
    if 2 * len(usable) < len(replicates) or not len(usable):
        return None
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return PercentileInterval(float(low), float(high), level)


def tar_intervals(
    bootstrap: SubjectBootstrap, scores: Floats, targets: Sequence[float], level: float = LEVEL
) -> tuple[PercentileInterval | None, ...]:
    """Return the interval of the TAR at each target FAR, rule ``at_most``.

    Examples
    --------
    >>> pairs = np.array([[0, 1], [2, 3], [4, 5], [0, 2], [3, 4]])
    >>> genuine = np.array([True, True, True, False, False])
    >>> bootstrap = SubjectBootstrap(pairs, genuine, np.arange(6), np.repeat([7, 8, 9], 2))
    >>> (interval,) = tar_intervals(bootstrap, np.array([0.9, 0.2, 0.8, 0.4, 0.1]), [0.0])
    >>> round(interval.low, 3), interval.high
    (0.333, 1.0)
    """
    replicates = bootstrap.tar(scores, targets)
    return tuple(percentile_interval(row, level) for row in replicates)
