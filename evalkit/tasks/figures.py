"""Figures that several tasks have: their names, counts and flags."""

from __future__ import annotations

from evalkit.core.results import Interval, Metric
from evalkit.protocols.roc import MIN_EXPECTED_FALSE_ACCEPTS, OperatingPoint
from evalkit.stats.subjects import PercentileInterval

TOO_FEW_FALSE_ACCEPTS = "too_few_false_accepts"


def rate_name(target: float) -> str:
    """Return a target rate as metrics name it: the shortest exponent form that is exact.

    Examples
    --------
    >>> rate_name(1e-4), rate_name(0.00025), rate_name(0.12)
    ('1e-04', '2.5e-04', '1.2e-01')
    """
    forms = (f"{target:.{digits}e}" for digits in range(17))
    return next(form for form in forms if float(form) == target)


def tar_metric(
    point: OperatingPoint, interval: Interval | None = None, *, headline: bool = False
) -> Metric:
    """Return the true accept rate at a false accept rate."""
    return Metric(
        name=f"tar@far={rate_name(point.target)}",
        figure="tar",
        value=point.tar,
        rule=point.rule,
        interval=interval,
        counts=accept_counts(
            point.true_accepts, point.genuine, point.false_accepts, point.impostors
        ),
        share=("true_accepts", "genuine"),
        # A point between two of the curve has the target for its FAR; its threshold has not.
        at={
            "target": point.target,
            "achieved": point.false_accepts / point.impostors,
            "similarity": point.threshold,
        },
        headline=headline,
        flags=few_false_accepts(point.target, point.impostors),
    )


def accept_counts(
    true_accepts: int, genuine: int, false_accepts: int, impostors: int
) -> dict[str, int]:
    """Name the counts behind a rate of accepted comparisons."""
    return {
        "true_accepts": true_accepts,
        "genuine": genuine,
        "false_accepts": false_accepts,
        "impostors": impostors,
    }


def few_false_accepts(target: float, impostors: int) -> tuple[str, ...]:
    """Return the flag of a rate that too few false accepts are expected at, if it needs it."""
    few = target * impostors < MIN_EXPECTED_FALSE_ACCEPTS
    return (TOO_FEW_FALSE_ACCEPTS,) if few else ()


def all_alike_interval(trials: int, level: float, *, success: bool) -> tuple[float, float]:
    """Clopper and Pearson's interval where all trials succeeded, or none did.

    Examples
    --------
    >>> low, high = all_alike_interval(10, 0.95, success=True)
    >>> round(low, 4), high
    (0.6915, 1.0)
    """
    far = ((1 - level) / 2) ** (1 / trials)
    return (far, 1.0) if success else (0.0, 1 - far)


def subject_interval(
    rate: float, bounds: PercentileInterval, method: str, subjects: int
) -> Interval:
    """Return the interval of a rate over subjects.

    If all comparisons end alike, every draw gives the same rate, and percentiles have no width. The
    subjects are then trials that all ended alike, and Clopper and Pearson's interval holds [1]_. It
    errs to the wide side: a subject with one other outcome counts as if all its outcomes differed.

    Parameters
    ----------
    rate : float
        As observed.
    bounds : PercentileInterval
        Of the rate in the draws.
    method : str
        How the draws were made.
    subjects : int
        Those with genuine comparisons.

    References
    ----------
    .. [1] C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in
       the case of the binomial", Biometrika 26(4), 1934.
    """
    low, high = bounds.low, bounds.high
    if low == high and rate in (0.0, 1.0):
        low, high = all_alike_interval(subjects, bounds.level, success=rate == 1)
        method = f"Clopper-Pearson, {subjects} subjects all alike"
    elif low == high:
        method += ", degenerate: all draws alike"
    return Interval(low=low, high=high, level=bounds.level, method=method)
