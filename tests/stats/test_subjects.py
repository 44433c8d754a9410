"""The subject bootstrap against a brute-force one, its properties, and its coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from subject_reference import TARGETS, Comparisons, brute_force

from evalkit.protocols.roc import tar_at_far
from evalkit.stats import subjects as module
from evalkit.stats.subjects import (
    SubjectBootstrap,
    percentile_interval,
)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [5, 1000])
def test_it_equals_brute_force(seed: int, levels: int) -> None:
    data = Comparisons(seed, levels=levels)
    bootstrap = data.bootstrap(replicates=8, seed=seed)
    expected = [brute_force(data, weights, TARGETS) for weights in bootstrap.weights]
    np.testing.assert_allclose(
        bootstrap.tar(data.scores, TARGETS), np.transpose(expected), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("dense", [0, 10**6])
@pytest.mark.parametrize("bracket", [(0, 1), (200, 210), (3, 10**9)])
def test_wrong_guesses_of_the_bracket_are_widened(
    monkeypatch: pytest.MonkeyPatch, bracket: tuple[int, int], dense: int
) -> None:
    data = Comparisons(3)
    bootstrap = data.bootstrap(replicates=20)
    expected = bootstrap.tar(data.scores, TARGETS)
    monkeypatch.setattr(module, "_DENSE_SUBJECTS", dense)
    monkeypatch.setattr(module, "_bracket", lambda _, total: tuple(min(b, total) for b in bracket))
    monkeypatch.setattr(module, "_BLOCK_CELLS", 16)
    np.testing.assert_array_equal(data.bootstrap(replicates=20).tar(data.scores, TARGETS), expected)


@pytest.mark.parametrize("factor", [1, -1, 10**12])
def test_template_ids_are_only_names(factor: int) -> None:
    data = Comparisons(5)
    expected = data.bootstrap(replicates=20).tar(data.scores, TARGETS)
    data.template_id, data.pairs = factor * data.template_id, factor * data.pairs
    np.testing.assert_array_equal(data.bootstrap(replicates=20).tar(data.scores, TARGETS), expected)
    for absent in (data.template_id.max() + 1, data.template_id.min() - 1, *missing(data)):
        data.pairs[3, 1] = absent
        with pytest.raises(ValueError, match="without a subject"):
            data.bootstrap()


def missing(data: Comparisons) -> list[int]:
    """A number between the templates' that none of them has."""
    free = np.setdiff1d(
        np.arange(data.template_id.min(), data.template_id.min() + 100), data.template_id
    )
    return [int(free[0])]


def test_unit_weights_give_the_figure_itself() -> None:
    data = Comparisons(1)
    bootstrap = data.bootstrap(replicates=1)
    bootstrap.weights[:] = 1
    bootstrap._mass[:] = np.count_nonzero(~data.genuine)
    bootstrap._genuine_mass[:] = np.count_nonzero(data.genuine)
    points = tar_at_far(data.scores[data.genuine], data.scores[~data.genuine], TARGETS)
    assert bootstrap.tar(data.scores, TARGETS)[:, 0].tolist() == [point.tar for point in points]


def test_rates_at_a_fixed_threshold_equal_brute_force() -> None:
    data = Comparisons(2)
    bootstrap = data.bootstrap(replicates=25)
    far, tar = bootstrap.rates(data.scores, 0.6)
    kept = np.isfinite(data.scores) & (data.scores >= 0.6)
    for row, weights in enumerate(bootstrap.weights):
        both = weights[data.sides[:, 0]] * weights[data.sides[:, 1]] * ~data.genuine
        own = weights[data.sides[:, 0]] * data.genuine
        assert far[row] == pytest.approx(both[kept].sum() / both.sum(), abs=1e-12)
        assert tar[row] == pytest.approx(own[kept].sum() / own.sum(), abs=1e-12)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_tar_rises_with_the_target_and_only_order_counts(seed: int) -> None:
    data = Comparisons(seed)
    bootstrap = data.bootstrap(replicates=10)
    tar = bootstrap.tar(data.scores, TARGETS)
    assert (np.diff(tar, axis=0) >= 0).all()
    finite = np.where(np.isfinite(data.scores), data.scores, -1).astype(np.float64)
    np.testing.assert_array_equal(bootstrap.tar(np.exp(3 * finite), TARGETS[:4]), tar[:4])


def test_one_seed_gives_one_figure_and_equal_scores_no_difference() -> None:
    data = Comparisons(4)
    first, again = data.bootstrap(seed=5), data.bootstrap(seed=5)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert (first.weights.sum(axis=1) == first.subjects).all()
    assert (data.bootstrap(seed=6).weights != first.weights).any()
    np.testing.assert_array_equal(first.tar(data.scores, TARGETS), again.tar(data.scores, TARGETS))
    assert first.tar(data.scores, []).shape == (0, 2000)


