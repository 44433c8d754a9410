"""One-sided bounds and the verdicts made from them."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from evalkit.stats.noninferiority import (
    Bounds,
    from_decisions,
    from_replicates,
    least_width,
    loss_width,
)
from evalkit.stats.paired import difference_interval


def test_the_least_width_is_the_exact_binomial_bound() -> None:
    for units in (1, 10, 300, 3531):
        assert least_width(units, 0.95) == pytest.approx(beta.ppf(0.95, 1, units))
    with pytest.raises(ValueError, match="at least 1"):
        least_width(0, 0.95)


def test_bounds_of_replicates_are_their_quantiles_where_they_are_wide() -> None:
    replicates = np.random.default_rng(0).normal(-0.01, 0.005, 4001)
    bounds = from_replicates(-0.01, replicates, 0.95)
    assert bounds is not None
    assert [bounds.low, bounds.high] == pytest.approx(np.quantile(replicates, [0.05, 0.95]))
    near = from_replicates(-0.01, replicates, 0.95, weights=np.ones(10_000))
    assert near is not None
    assert near.high == bounds.high
    assert near.low == -0.01 - loss_width(float(replicates.std()), 10_000, 0.95) < bounds.low
    z = NormalDist().inv_cdf
    # With a normal spread this is the textbook's (z of the level + z of the power) * sigma.
    assert bounds.detectable == pytest.approx((z(0.95) + z(0.8)) * 0.005, rel=0.05)


def test_where_nothing_changed_the_bounds_keep_a_width() -> None:
    bounds = from_replicates(0.0, np.zeros(100), 0.95, weights=np.ones(200))
    assert bounds is not None
    assert -bounds.low == bounds.high == bounds.detectable == least_width(200, 0.95)
    assert bounds.judged(0.01) == "inconclusive"
    assert bounds.judged(0.02) == "pass"
    assert from_replicates(0.0, np.full(100, np.nan), 0.95) is None


def test_the_width_of_a_loss_solves_its_equation() -> None:
    for spread in (0.0, 1e-4, 0.02):
        width = loss_width(spread, 300, 0.95)
        z = NormalDist().inv_cdf(0.95)
        assert width**2 == pytest.approx(z**2 * (spread**2 + width / 300))
    assert loss_width(0.02, 10**9, 0.95) == pytest.approx(z * 0.02, rel=1e-4)


def test_a_loss_of_the_margin_passes_at_the_nominal_rate_however_few_units_it_strikes() -> None:
    units, level, most = 1000, 0.95, 90
    rng = np.random.default_rng(0)
    lows = []
    for lost in range(most):
        replicates = -rng.binomial(units, lost / units, 4000) / units
        bounds = from_replicates(-lost / units, replicates, level, np.ones(units))
        assert bounds is not None
        lows.append(bounds.low)
    for expected in np.arange(1, 60, 0.5):
        passing = np.flatnonzero(np.array(lows) >= -expected / units)
        wrong = binom.cdf(passing.max(), units, expected / units) if len(passing) else 0.0
        # Percentiles alone would pass 15 % where six are expected, and all where three are.
        assert wrong <= 0.065, expected


@pytest.mark.parametrize("expected", [6, 20])
def test_so_it_does_where_units_weigh_very_unequally(expected: int) -> None:
    units, level, draws = 1000, 0.95, 300
    rng = np.random.default_rng(expected)
    wrong = percentile = 0
    for _ in range(draws):
        weights = rng.lognormal(0, 1, units)
        hit = np.flatnonzero(rng.random(units) < expected / units)
        drawn = rng.poisson(1, (500, units)).astype(np.float32)
        replicates = -(drawn[:, hit] @ weights[hit]) / (drawn @ weights.astype(np.float32))
        difference = -weights[hit].sum() / weights.sum()
        bounds = from_replicates(difference, replicates, level, weights)
        assert bounds is not None
        wrong += bounds.judged(expected / units) == "pass"
        percentile += np.quantile(replicates, 1 - level) >= -expected / units
    assert percentile / draws > 0.1
    assert wrong / draws <= 0.07


def test_bounds_of_decisions_are_tangos_at_twice_the_tail() -> None:
    bounds = from_decisions(3, 9, 500, 0.95)
    assert (bounds.low, bounds.high) == difference_interval(3, 9, 500, 0.9)
    assert bounds.difference == pytest.approx(-0.012)


rates = st.floats(-0.5, 0.5)


@given(rates, st.floats(0, 0.2), st.floats(0, 0.2), st.floats(0.0001, 0.3), st.floats(0, 0.3))
def test_no_verdict_turns_round_with_a_wider_margin(
    difference: float, below: float, above: float, margin: float, wider: float
) -> None:
    bounds = Bounds(difference, difference - below, difference + above, 0.95, below)
    order = ["fail", "inconclusive", "pass"]
    verdict = bounds.judged(margin)
    assert order.index(bounds.judged(margin + wider)) >= order.index(verdict)
    if verdict == "pass":
        assert difference >= -margin
    if verdict == "fail":
        assert difference < -margin
