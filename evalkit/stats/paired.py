"""Paired tests and intervals over pairs, for data without identities.

They take the pairs as independent. A person may be in several pairs, so the intervals are somewhat
too narrow; results label them pair-level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binomtest

LEVEL = 0.95
PAIR_REPLICATES = 1000
_NUDGE = 1e-12
_KEPT_ROWS = 1 << 24


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two models' decisions on the same pairs.

    Attributes
    ----------
    lost, gained : int
        Right before and wrong now; wrong before and right now.
    trials : int
        All pairs.
    difference : float
        Change of the share that is right.
    low, high : float
        Its interval by Tango's score method.
    level : float
    p_value : float
        Exact, two-sided: whether losses and gains are equally likely.
    """

    lost: int
    gained: int
    trials: int
    difference: float
    low: float
    high: float
    level: float
    p_value: float


def mcnemar(
    before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], level: float = LEVEL
) -> McNemar:
    """Compare two models' decisions on the same pairs.

    Parameters
    ----------
    before, after : ndarray of bool, shape (n_pairs,)
        Whether each decision is right.
    level : float

    Raises
    ------
    ValueError
        The shapes differ, or there is no pair.

    Examples
    --------
    >>> before, after = np.array([1, 1, 1, 0], bool), np.array([0, 0, 0, 1], bool)
    >>> test = mcnemar(before, after)
    >>> test.lost, test.gained, test.difference, test.p_value
    (3, 1, -0.5, 0.625)
    """
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise ValueError(f"decisions of shapes {before.shape} and {after.shape} are not paired")
    lost = int(np.count_nonzero(before & ~after))
    gained = int(np.count_nonzero(~before & after))
    low, high = difference_interval(gained, lost, before.size, level)
    changed = lost + gained
    return McNemar(
        lost=lost,
        gained=gained,
        trials=before.size,
        difference=(gained - lost) / before.size,
        low=low,
        high=high,
        level=level,
        p_value=float(binomtest(lost, changed).pvalue) if changed else 1.0,
    )


def difference_interval(
    gained: int, lost: int, trials: int, level: float = LEVEL
) -> tuple[float, float]:
    """Tango's score interval of a difference of paired proportions [1]_.

    It keeps its coverage where few decisions change, and has a width where none does: there a
    bootstrap would say that the difference is exactly 0.

    Parameters
    ----------
    gained, lost : int
        Decisions that changed, of `trials`; the difference is ``(gained - lost) / trials``.

    References
    ----------
    .. [1] T. Tango, "Equivalence test and confidence interval for the difference in proportions
       for the paired-sample design", Statistics in Medicine 17(8), 1998.

    Examples
    --------
    >>> low, high = difference_interval(0, 0, 500)
    >>> round(low, 5), round(high, 5)
    (-0.00762, 0.00762)
    """
    if min(gained, lost) < 0 or trials < 1 or gained + lost > trials:
        raise ValueError(f"{gained} gained and {lost} lost of {trials} are impossible counts")
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}; it must lie between 0 and 1")
    z = NormalDist().inv_cdf((1 + level) / 2)
    observed = (gained - lost) / trials

    def excess(difference: float, bound: float) -> float:
        spread = trials * (
            2 * _lost_share(gained, lost, trials, difference) + difference * (1 - difference)
        )
        return gained - lost - trials * difference - bound * math.sqrt(max(spread, 0.0))

    # Where nothing changed, the figure itself is a second root, which is not the bound.
    below, above = observed - _NUDGE, observed + _NUDGE
    low = -1.0 if below <= -1 else float(brentq(excess, -1, below, args=(z,), xtol=1e-14))
    high = 1.0 if above >= 1 else float(brentq(excess, above, 1, args=(-z,), xtol=1e-14))
    return low, high


def _lost_share(gained: int, lost: int, trials: int, difference: float) -> float:
    """Return the likeliest share of losses where the true difference is `difference`."""
    linear = -gained - lost + (2 * trials - gained + lost) * difference
    constant = -lost * difference * (1 - difference)
    root = math.sqrt(max(linear * linear - 8 * trials * constant, 0.0))
    return (root - linear) / (4 * trials)


class PairDraws:
    """Draws of pairs with replacement: each iteration gives the same rows again, sorted.

    Parameters
    ----------
    strata : ndarray of int, shape (n_pairs,)
        Pairs of one stratum are drawn among themselves, so that what the data set fixes (the
        number of pairs of each kind in each fold) stays fixed.
    replicates, seed : int
    """

    def __init__(
        self, strata: npt.NDArray[Any], replicates: int = PAIR_REPLICATES, seed: int = 0
    ) -> None:
        self.replicates, self.seed = replicates, seed
        self._members = [np.flatnonzero(strata == name) for name in np.unique(strata)]
        self._kept: list[npt.NDArray[np.int32]] = []
        self._fits = len(strata) * replicates <= _KEPT_ROWS

    @property
    def method(self) -> str:
        """See `evalkit.stats.evidence.Draws`."""
        return f"pair bootstrap, {self.replicates} draws, seed {self.seed}, percentile, pair-level"

    def __iter__(self) -> Iterator[npt.NDArray[np.integer[Any]]]:
        """Yield the rows of each draw."""
        if self._fits and not self._kept:
            self._kept = [rows.astype(np.int32) for rows in self._drawn()]
        yield from self._kept or self._drawn()

    def _drawn(self) -> Iterator[npt.NDArray[np.intp]]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.replicates):
            yield np.sort(
                np.concatenate(
                    [rows[rng.integers(len(rows), size=len(rows))] for rows in self._members]
                )
            )
