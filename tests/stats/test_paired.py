"""Paired tests against references that are slow and obviously right, and their coverage."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from evalkit.stats.paired import PairDraws, difference_interval, mcnemar


def decisions(lost: int, gained: int, trials: int) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.ones(trials, bool), np.ones(trials, bool)
    after[:lost] = False
    before[lost : lost + gained] = False
    return before, after


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 1), (3, 3), (12, 30)])
def test_the_exact_test_is_the_sum_of_binomials(lost: int, gained: int) -> None:
    test = mcnemar(*decisions(lost, gained, 200))
    changed = lost + gained
    few = sum(comb(changed, k) for k in range(min(lost, gained) + 1))
    assert test.p_value == pytest.approx(min(1, 2 * few / 2**changed))
    assert (test.lost, test.gained, test.trials) == (lost, gained, 200)
    assert test.difference == (gained - lost) / 200


def score_statistic(gained: int, lost: int, trials: int, difference: float) -> float:
    """Score test of one difference, the likeliest nuisance found by search."""

    def unlikelihood(q: float) -> float:
        shares = q + difference, q, 1 - 2 * q - difference
        counts = gained, lost, trials - gained - lost
        return -sum(n * np.log(max(p, 1e-300)) for n, p in zip(counts, shares, strict=True) if n)

    low, high = max(0.0, -difference), (1 - difference) / 2
    least = minimize_scalar(unlikelihood, bounds=(low, high), options={"xatol": 1e-12})
    q = min([least.x, low, high], key=unlikelihood)
    spread = trials * (2 * q + difference - difference**2)
    return float((gained - lost - trials * difference) / np.sqrt(spread))


@pytest.mark.parametrize(
    ("gained", "lost", "trials"), [(0, 0, 50), (2, 0, 50), (0, 7, 60), (9, 4, 100), (30, 31, 90)]
)
def test_the_interval_holds_what_the_score_test_accepts(
    gained: int, lost: int, trials: int
) -> None:
    low, high = difference_interval(gained, lost, trials)
    assert score_statistic(gained, lost, trials, low) == pytest.approx(1.959964, abs=2e-4)
    assert score_statistic(gained, lost, trials, high) == pytest.approx(-1.959964, abs=2e-4)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 100))
def test_the_interval_holds_the_figure_and_mirrors(gained: int, lost: int, rest: int) -> None:
    trials = max(gained + lost + rest, 1)
    low, high = difference_interval(gained, lost, trials)
    assert -1 <= low <= (gained - lost) / trials <= high <= 1
    assert difference_interval(lost, gained, trials) == pytest.approx((-high, -low), abs=1e-12)


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        difference_interval(*counts)
    with pytest.raises(ValueError, match="level"):
        difference_interval(1, 1, 5, level=1.0)
    with pytest.raises(ValueError, match="not paired"):
        mcnemar(np.ones(2, bool), np.ones(3, bool))


@pytest.mark.parametrize("kept", [True, False])
def test_a_stratum_keeps_its_size_and_its_rows_stay_in_order(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr("evalkit.stats.paired._KEPT_ROWS", 0)
    strata = np.repeat([0, 1, 2], [5, 1, 7])
    draws = PairDraws(strata, 50, 1)
    first = [np.array(rows) for rows in draws]
    for rows, again in zip(first, draws, strict=True):
        assert np.bincount(strata[rows]).tolist() == [5, 1, 7]
        assert (np.diff(rows) >= 0).all()
        np.testing.assert_array_equal(rows, again)
    assert any((rows != first[0]).any() for rows in first)
    # One stratum after the other, from one generator: the stream that version 0.1 had.
    rng = np.random.default_rng(1)
    expected = [start + rng.integers(size, size=size) for start, size in ((0, 5), (5, 1), (6, 7))]
    np.testing.assert_array_equal(first[0], np.sort(np.concatenate(expected)))


def test_the_bootstrap_agrees_with_the_spread_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=(400, 2))
    change = values[:, 1] - values[:, 0]
    changes = np.array([change[rows].mean() for rows in PairDraws(np.zeros(400), 2000)])
    assert changes.std() == pytest.approx(change.std() / 20, rel=0.06)
    assert changes.mean() == pytest.approx(change.mean(), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "gained"), [(0.004, 0.002), (0.03, 0.03), (0.08, 0.02)])
def test_the_interval_covers_the_truth(lost: float, gained: float) -> None:
    rng = np.random.default_rng(0)
    shares = [lost, gained, 1 - lost - gained]
    draws = rng.multinomial(600, shares, 2000)
    covered = 0
    for row in draws:
        low, high = difference_interval(int(row[1]), int(row[0]), 600)
        covered += low <= gained - lost <= high
    assert 0.93 <= covered / len(draws) <= 0.985
