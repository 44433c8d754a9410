"""Pair verification: against loops, against the public script's figures, and by property."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pytest
import verification_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest

from evalkit.protocols import folds, intervals, verification
from evalkit.protocols.folds import assign_folds, ten_fold_accuracy, val_at_far
from evalkit.protocols.intervals import wilson_interval
from evalkit.protocols.verification import evaluate, pair_distances


def pairs(seed, count=200, dimensions=8, noise=0.6, dtype=np.float32):
    rng = np.random.default_rng(seed)
    same = np.arange(count) % 20 < 10
    first = rng.normal(size=(count, dimensions))
    other = np.where(same[:, None], first, rng.normal(size=first.shape))
    both = np.stack([first, other], 1).reshape(2 * count, dimensions)
    embeddings = (both + noise * rng.normal(size=both.shape)).astype(dtype)
    flipped = (both + noise * rng.normal(size=both.shape)).astype(dtype)
    return embeddings, flipped, same


@pytest.mark.parametrize("module", [folds, intervals, verification])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


# --- the public script's figures ---------------------------------------------------------------


@pytest.mark.parametrize("case", ["flip_sum", "no_flip"])
def test_the_insightface_rule_repeats_the_public_figures_to_the_last_digit(shared_data, case):
    stored = np.load(shared_data / "reference" / "lfw_embeddings.npz")
    expected = json.loads((shared_data / "reference" / "expected.json").read_text())["lfw"]
    flipped = stored["embeddings_flip"] if case == "flip_sum" else None
    result = evaluate(stored["embeddings"], stored["issame"], flipped)
    accuracy, figure = result.accuracy[0], expected[case]
    assert accuracy.accuracy == figure["accuracy"]
    assert accuracy.spread == figure["std"]
    assert list(accuracy.fold_accuracy) == figure["folds"]
    assert list(accuracy.fold_threshold) == figure["best_thresholds"]
    assert accuracy.threshold == figure["mean_best_threshold"]
    val = result.val[0]
    assert (val.val, val.std, val.far) == (figure["val"], figure["val_std"], figure["val_far"])
    if flipped is not None:
        assert result.distances.xnorm == expected["xnorm"]


# --- against loops -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dimensions", [1, 3, 128, 513])
@pytest.mark.parametrize("flip", [False, True])
def test_distances_and_xnorm_equal_the_loop_bit_for_bit(dtype, dimensions, flip):
    embeddings, flipped, _ = pairs(dimensions, 60, dimensions, dtype=dtype)
    got = pair_distances(embeddings, flipped if flip else None)
    squared, xnorm = reference.distances(embeddings, flipped if flip else None)
    assert got.squared.tobytes() == squared.tobytes()
    assert got.xnorm == xnorm
    assert not got.failed.any()


def test_distances_do_not_depend_on_chunks_or_memory_order():
    embeddings, flipped, _ = pairs(0, 5000, 16)
    squared, xnorm = reference.distances(embeddings, flipped)
    for order in "CF":
        got = pair_distances(np.asarray(embeddings, order=order), np.asarray(flipped, order=order))
        assert got.squared.tobytes() == squared.tobytes()
        assert got.xnorm == xnorm


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.1, 0.6, 2.0])
def test_accuracies_equal_the_loops(seed, noise):
    # 203 pairs make folds of unequal size; a quarter has tied distances.
    embeddings, _, same = pairs(seed, 203, 4, noise)
    distances = pair_distances(embeddings).squared
    distances[::4] = distances[::4].round(1)
    fold, layout, _ = assign_folds(same, "contiguous")
    assert layout == "contiguous"
    for rule, candidates in (("insightface", reference.grid), ("exact", reference.midpoints)):
        got = ten_fold_accuracy(distances, same, fold, rule)
        accuracies, thresholds = reference.cross_validate(distances, same, candidates)
        assert got.fold_accuracy == tuple(accuracies)
        assert got.fold_threshold == tuple(thresholds)
        assert (got.accuracy, got.spread) == (np.mean(accuracies), np.std(accuracies))
        assert (got.threshold, got.spread_is) == (np.mean(thresholds), "population_std")
        assert got.cosine_threshold == 1 - got.threshold / 2


@pytest.mark.parametrize("seed", range(3))
def test_the_facexzoo_rule_equals_the_loop_and_leaves_flips_out(seed):
    embeddings, flipped, same = pairs(seed, 203, 4)
    got = evaluate(embeddings, same, flipped, rules=["facexzoo"], layout="contiguous").accuracy[0]
    cosine = 1 - reference.distances(embeddings)[0] / 2
    accuracies, thresholds = reference.facexzoo(cosine, same)
    assert got.fold_accuracy == tuple(accuracies)
    assert got.fold_threshold == tuple(2 - 2 * thresholds)
    assert got.accuracy == np.mean(accuracies)
    assert got.spread == np.std(accuracies, ddof=1) / np.sqrt(10)
    assert got.spread_is == "standard_error"


@pytest.mark.parametrize("target", [1e-3, 0.01, 0.1, 0.5, 1.0])
def test_val_equals_the_loop(target):
    embeddings, _, same = pairs(5, 203, 4)
    distances = pair_distances(embeddings).squared
    fold, _, _ = assign_folds(same)
    got = val_at_far(distances, same, fold, target)
    expected = reference.val(distances, same, target)
    assert got.fold_val == tuple(expected[:, 0])
    assert got.fold_far == tuple(expected[:, 1])
    np.testing.assert_allclose(got.fold_threshold, expected[:, 2], rtol=1e-12)
    assert (got.val, got.std, got.far) == (
        np.mean(expected[:, 0]),
        np.std(expected[:, 0]),
        np.mean(expected[:, 1]),
    )
    assert got.true_accepts <= got.same == np.count_nonzero(same)
    assert got.false_accepts <= got.different == np.count_nonzero(~same)


def test_val_is_zero_where_the_largest_far_stays_below_the_target():
    same = np.arange(40) % 2 == 0
    distances = np.where(same, 0.5, np.inf)
    got = val_at_far(distances, same, assign_folds(same)[0], 0.5)
    assert set(got.fold_threshold) == {0.0}
    assert (got.val, got.far) == (0.0, 0.0)


def test_a_distance_on_the_threshold_is_not_the_same():
    # Every threshold of the grid up to 0.5 refuses a distance of 0.5, so the first best is 0.51.
    same = np.arange(40) % 2 == 0
    grid = folds.ACCURACY_GRID
    for at in (50, 57, 139):  # 0.57 and 1.39 are not what decimal notation suggests
        distances = np.where(same, grid[at], 3.5)
        got = ten_fold_accuracy(distances, same, assign_folds(same)[0], "insightface")
        assert set(got.fold_threshold) == {grid[at + 1]}
        assert got.accuracy == 1.0


# --- properties --------------------------------------------------------------------------------

some_distances = hnp.arrays(
    np.float64,
    st.integers(30, 60),
    elements=st.sampled_from([0.0, 0.1, 0.5, 0.51, 1.0, 1.7, 2.0, np.inf]) | st.floats(0, 4),
)


@settings(max_examples=60)
@given(some_distances, st.randoms(use_true_random=False))
def test_the_exact_rule_is_the_best_on_the_training_folds(distances, random):
    same = np.array([True, False] + [random.random() < 0.5 for _ in distances[2:]])
    fold, _, _ = assign_folds(same)
    exact = ten_fold_accuracy(distances, same, fold, "exact")
    candidates = np.concatenate(
        [[0.0], distances, np.nextafter(distances, np.inf), folds.ACCURACY_GRID]
    )
    for k, threshold in enumerate(exact.fold_threshold):
        train, labels = distances[fold != k], same[fold != k]
        best = max(np.mean((train < t) == labels) for t in candidates[np.isfinite(candidates)])
        assert np.mean((train < threshold) == labels) == best


@settings(max_examples=40)
@given(some_distances, st.floats(1e-3, 1))
def test_failures_are_never_the_same(distances, target):
    same = np.arange(distances.size) % 2 == 0
    distances[same] = np.inf
    fold, _, _ = assign_folds(same)
    for rule in folds.RULES:
        got = ten_fold_accuracy(distances, same, fold, rule)
        assert got.correct <= np.count_nonzero(~same)
        assert not np.isnan(got.accuracy)
    assert val_at_far(distances, same, fold, target).true_accepts == 0


@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_scaling_embeddings_changes_no_figure(scale):
    embeddings, flipped, same = pairs(1, dtype=np.float64)
    one = evaluate(embeddings, same, flipped)
    two = evaluate(scale * embeddings, same, scale * flipped)
    assert one.accuracy[0] == two.accuracy[0]
    assert two.distances.xnorm == pytest.approx(scale * one.distances.xnorm)


# --- failures to enrol -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_embeddings_without_direction_are_failures_to_enrol(value):
    embeddings, flipped, same = pairs(2, dtype=np.float64)
    clean = pair_distances(embeddings)
    if value == 0:
        embeddings[7] = 0
    else:
        embeddings[7, 3] = value
    result = evaluate(embeddings, same)
    assert result.failures == (7,)
    assert np.isinf(result.distances.squared[3])
    others = np.arange(same.size) != 3
    assert (result.distances.squared[others] == clean.squared[others]).all()
    assert result.distances.cosine[3] == -np.inf
    assert np.isfinite(result.distances.xnorm)
    assert (evaluate(embeddings, same, flipped).failures == (7,)) == (value != 0)


def test_flipped_embeddings_that_overflow_fail_too():
    embeddings, flipped, same = pairs(3)
    flipped[0] = np.nan
    assert evaluate(embeddings, same, flipped).failures == (0,)
    huge = pair_distances(np.full((2, 3), 1e200))
    assert huge.failed.all()
    assert np.isnan(huge.xnorm)


# --- folds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, 11, 19, 203])
def test_contiguous_folds_are_those_of_kfold(count):
    fold, _, _ = assign_folds(np.arange(count) % 2 == 0, "contiguous")
    for k, (_, test) in enumerate(reference.folds(count)):
        assert np.flatnonzero(fold == k).tolist() == test.tolist()


def test_lists_of_same_and_then_different_pairs_are_interleaved_with_a_warning():
    same = np.arange(6000) < 3000
    fold, layout, warnings = assign_folds(same)
    assert layout == "interleaved"
    assert np.bincount(fold[same]).tolist() == np.bincount(fold[~same]).tolist() == [300] * 10
    assert len(warnings) == 1
    assert "interleaved" in warnings[0]
    fold, layout, warnings = assign_folds(same, "contiguous")
    assert layout == "contiguous"
    assert "10 of the 10 folds" in warnings[0]


@given(st.lists(st.booleans(), min_size=10, max_size=40), st.sampled_from(["auto", "interleaved"]))
def test_no_fold_is_ever_empty(labels, layout):
    same = np.array([True, False, *labels])
    fold, used, warnings = assign_folds(same, layout)
    sizes = np.bincount(fold, minlength=10)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1
    mixed = all(0 < same[fold == k].sum() < (fold == k).sum() for k in range(10))
    assert mixed or warnings
    if used == "contiguous":
        assert mixed


def test_a_fold_without_same_pairs_is_left_out_of_the_mean_of_val():
    same = np.arange(40) < 5
    got = val_at_far(np.where(same, 0.5, 2.0), same, assign_folds(same)[0], 0.5)
    assert np.isnan(got.fold_val).sum() == 5
    assert got.val == 1.0


# --- the whole result --------------------------------------------------------------------------


def test_the_result_counts_everything():
    embeddings, flipped, same = pairs(4)
    result = evaluate(embeddings, same, flipped, rules=folds.RULES, fars=(1e-2, 0.1))
    assert (result.pairs, result.same, result.different) == (200, 100, 100)
    assert [a.rule for a in result.accuracy] == ["insightface", "exact", "facexzoo"]
    assert [v.target for v in result.val] == [p.target for p in result.tar] == [1e-2, 0.1]
    assert result.flip
    assert result.layout == "contiguous"
    assert result.warnings == ()
    for accuracy in result.accuracy:
        assert accuracy.pairs == 200
        assert accuracy.interval == wilson_interval(accuracy.correct, 200)
    cosine = 1 - reference.distances(embeddings, flipped)[0] / 2
    wins = cosine[same][:, None] > cosine[~same][None, :]
    assert result.auc == pytest.approx(wins.mean())
    assert 0 < result.eer.eer < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, f, s: (e, f[:-2], s), "Flipped embeddings"),
        (lambda e, f, s: (e[0], f, s), "must have shape"),
        (lambda e, f, s: (e[:-1], f[:-1], s), "must have shape"),
        (lambda e, f, s: (e, f, s[:-1]), "labels of 199 pairs"),
        (lambda e, f, s: (e[:18], f[:18], s[:9]), "9 pairs"),
        (lambda e, f, s: (e, f, s | True), "kind 'same'"),
        (lambda e, f, s: (e, f, s & False), "kind 'different'"),
        (lambda e, f, s: (e, f, s * 2), "only true and false"),
        (lambda e, f, s: (e, f, s[:, None]), "one-dimensional"),
    ],
)
def test_wrong_input_is_named(change, message):
    embeddings, flipped, same = change(*pairs(0))
    with pytest.raises(ValueError, match=message):
        evaluate(embeddings, same, flipped)


def test_unknown_names_and_rates_are_refused():
    embeddings, _, same = pairs(0)
    with pytest.raises(ValueError, match="Unknown rule"):
        evaluate(embeddings, same, rules=["best"])
    with pytest.raises(ValueError, match="Unknown layout"):
        evaluate(embeddings, same, layout="random")
    for far in (0.0, 1.5):
        with pytest.raises(ValueError, match="target FAR"):
            evaluate(embeddings, same, fars=[far])


# --- intervals ---------------------------------------------------------------------------------


@given(st.integers(1, 7000), st.floats(0, 1), st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_equals_scipy_and_holds_the_rate(trials, share, confidence):
    successes = round(share * trials)
    low, high = wilson_interval(successes, trials, confidence)
    expected = binomtest(successes, trials).proportion_ci(confidence, "wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= successes / trials <= high <= 1


@pytest.mark.parametrize("wrong", [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_have_no_interval(wrong):
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(*wrong)
    with pytest.raises(ValueError, match="confidence"):
        wilson_interval(1, 2, 1.0)
