from __future__ import annotations

import math

import numpy as np
import pytest
import wider_slow
from hypothesis import assume, given
from hypothesis import strategies as st
from wider_cases import small_detections, small_truth, whole_sets

from evalkit.widerface_eval import (
    RULES,
    Detections,
    Settings,
    WiderFaceError,
    average_precision,
    by_event,
    by_height,
    evaluate,
)
from evalkit.widerface_eval.evaluation import normalise


def blocks(record, *columns):
    table = np.column_stack(columns)
    return np.split(table, record.offsets[1:-1])


def slow_ap(truth, detections, settings, sort):
    """The public tools' way, subset by subset; every score stretched to 0..1 by hand."""
    low, high = detections.scores.min(), detections.scores.max()
    scores = (detections.scores - low) / (high - low)
    found = blocks(detections, detections.boxes, scores)
    if sort:
        found = [np.array(sorted(rows.tolist(), key=lambda r: -r[4])) for rows in found]
    faces = blocks(truth, truth.boxes)
    return {
        name: wider_slow.evaluate_subset(
            found,
            faces,
            [flags[:, 0] for flags in blocks(truth, kept)],
            settings.iou,
            settings.steps,
        )
        for name, kept in truth.subsets.items()
    }


@given(whole_sets(), st.sampled_from([0.25, 0.5, 0.75]), st.sampled_from([1, 7, 20]))
def test_ap_equals_the_slow_reference(case, iou, steps):
    settings = Settings(iou=iou, steps=steps)
    assert evaluate(*case, settings).ap == pytest.approx(
        slow_ap(*case, settings, sort=True), abs=1e-12
    )


@given(whole_sets(), st.sampled_from([7, 20]))
def test_ap_in_file_order_equals_the_slow_reference(case, steps):
    settings = Settings("python_file_order", steps=steps)
    assert evaluate(*case, settings).ap == pytest.approx(
        slow_ap(*case, settings, sort=False), abs=1e-12
    )


@given(whole_sets(), st.sampled_from(RULES))
def test_both_kernels_and_any_number_of_threads_give_the_same(case, rule):
    fast = evaluate(*case, Settings(rule, steps=20), threads=1)
    slow = evaluate(*case, Settings(rule, steps=20), kernel="reference")
    assert fast.ap == slow.ap
    assert all(0 <= ap <= 1 for ap in fast.ap.values())


@given(whole_sets(), st.floats(0.5, 4), st.floats(-2, 2))
def test_ap_does_not_depend_on_the_scale_of_scores(case, scale, shift):
    truth, detections = case
    # Powers of two keep the normalised score exactly, and so on which side of a threshold it is.
    scale, shift = 2.0 ** round(scale), float(round(shift))
    moved = Detections(
        detections.images, detections.offsets, detections.boxes, detections.scores * scale + shift
    )
    assert evaluate(truth, moved, Settings(steps=7)).ap == pytest.approx(
        evaluate(truth, detections, Settings(steps=7)).ap, abs=1e-9
    )


@given(whole_sets(), st.randoms())
def test_ap_does_not_depend_on_the_order_of_images(case, random):
    truth, detections = case
    turn = list(range(len(truth.images)))
    random.shuffle(turn)
    faces = [block.tolist() for block in blocks(truth, truth.boxes)]
    found = blocks(detections, detections.boxes, detections.scores)
    turned_truth = type(truth)(
        tuple(truth.images[i] for i in turn),
        np.cumsum([0, *(len(faces[i]) for i in turn)]),
        np.array([face for i in turn for face in faces[i]]),
        {
            name: np.concatenate([np.split(kept, truth.offsets[1:-1])[i] for i in turn])
            for name, kept in truth.subsets.items()
        },
    )
    turned = Detections.from_rows(turned_truth.images, [found[i] for i in turn])
    assert evaluate(turned_truth, turned).ap == evaluate(truth, detections).ap


@given(whole_sets())
def test_average_precision_equals_the_slow_one(case):
    curve = evaluate(*case, Settings(steps=9)).curves["hard"]
    slow = wider_slow.average_precision(curve.precision, curve.recall)
    assert average_precision(curve.precision, curve.recall) == pytest.approx(slow, abs=1e-12)


