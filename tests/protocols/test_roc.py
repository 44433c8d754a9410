from __future__ import annotations

import json

import ijb_references as reference
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from evalkit.protocols.roc import (
    FAR_RULES,
    auc,
    eer,
    most_accepts,
    roc_curve_points,
    tar_at_far,
)

# Eighths collide often, as quantised models' scores do, and are exact in every float format.
FINITE = st.integers(-16, 16).map(lambda n: n / 8)
FAILURE = st.sampled_from([np.nan, -np.inf, np.inf])
TARGET = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1 / 3, 0.1, 0.29, 0.5, 1.0]))


def scores_of(element):
    return st.lists(element, min_size=1, max_size=24).map(np.array)


ANY_SCORES = scores_of(st.one_of(FINITE, FINITE, FINITE, FAILURE))


@given(ANY_SCORES, ANY_SCORES, TARGET)
def test_at_most_equals_brute_force(genuine, impostors, target):
    (point,) = tar_at_far(genuine, impostors, [target])
    _, false_accepts, true_accepts = reference.at_most(genuine, impostors, target)
    assert (point.false_accepts, point.true_accepts) == (false_accepts, true_accepts)
    assert (point.impostors, point.genuine) == (impostors.size, genuine.size)
    assert point.far == false_accepts / impostors.size
    assert point.tar == true_accepts / genuine.size


@given(ANY_SCORES, ANY_SCORES, TARGET)
def test_at_most_stays_below_its_target_and_the_next_threshold_would_not(
    genuine, impostors, target
):
    (point,) = tar_at_far(genuine, impostors, [target])
    assert point.far <= target
    assert reference.accepts(impostors, point.threshold) == point.false_accepts
    assert reference.accepts(genuine, point.threshold) == point.true_accepts
    lower = [t for t, _, _ in reference.curve(genuine, impostors) if t < point.threshold]
    if lower:
        assert reference.accepts(impostors, max(lower)) / impostors.size > target


@given(scores_of(FINITE), scores_of(FINITE), TARGET)
def test_nearest_equals_scikit_learn(genuine, impostors, target):
    (point,) = tar_at_far(genuine, impostors, [target], "insightface_nearest")
    assert (point.far, point.tar) == reference.insightface_nearest(genuine, impostors, target)
    assert reference.accepts(impostors, point.threshold) == point.false_accepts
    assert reference.accepts(genuine, point.threshold) == point.true_accepts


@pytest.mark.parametrize("decimals", [1, 3, 9])
@pytest.mark.parametrize("seed", range(8))
def test_nearest_equals_scikit_learn_on_longer_curves(seed, decimals):
    rng = np.random.default_rng(seed)
    genuine = rng.normal(2, 1, 300).round(decimals)
    impostors = rng.normal(0, 1, 20_000).round(decimals)
    targets = [0, 1e-5, 1e-4, 2.5e-4, 1e-3, 1e-2, 0.1, 0.5, 1]
    points = tar_at_far(genuine, impostors, targets, "insightface_nearest")
    expected = [reference.insightface_nearest(genuine, impostors, t) for t in targets]
    assert [(p.far, p.tar) for p in points] == expected


@given(ANY_SCORES, ANY_SCORES, TARGET)
def test_interpolated_equals_its_definition(genuine, impostors, target):
    (point,) = tar_at_far(genuine, impostors, [target], "interpolated")
    expected = reference.interpolated(genuine, impostors, target)
    assert point.tar == pytest.approx(expected, abs=1e-12)
    assert point.far <= target
    lower = reference.at_most(genuine, impostors, target)
    assert (point.false_accepts, point.true_accepts) == lower[1:]


def test_interpolated_lies_halfway():
    (point,) = tar_at_far([4, 2, 1, 0], [3, 1.5, 0.5, 0.25], [0.375], "interpolated")
    # From (0.25, 0.5) at threshold 2 to (0.5, 0.5) at threshold 1.5.
    assert (point.far, point.tar, point.threshold) == (0.375, 0.5, 1.75)


