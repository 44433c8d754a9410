"""Drift against NumPy's own comparison, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from evalkit.stats.drift import RTOL, drift, joined


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(50, 16)).astype(np.float32)
    return before, (before + rng.normal(0, 0.01, before.shape)).astype(np.float32)


def test_cosines_are_those_of_a_loop(rows: tuple[np.ndarray, np.ndarray]) -> None:
    apart = drift(*rows)
    for a, b, cosine in zip(*(r.astype(float) for r in rows), apart.cosines, strict=True):
        assert cosine == pytest.approx(sum(a * b) / np.sqrt(sum(a * a) * sum(b * b)), abs=1e-12)


@pytest.mark.parametrize("field", ["atol", "rtol", "both"])
def test_the_tolerances_are_what_assert_allclose_needs(
    rows: tuple[np.ndarray, np.ndarray], field: str
) -> None:
    apart = drift(*rows)
    before, after = (r.astype(float) for r in rows)
    atol, rtol = {
        "atol": (apart.largest_absolute, 0),
        "rtol": (0, apart.largest_relative),
        "both": (apart.atol_needed, RTOL),
    }[field]
    enough = 1 + 1e-12
    np.testing.assert_allclose(after, before, atol=atol * enough, rtol=rtol * enough)
    too_little = 1 - 1e-6
    atol, rtol = (atol, rtol * too_little) if field == "rtol" else (atol * too_little, rtol)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(after, before, atol=atol, rtol=rtol)


def test_unusable_rows_are_counted_and_left_out() -> None:
    before = np.array([[1.0, 0], [np.nan, 1], [0, 2], [0, 0]])
    after = np.array([[1.0, 0], [1, 1], [np.inf, 2], [0, 1]])
    apart = drift(before, after)
    assert (apart.lost, apart.gained) == (1, 2)
    np.testing.assert_array_equal(apart.cosines, [1, np.nan, np.nan, np.nan])
    assert apart.largest_absolute == apart.largest_relative == apart.atol_needed == 0


def test_an_element_that_was_zero_makes_the_relative_difference_infinite() -> None:
    apart = drift(np.array([[0.0, 1]]), np.array([[0.5, 1]]))
    assert apart.largest_relative == np.inf
    assert drift(np.array([[0.0, 1]]), np.array([[0.0, 1]])).largest_relative == 0


def test_parts_join_to_the_whole(rows: tuple[np.ndarray, np.ndarray]) -> None:
    before, after = rows
    after[7] = np.nan
    whole = drift(before, after)
    parts = joined([drift(before[:20], after[:20]), drift(before[20:], after[20:])])
    np.testing.assert_array_equal(parts.cosines, whole.cosines)
    for name in ("largest_absolute", "largest_relative", "atol_needed", "lost", "gained"):
        assert getattr(parts, name) == getattr(whole, name)


def test_models_of_other_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="do not match"):
        drift(np.ones((2, 3)), np.ones((2, 4)))