def test_a_small_set_by_hand():
    # Scores run from 0.3 to 0.95. Two steps: thresholds 0.5 and 0 of the normalised score.
    result = evaluate(small_truth(), small_detections(), Settings(steps=2))
    counts = {
        name: (curve.proposals.tolist(), curve.recalled.tolist(), curve.faces)
        for name, curve in result.curves.items()
    }
    assert counts == {
        "easy": ([2, 3], [2, 2], 2),  # two hits; the hits of faces not kept are ignored
        "medium": ([3, 4], [3, 3], 3),
        "hard": ([3, 5], [3, 4], 4),
    }
    assert result.ap == {"easy": 1.0, "medium": 1.0, "hard": pytest.approx(0.75 + 0.25 * 0.8)}


def test_the_result_names_all_that_moves_the_figure():
    content = evaluate(small_truth(), small_detections()).as_dict()
    assert content["rule"] == "python"
    assert content["iou_threshold"] == 0.5
    assert content["score_steps"] == 1000
    assert content["score_normalisation"] == "min_max"
    assert content["score_range"] == [0.3, 0.95]
    assert (content["images"], content["detections"]) == (3, 5)
    assert content["subsets"]["hard"]["faces"] == 4


def test_unsorted_detections_are_sorted_stably_with_a_warning():
    truth, detections = small_truth(), small_detections()
    upset = np.array([2, 0, 1, 3, 4])
    unsorted = Detections(
        detections.images, detections.offsets, detections.boxes[upset], detections.scores[upset]
    )
    result = evaluate(truth, unsorted)
    assert result.ap == evaluate(truth, detections).ap
    np.testing.assert_array_equal(result.detections.boxes, detections.boxes)
    (warning,) = result.warnings
    assert "1 images were not in order" in warning
    assert "have been sorted: 0--Parade/0_Parade_a" in warning
    in_file_order = evaluate(truth, unsorted, Settings("python_file_order"))
    assert in_file_order.ap != result.ap
    assert "does not sort" in in_file_order.warnings[0]


def test_equal_scores_keep_the_order_of_the_file():
    rows = np.array([[0, 0, 9, 9, 0.1], [0, 0, 9, 9, 0.5], [1, 0, 9, 9, 0.5]])
    detections = Detections.from_rows(["0--Parade/a"], [rows])
    truth = type(small_truth())(
        ("0--Parade/a",), np.array([0, 1]), np.array([[0.0, 0, 9, 9]]), {"hard": np.array([True])}
    )
    assert evaluate(truth, detections).detections.boxes[:, 0].tolist() == [0, 1, 0]


def test_an_event_without_any_detection_is_named():
    detections = small_detections()
    rows = blocks(detections, detections.boxes, detections.scores)
    silent = Detections.from_rows(detections.images, [rows[0], rows[1], np.empty((0, 5))])
    (warning,) = evaluate(small_truth(), silent).warnings
    assert "no detection at all in 1 events: 5--people--driving" in warning


def test_a_subset_without_faces_has_no_ap():
    truth = small_truth().only(["0--Parade"])
    truth.subsets["easy"][:] = False
    rows = np.array([[0, 0, 9, 9, 0.1], [0, 0, 9, 9, 0.5]])
    found = Detections.from_rows(truth.images, [rows, rows])
    result = evaluate(truth, found)
    assert math.isnan(result.ap["easy"])
    assert result.as_dict()["subsets"]["easy"]["ap"] is None
    assert result.ap["hard"] == 0


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5]])
def test_scores_that_cannot_be_stretched_are_refused(scores):
    for rule in RULES:
        if rule == "python_file_order" and scores:
            continue
        with pytest.raises(WiderFaceError, match=r"not a single|cannot be stretched"):
            normalise(np.array(scores), rule)


def test_the_public_code_searches_its_extremes_from_one_and_zero():
    scores = np.array([2.0, 4.0])
    assert normalise(scores, "python").tolist() == [0, 1]
    assert normalise(scores, "python_file_order").tolist() == [1 / 3, 1]
    assert normalise(-scores, "python_file_order").tolist() == [0.5, 0]


def test_matlab_holds_scores_in_single_precision():
    scores = np.array([0.0, 0.1, 0.7])
    single = np.float32(0.1) / np.float32(0.7)
    assert normalise(scores, "matlab").tolist() == [0, float(single), 1]
    assert normalise(scores, "matlab")[1] != 0.1 / 0.7


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[np.nan, 0, 1, 1, 0.5]], "0--Parade/a: box .* not in pixels"),
        ([[0, 0, 1, -1, 0.5]], "inverted"),
        ([[0, 0, 1e10, 1, 0.5]], "not in pixels"),
        ([[0, 0, 1, 1, np.nan]], "score nan"),
        ([[0, 0, 1, 1, 1e39]], "single precision"),
    ],
)
def test_bad_detections_are_refused_by_name(rows, message):
    with pytest.raises(WiderFaceError, match=message):
        Detections.from_rows(["0--Parade/a"], [np.array(rows)])