@pytest.mark.parametrize("rule", FAR_RULES)
@given(data=st.data(), genuine=ANY_SCORES, impostors=ANY_SCORES)
def test_the_order_of_scores_does_not_matter(rule, data, genuine, impostors):
    shuffled = [np.array(data.draw(st.permutations(s.tolist()))) for s in (genuine, impostors)]
    targets = [0, 0.05, 0.3, 1]
    assert tar_at_far(genuine, impostors, targets, rule) == tar_at_far(*shuffled, targets, rule)
    assert eer(genuine, impostors) == eer(*shuffled)
    assert auc(genuine, impostors) == auc(*shuffled)


@pytest.mark.parametrize("rule", FAR_RULES)
@given(ANY_SCORES, ANY_SCORES, st.lists(TARGET, max_size=5))
def test_targets_do_not_disturb_each_other(rule, genuine, impostors, targets):
    together = tar_at_far(genuine, impostors, targets, rule)
    apart = [tar_at_far(genuine, impostors, [target], rule)[0] for target in targets]
    assert list(together) == apart


@given(ANY_SCORES, ANY_SCORES)
def test_eer_and_auc_equal_exact_fractions(genuine, impostors):
    point = eer(genuine, impostors)
    assert point.eer == pytest.approx(reference.eer(genuine, impostors), abs=1e-15)
    assert point.far == reference.accepts(impostors, point.threshold) / impostors.size
    rejected = genuine.size - reference.accepts(genuine, point.threshold)
    assert point.frr == rejected / genuine.size
    assert auc(genuine, impostors) == pytest.approx(reference.auc(genuine, impostors), abs=1e-15)


def test_auc_equals_scikit_learn():
    rng = np.random.default_rng(3)
    genuine, impostors = rng.normal(1, 1, 500).round(2), rng.normal(0, 1, 4000).round(2)
    labels = np.r_[np.ones(500), np.zeros(4000)]
    expected = roc_auc_score(labels, np.r_[genuine, impostors])
    assert auc(genuine, impostors) == pytest.approx(expected, abs=1e-14)


@given(ANY_SCORES, ANY_SCORES)
def test_curve_points_are_points_of_the_curve(genuine, impostors):
    points = roc_curve_points(genuine, impostors, count=20)
    assert points.far[0] == 0
    assert (np.diff(points.far) > 0).all()
    assert (np.diff(points.tar) >= 0).all()
    assert (np.diff(points.threshold) < 0).all()
    for far, tar, threshold in zip(points.far, points.tar, points.threshold, strict=True):
        assert far == reference.accepts(impostors, threshold) / impostors.size
        assert tar == reference.accepts(genuine, threshold) / genuine.size


