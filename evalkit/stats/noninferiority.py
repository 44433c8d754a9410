"""Non-inferiority: whether a loss stays within a margin that was fixed beforehand.

The hypothesis to be refuted is that the candidate is worse by the margin or more. It is refuted
where the one-sided lower bound of the paired difference lies within the margin [1]_. The opposite
claim, that the margin is exceeded, wants the same confidence: the upper bound must lie beyond it.
Between the two the data do not decide.

Where several figures must all pass, each at its full level, the overall claim holds at that level
too (the intersection-union test [2]_): no correction for multiplicity is due.

References
----------
.. [1] G. Piaggio et al., "Reporting of noninferiority and equivalence randomized trials", JAMA
   308(24), 2012.
.. [2] R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics
   24(4), 1982.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

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
        """Hold the bounds against a margin.

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


def from_replicates(
    difference: float,
    replicates: npt.NDArray[np.float64],
    level: float,
    units: int | None = None,
) -> Bounds | None:
    """Return bounds from bootstrap replicates of the difference, by percentiles.

    Parameters
    ----------
    difference : float
        As observed.
    replicates : ndarray of float64
        NaN where a draw gave no figure.
    level : float
    units : int, optional
        How many independent units a lost decision may strike. Where hardly any decision changes, a
        bootstrap has no width: it never draws what was not seen. With `units` the bounds lie at
        least `least_width` from the difference.

    Returns
    -------
    Bounds or None
        None where fewer than half of the replicates are numbers.

    Examples
    --------
    >>> bounds = from_replicates(0.0, np.zeros(100), 0.95, units=300)
    >>> round(bounds.low, 5), round(bounds.high, 5)
    (-0.00994, 0.00994)
    """
    found = percentile_interval(replicates, 2 * level - 1)
    if found is None:
        return None
    width = 0.0 if units is None else least_width(units, level)
    low, high = min(found.low, difference - width), max(found.high, difference + width)
    spread = float(np.nanstd(replicates))
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