def test_records_that_do_not_hold_together_are_refused():
    with pytest.raises(WiderFaceError, match="as many scores"):
        Detections(("a",), np.array([0, 1]), np.zeros((1, 4)), np.zeros(2))
    for offsets in ([0, 2], [1, 1], [0, 1, 1], [0.0, 1.0], []):
        with pytest.raises(WiderFaceError, match="2 integers that rise from 0 to 1"):
            Detections(("a",), np.array(offsets), np.zeros((1, 4)), np.zeros(1))
    with pytest.raises(WiderFaceError, match=r"shape \(n, 4\), not \(1, 5\)"):
        Detections(("a",), np.array([0, 1]), np.zeros((1, 5)), np.zeros(1))
    with pytest.raises(WiderFaceError, match="an image twice: a"):
        Detections(("a", "a"), np.array([0, 0, 0]), np.zeros((0, 4)), np.zeros(0))
    truth = small_truth()
    with pytest.raises(WiderFaceError, match="must be 5 booleans"):
        type(truth)(truth.images, truth.offsets, truth.boxes, {"easy": np.array([True])})
    with pytest.raises(WiderFaceError, match="names no subset"):
        type(truth)(truth.images, truth.offsets, truth.boxes, {})
    with pytest.raises(WiderFaceError, match=r"Ground-truth box .* of 0--Parade/0_Parade_a"):
        type(truth)(truth.images, truth.offsets, truth.boxes * np.nan, truth.subsets)
    with pytest.raises(WiderFaceError, match="not of the ground truth's images: 5--people"):
        evaluate(truth.only(["0--Parade"]), small_detections())
    with pytest.raises(WiderFaceError, match="no event 9--Nowhere"):
        truth.only(["9--Nowhere"])


def test_settings_out_of_range_are_refused():
    with pytest.raises(WiderFaceError, match="no rule 'voc'"):
        Settings("voc")
    with pytest.raises(WiderFaceError, match="0 steps"):
        Settings(steps=0)
    with pytest.raises(WiderFaceError, match="IoU"):
        evaluate(small_truth(), small_detections(), Settings(iou=0))


@given(whole_sets())
def test_the_events_add_up_to_the_whole(case):
    result = evaluate(*case, Settings(steps=9))
    for subset, curve in result.curves.items():
        parts = [part.curve for part in by_event(result) if part.subset == subset]
        assert sum(part.faces for part in parts) == curve.faces
        np.testing.assert_array_equal(sum(p.proposals for p in parts), curve.proposals)
        np.testing.assert_array_equal(sum(p.recalled for p in parts), curve.recalled)


@given(whole_sets())
def test_one_band_of_all_heights_is_the_whole(case):
    result = evaluate(*case, Settings(steps=9))
    assume(result.curves["hard"].faces)
    (whole,) = by_height(result, bands=[(-math.inf, math.inf)])
    assert whole.curve.ap == result.ap["hard"]


def test_the_bands_of_height_by_hand():
    low, middle, high = by_height(evaluate(small_truth(), small_detections()))
    assert [part.name for part in (low, middle, high)] == ["10-50", "50-300", "300+"]
    # Low: one face of 20 pixels, hit. The false alarm of 9 pixels is in no band, and the face of
    # 9 pixels neither: the detection that hits it is ignored.
    assert [
        (p.curve.faces, p.curve.recalled[-1], p.curve.proposals[-1]) for p in (low, middle, high)
    ] == [
        (1, 1, 1),
        (1, 1, 1),
        (1, 1, 1),
    ]
    stray = by_height(evaluate(small_truth(), small_detections()), bands=[(5, 15)])[0]
    assert (stray.curve.faces, stray.curve.recalled[-1], stray.curve.proposals[-1]) == (1, 1, 2)
    with pytest.raises(WiderFaceError, match="no subset"):
        by_height(evaluate(small_truth(), small_detections()), subset="all")
    with pytest.raises(WiderFaceError, match="empty"):
        by_height(evaluate(small_truth(), small_detections()), bands=[(5, 5)])