@pytest.mark.parametrize("rule", FAR_RULES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ties_are_accepted_or_refused_together(rule, dtype):
    genuine = np.array([1, 1, 0.5, 0.5], dtype)
    impostors = np.array([0.5] * 5 + [0.25] * 5, dtype)
    (point,) = tar_at_far(genuine, impostors, [0.1], rule)
    expected = 0.6 if rule == "interpolated" else 0.5
    assert point.tar == pytest.approx(expected)
    assert point.false_accepts == 0
    assert point.threshold == pytest.approx(0.9 if rule == "interpolated" else 1)


@pytest.mark.parametrize("rule", FAR_RULES)
def test_failures_to_enrol_score_below_all_yet_count(rule):
    genuine = [0.9, 0.8, np.nan, -np.inf]
    impostors = [0.1, 0.05, np.nan, np.inf]
    (point,) = tar_at_far(genuine, impostors, [1.0], rule)
    assert (point.false_accepts, point.impostors, point.far) == (2, 4, 0.5)
    assert (point.true_accepts, point.genuine, point.tar) == (2, 4, 0.5)
    assert point.threshold == 0.05


@pytest.mark.parametrize("rule", FAR_RULES)
def test_nothing_but_failures_accepts_nothing(rule):
    points = tar_at_far([np.nan], [np.nan, -np.inf], [0, 0.5, 1], rule)
    assert all(p.tar == p.far == 0 and np.isfinite(p.threshold) for p in points)


@pytest.mark.parametrize("rule", FAR_RULES)
def test_nothing_accepted_has_a_finite_threshold_above_all(rule):
    (point,) = tar_at_far(np.float32([0.25]), np.float32([0.5, 0.5]), [0], rule)
    assert point.threshold == np.nextafter(np.float32(0.5), np.float32(1))
    assert (point.tar, point.far) == (0, 0)


@pytest.mark.parametrize("figure", [tar_at_far, eer, auc, roc_curve_points])
def test_one_class_is_an_error(figure):
    with pytest.raises(ValueError, match="no impostor scores"):
        figure([0.5], [])
    with pytest.raises(ValueError, match="no genuine scores"):
        figure([], [0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.5]], [0.1], [0.1]), "one dimension"),
        (([0.5], [0.1], [1.5]), "from 0 to 1, not 1.5"),
        (([0.5], [0.1], [float("nan")]), "from 0 to 1, not nan"),
        (([0.5], [0.1], [0.1], "nearest"), "unknown FAR rule 'nearest'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tar_at_far(*arguments)


@given(st.integers(1, 10**9), TARGET)
def test_most_accepts_is_exact(total, target):
    count = most_accepts(target, total)
    assert 0 <= count <= total
    assert count / total <= target
    assert count == total or (count + 1) / total > target


def test_most_accepts_withstands_rounding():
    shares = [(count, total) for total in range(1, 120) for count in range(total + 1)]
    assert all(most_accepts(count / total, total) == count for count, total in shares)
    assert any(int(count / total * total) != count for count, total in shares)


def test_too_few_is_fewer_than_thirty_expected_false_accepts():
    impostors = np.linspace(0, 1, 3000)
    points = tar_at_far([2.0], impostors, [0.0099, 0.01])
    assert [p.too_few for p in points] == [True, False]


def test_records_are_plain_numbers():
    for rule in FAR_RULES:
        (point,) = tar_at_far(np.float32([0.9, 0.2]), np.float32([0.5, 0.1, 0.3]), [0.4], rule)
        values = {name: getattr(point, name) for name in point.__slots__}
        assert {type(v) for v in values.values()} <= {str, float, int, bool}
        json.dumps(values)


@pytest.mark.parametrize(
    ("name", "threshold", "far", "frr"),
    [
        ("dev-1", -8.025286e-03, 31 / 495, 28 / 451),
        ("dev-2", 1.652567e-02, 23 / 501, 20 / 446),
    ],
)
def test_bob_measures_printed_equal_error_rate(shared_data, name, threshold, far, frr):
    """Threshold and counts at the EER that bob.measure prints; it leaves failures (NaN) out."""
    file = shared_data / "reference" / "bob_measure" / f"{name}.txt"
    label, score = np.loadtxt(file, unpack=True)
    finite = np.isfinite(score)
    point = eer(score[finite & (label == 1)], score[finite & (label == -1)])
    assert (point.far, point.frr) == (far, frr)
    # Its threshold lies between two scores, ours on the upper one.
    between = (score[finite] >= threshold) & (score[finite] < point.threshold)
    assert threshold < point.threshold
    assert not between.any()


def test_bob_measures_equal_error_rate(shared_data):
    h5py = pytest.importorskip("h5py")
    folder = shared_data / "reference" / "bob_measure"
    scores = []
    for name in ("positives", "negatives"):
        with h5py.File(folder / f"nonsep-{name}.hdf5") as file:
            scores.append(file["array"][()])
    assert eer(*scores).eer == pytest.approx(0.11, abs=1e-12)