def test_pairing_takes_out_what_both_models_share() -> None:
    data = crossed(np.random.default_rng(0), subjects=100)
    rng = np.random.default_rng(1)
    other = data.scores + rng.normal(0, 0.02, len(data.scores)) - 0.2 * data.genuine
    bootstrap = data.bootstrap(replicates=300)
    others = data.bootstrap(replicates=300, seed=1)
    unpaired = percentile_interval(
        others.tar(other, [0.01])[0] - bootstrap.tar(data.scores, [0.01])[0]
    )
    change = percentile_interval(
        bootstrap.tar(other, [0.01])[0] - bootstrap.tar(data.scores, [0.01])[0]
    )
    assert unpaired is not None
    assert change is not None
    assert change.high < 0
    assert change.high - change.low < (unpaired.high - unpaired.low) / 2


@pytest.mark.parametrize("case", ["template", "genuine", "impostor", "one subject", "replicates"])
def test_what_cannot_be_resampled_is_refused(case: str) -> None:
    pairs = np.array([[0, 1], [0, 2]])
    genuine, templates, subjects = np.array([True, False]), np.arange(3), np.array([0, 0, 1])
    options = {}
    if case == "template":
        templates, subjects = templates[:2], subjects[:2]
    elif case in {"genuine", "impostor"}:
        genuine = np.full(2, case == "impostor")
    elif case == "one subject":
        subjects = np.zeros(3, int)
    else:
        options = {"replicates": 0}
    with pytest.raises(ValueError, match=r"bootstrap needs|without a subject|at least 1"):
        SubjectBootstrap(pairs, genuine, templates, subjects, **options)
    with pytest.raises(ValueError, match="without a subject"):
        SubjectBootstrap(pairs, np.array([True, False]), np.empty(0, int), np.empty(0, int))


def test_percentiles_are_numpys_and_need_half_of_the_draws() -> None:
    values = np.random.default_rng(0).normal(size=999)
    interval = percentile_interval(values, 0.9)
    assert interval is not None
    assert [interval.low, interval.high] == pytest.approx(np.percentile(values, [5, 95]).tolist())
    values[:600] = np.nan
    assert percentile_interval(values) is None
    assert percentile_interval(np.empty(0)) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile_interval(values, 1.0)


def crossed(rng: np.random.Generator, subjects: int = 60, enrolled: int = 4) -> Comparisons:
    """All comparisons among templates whose scores share effects of both subjects."""
    data = Comparisons.__new__(Comparisons)
    data.template_id = np.arange(subjects * enrolled)
    data.subject_id = np.repeat(np.arange(subjects), enrolled)
    first, second = np.triu_indices(len(data.template_id), 1)
    data.pairs = np.column_stack([first, second])
    data.sides = data.subject_id[data.pairs]
    data.genuine = data.sides[:, 0] == data.sides[:, 1]
    lamb, hard = rng.normal(0, 0.5, subjects), rng.normal(0, 1.0, subjects)
    noise = rng.normal(0, 1, len(first))
    impostor = lamb[data.sides].sum(axis=1) + noise
    genuine = 4.5 + hard[data.sides[:, 0]] + 0.5 * noise
    data.scores = np.where(data.genuine, genuine, impostor)
    return data


def pair_bootstrap(data: Comparisons, rng: np.random.Generator, target: float) -> NDArray[Any]:
    """TAR of pairs drawn as if independent; the k-th highest draw is drawn directly, by its law."""
    genuine, impostors = data.scores[data.genuine], np.sort(data.scores[~data.genuine])[::-1]
    allowed = int(target * impostors.size)
    ranks = impostors.size * rng.beta(allowed + 1, impostors.size - allowed, 300)
    drawn = rng.choice(genuine, (300, genuine.size))
    tars: NDArray[Any] = (drawn > impostors[ranks.astype(int)][:, None]).mean(axis=1)
    return tars


@pytest.mark.slow
def test_the_intervals_cover_the_truth_where_pair_level_ones_do_not() -> None:
    target, draws = 0.02, 200
    # Truth: the threshold and the TAR of the population that the subjects are drawn from.
    threshold = 2.0537489 * np.sqrt(1 + 2 * 0.25)
    from scipy.stats import norm

    truth = norm.sf((threshold - 4.5) / np.sqrt(1 + 0.25))
    covered = {"subject": 0, "pair": 0}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        data = crossed(rng, subjects=100, enrolled=4)
        intervals = {
            "subject": percentile_interval(
                data.bootstrap(replicates=300, seed=seed).tar(data.scores, [target])[0]
            ),
            "pair": percentile_interval(pair_bootstrap(data, rng, target)),
        }
        for name, interval in intervals.items():
            assert interval is not None
            covered[name] += interval.low <= truth <= interval.high
    print(covered)
    assert 0.90 <= covered["subject"] / draws <= 0.98, covered
    assert covered["pair"] / draws < 0.75, covered
