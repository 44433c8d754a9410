from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.protocols.detection import ap_difference, ap_replicates, image_draws, widerface
from evalkit.widerface_eval import Detections, GroundTruth, Settings, evaluate

STEPS = Settings(steps=10)


def make_case(seed, images=8):
    """Images of two events; faces of a grid, most found, some not, and false alarms."""
    rng = np.random.default_rng(seed)
    names, faces, rows = [], [], []
    for image in range(images):
        names.append(f"{image % 2}--Event/image_{image}")
        count = rng.integers(1, 5)
        face = np.column_stack([np.arange(count) * 30, np.zeros(count), np.full((count, 2), 20)])
        faces.append(face.astype(float))
        hit = face[rng.random(count) < 0.7]
        stray = np.tile([500, 500, 9, 9], (rng.integers(0, 3), 1))
        boxes = np.vstack([hit, stray])
        rows.append(np.column_stack([boxes, rng.permutation(10)[: len(boxes)] / 10]))
    rows[0] = np.vstack([rows[0], [[800, 0, 9, 9, 0.0], [0, 0, 20, 20, 1.0]]])
    offsets = np.cumsum([0, *map(len, faces)])
    kept = rng.random(offsets[-1]) < 0.6
    kept[0] = True
    subsets = {"medium": kept, "hard": np.ones(offsets[-1], bool)}
    truth = GroundTruth(tuple(names), offsets, np.concatenate(faces), subsets)
    return truth, Detections.from_rows(names, rows)


def repeated(truth, detections, times):
    """Write every image out as often as it is drawn."""
    names, faces, rows, kept = [], [], [], {name: [] for name in truth.subsets}
    table = np.column_stack([detections.boxes, detections.scores])
    for image, count in enumerate(times):
        there = slice(*truth.offsets[image : image + 2])
        found = slice(*detections.offsets[image : image + 2])
        for copy in range(int(count)):
            names.append(f"{truth.images[image]}_{copy}")
            faces.append(truth.boxes[there])
            rows.append(table[found])
            for name, flags in truth.subsets.items():
                kept[name].append(flags[there])
    return (
        GroundTruth(
            tuple(names),
            np.cumsum([0, *map(len, faces)]),
            np.concatenate(faces),
            {name: np.concatenate(flags) for name, flags in kept.items()},
        ),
        Detections.from_rows(names, rows),
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_a_replicate_is_the_ap_of_the_images_written_out(seed, times):
    truth, detections = make_case(seed)
    times = [1, *times]  # the first image holds the lowest and highest score of the set
    draws = np.array(times, float)[:, None]
    replicates = ap_replicates(evaluate(truth, detections, STEPS), draws)[:, 0]
    expected = evaluate(*repeated(truth, detections, times), STEPS).ap
    assert replicates.tolist() == pytest.approx(list(expected.values()), abs=1e-12)


def test_the_value_is_the_evaluators_and_lies_in_its_interval():
    truth, detections = make_case(3, images=40)
    result = widerface(truth, detections, resamples=200, seed=5)
    expected = evaluate(truth, detections).ap
    assert {part.subset: part.value for part in result.ap} == expected
    assert all(part.low <= part.value <= part.high for part in result.ap)
    assert all(part.low < part.high for part in result.ap)
    assert (result.resamples, result.seed) == (200, 5)
    assert result.evaluation.ap == expected


def test_the_seed_decides():
    case = make_case(4)
    assert widerface(*case, resamples=50).ap == widerface(*case, resamples=50).ap
    assert widerface(*case, resamples=50).ap != widerface(*case, resamples=50, seed=1).ap


def test_more_confidence_is_a_wider_interval():
    case = make_case(5, images=40)
    narrow = widerface(*case, confidence=0.5).ap
    wide = widerface(*case, confidence=0.99).ap
    for less, more in zip(narrow, wide, strict=True):
        assert more.low < less.low < less.high < more.high


def test_every_draw_has_as_many_images():
    draws = image_draws(7, 50, seed=0)
    assert draws.shape == (7, 50)
    assert (draws.sum(axis=0) == 7).all()


def test_a_detector_does_not_differ_from_itself():
    evaluation = evaluate(*make_case(6))
    for part in ap_difference(evaluation, evaluation, resamples=50):
        assert (part.value, part.low, part.high) == (0, 0, 0)


def test_a_detector_that_loses_faces_everywhere_is_worse():
    truth, detections = make_case(7, images=60)
    worse = Detections(
        detections.images,
        detections.offsets,
        detections.boxes + np.where(np.arange(len(detections.boxes)) % 3 == 0, 15, 0)[:, None],
        detections.scores,
    )
    first, second = evaluate(truth, detections), evaluate(truth, worse)
    for part in ap_difference(first, second, resamples=200):
        assert part.value == second.ap[part.subset] - first.ap[part.subset]
        assert part.low <= part.value <= part.high < 0


def test_a_subset_without_faces_has_no_interval():
    truth, detections = make_case(8)
    truth.subsets["medium"][:] = False
    medium = widerface(truth, detections, resamples=20).ap[0]
    assert math.isnan(medium.value)
    assert math.isnan(medium.low)


def test_other_images_or_settings_are_not_compared():
    case = make_case(9)
    first = evaluate(*case)
    with pytest.raises(ValueError, match="differ in their settings"):
        ap_difference(first, evaluate(*case, STEPS))
    with pytest.raises(ValueError, match="different images"):
        ap_difference(first, evaluate(*make_case(9, images=9)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"confidence": math.nan}, "confidence is nan"),
        ({"resamples": 0}, "0 resamples"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        widerface(*make_case(1), **options)


def test_detections_that_cannot_be_judged_are_refused():
    truth, detections = make_case(1)
    nothing = Detections.from_rows(truth.images, [np.empty((0, 5))] * len(truth.images))
    with pytest.raises(ValueError, match="not a single detection"):
        widerface(truth, nothing)
    with pytest.raises(ValueError, match="not of the ground truth's images"):
        widerface(truth.only(["0--Event"]), detections)
