"""Non-inferiority: whether a loss stays within a margin that was fixed beforehand.

The null hypothesis is that the candidate is worse by the margin or more. It is rejected where the
one-sided lower bound of the paired difference lies within the margin [1]_. The opposite claim, that
the loss exceeds the margin, needs the same confidence: the upper bound must lie beyond the margin.
Between the two, the data do not decide.

Where several figures must all pass, each at its full level, the overall claim holds at that level
too (the intersection-union test [2]_). So no correction for multiple tests is needed.

Percentiles alone are too narrow where few units changed, because a bootstrap draws only from what
the data show: where about six lost units are expected, 15 % of verdicts pass wrongly, not 5 %. So
two bounds for rare events widen the interval. `least_width` is exact where no unit changed, about
3 / units [3]_. `loss_width` is a score bound: every further loss adds to the variance [4]_. Both
assume that a loss affects units as a whole. Unequal weights count as Kish's effective number of
equal ones [5]_.

References
----------
.. [1] G. Piaggio et al., "Reporting of noninferiority and equivalence randomized trials", JAMA
   308(24), 2012.
.. [2] R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics
   24(4), 1982.
.. [3] J. A. Hanley, A. Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA
   249(13), 1983; C. J. Clopper, E. S. Pearson, Biometrika 26(4), 1934.
.. [4] E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
   Journal of the American Statistical Association 22(158), 1927.
.. [5] L. Kish, "Survey Sampling", Wiley, 1965, section 11.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from evalkit.stats.paired import difference_interval
from evalkit.stats.subjects import percentile_interval

POWER = 0.8


@dataclass(frozen=True, slots=True)
class Bounds:
    """One-sided bounds of a paired difference, candidate minus reference.

    Attributes
    ----------
    difference : float
    low, high : float
        The truth lies above `low` with the confidence `level`, and below `high` with the same.
    level : float
    detectable : float
        The smallest margin that a candidate without loss would pass with a chance of 80 %: the
        distance of the bound, and the spread of the difference itself.
    """

    difference: float
    low: float
    high: float
    level: float
    detectable: float

    def judged(self, margin: float) -> Literal["pass", "fail", "inconclusive"]:
        """Compare the bounds with a margin.

        Examples
        --------
        >>> Bounds(-0.01, -0.02, 0.0, 0.95, 0.02).judged(0.02)
        'pass'
        >>> Bounds(-0.03, -0.04, -0.02, 0.95, 0.02).judged(0.01)
        'fail'
        """
        if self.low >= -margin:
            return "pass"
        return "fail" if self.high < -margin else "inconclusive"


def least_width(units: int, level: float) -> float:
    """Return how large a share of units may be affected where none of those seen was.

    The exact binomial bound; about ``3 / units`` at 95 %.

    Examples
    --------
    >>> round(least_width(300, 0.95), 5)
    0.00994
    """
    if units < 1:
        raise ValueError(f"{units} units give no bound; at least 1 is needed")
    return float(1 - (1 - level) ** (1 / units))


def effective_number(weights: npt.NDArray[Any]) -> float:
    """Return how many equal weights would vary as these do: Kish's ``sum(w)**2 / sum(w**2)``.

    Examples
    --------
    >>> effective_number(np.array([2.0, 2.0, 2.0])), effective_number(np.array([9.0, 3.0]))
    (3.0, 1.6)
    """
    return float(np.sum(weights, dtype=float) ** 2 / np.sum(np.square(weights, dtype=float)))


def loss_width(spread: float, units: float, level: float) -> float:
    """Return how far below the observed difference the truth may lie, by a score bound.

    A true loss that is larger by ``d`` strikes units that hold the share ``d`` of the weights, and
    adds ``d * sum(w**2) / sum(w)**2``, or ``d / units``, to the variance; the bound is where
    ``d**2 = z**2 * (spread**2 + d / units)``. For the count of lost units, all of one weight, this
    is Wilson's bound for rare events.

    Parameters
    ----------
    spread : float
        Standard error of the difference.
    units : float
        The `effective_number` of their weights.
    level : float
        One-sided.

    Examples
    --------
    >>> round(1000 * loss_width(3**0.5 / 1000, 1000, 0.95), 2)  # three lost; the exact bound: 4.75
    4.51
    """
    z = NormalDist().inv_cdf(level)
    half = z * z / (2 * units)
    return half + math.hypot(half, z * spread)


def from_replicates(
    difference: float,
    replicates: npt.NDArray[np.float64],
    level: float,
    weights: npt.NDArray[Any] | None = None,
) -> Bounds | None:
    """Return bounds from bootstrap replicates of the difference, by percentiles.

    Parameters
    ----------
    difference : float
        As observed.
    replicates : ndarray of float64
        NaN where a draw gave no figure.
    level : float
    weights : ndarray of float or int, optional
        Of the independent units that a lost decision may strike, each above 0: how many decisions
        each has part in. Where few decisions change, a bootstrap is too narrow: it never draws
        what was not seen. With `weights` both bounds lie at least `least_width` from the
        difference, the lower one at least `loss_width` too.

    Returns
    -------
    Bounds or None
        None where fewer than half of the replicates are numbers.

    Examples
    --------
    >>> bounds = from_replicates(0.0, np.zeros(100), 0.95, weights=np.ones(300))
    >>> round(bounds.low, 5), round(bounds.high, 5)
    (-0.00994, 0.00994)
    """
    interval = percentile_interval(replicates, 2 * level - 1)
    if interval is None:
        return None
    spread = float(np.nanstd(replicates))
    low, high = interval.low, interval.high
    if weights is not None:
        least = least_width(len(weights), level)
        loss = loss_width(spread, effective_number(weights), level)
        low = min(low, difference - max(least, loss))
        high = max(high, difference + least)
    return Bounds(difference, low, high, level, _detectable(difference, low, spread))


def from_decisions(gained: int, lost: int, trials: int, level: float) -> Bounds:
    """Return bounds of the change of a share of right decisions, by Tango's score method.

    Parameters
    ----------
    gained, lost : int
        Decisions that became right, and that became wrong, of `trials`.

    Examples
    --------
    >>> bounds = from_decisions(2, 4, 1000, 0.95)
    >>> bounds.difference, bounds.judged(0.01)
    (-0.002, 'pass')
    """
    low, high = difference_interval(gained, lost, trials, 2 * level - 1)
    difference = (gained - lost) / trials
    spread = float(np.sqrt((gained + lost) / trials - difference**2) / np.sqrt(trials))
    return Bounds(difference, low, high, level, _detectable(difference, low, spread))


def _detectable(difference: float, low: float, spread: float) -> float:
    return difference - low + NormalDist().inv_cdf(POWER) * spread
