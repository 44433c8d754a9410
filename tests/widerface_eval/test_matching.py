from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wider_cases import matching_cases

from evalkit.widerface_eval import Detections, GroundTruth, WiderFaceError, match_boxes
from evalkit.widerface_eval._reference import as_int32

BOX = np.array([[10.0, 10, 20, 20]])
ONE = np.array([0, 1])
KEPT = np.array([[True]])


def records(boxes, offsets, faces, face_offsets, kept):
    names = tuple(f"e/{index}" for index in range(len(offsets) - 1))
    subsets = {str(setting): flags for setting, flags in enumerate(kept)}
    return (
        Detections(names, offsets, boxes, np.zeros(len(boxes))),
        GroundTruth(names, face_offsets, faces, subsets),
    )


def both(*arrays, **options):
    """Run the two kernels; compare results, or exceptions."""
    answers = []
    for kernel in ("compiled", "reference"):
        try:
            answers.append(match_boxes(*records(*arrays), kernel=kernel, **options))
        except WiderFaceError as error:
            answers.append(str(error))
    compiled, reference = answers
    if isinstance(reference, str) or isinstance(compiled, str):
        assert compiled == reference
        return compiled
    for field in ("best", "overlap", "outcome", "recalled"):
        np.testing.assert_array_equal(getattr(compiled, field), getattr(reference, field), field)
    return compiled


@given(
    matching_cases(),
    st.sampled_from([0.25, 1 / 3, 0.5, 0.75, 1.0]),
    st.sampled_from([1, 3]),
)
def test_the_kernel_equals_the_reference(case, iou, threads):
    both(*case, iou=iou, threads=threads)


@given(matching_cases(), st.sampled_from([1, 3]))
def test_the_kernel_equals_the_reference_in_int32(case, threads):
    both(*case, arithmetic="int32", threads=threads)


@given(matching_cases())
def test_a_face_is_recalled_once_and_only_if_kept(case):
    kept = case[4]
    matches = match_boxes(*records(*case))
    for setting, outcome in enumerate(matches.outcome):
        faces = matches.best[outcome == 1]
        assert len(set(faces)) == len(faces)
        assert kept[setting, faces].all()
        np.testing.assert_array_equal(
            np.flatnonzero(matches.recalled[setting]), np.sort(np.unique(faces))
        )


@given(matching_cases())
def test_settings_do_not_touch_each_other(case):
    kept = case[4]
    together = match_boxes(*records(*case))
    for setting in range(len(kept)):
        alone = match_boxes(*records(*case), kept[setting : setting + 1])
        np.testing.assert_array_equal(alone.outcome[0], together.outcome[setting])


def test_the_overlap_counts_the_last_pixel():
    # 10 and 5 wide without it: one half; 11 and 6 with it.
    faces = np.array([[0.0, 0, 10, 0]])
    matches = both(np.array([[0.0, 0, 5, 0]]), ONE, faces, ONE, KEPT)
    assert matches.overlap[0] == 6 / 11


def test_an_overlap_of_exactly_the_threshold_is_a_hit():
    matches = both(np.array([[0.0, 0, 4, 9]]), ONE, np.array([[0.0, 0, 9, 9]]), ONE, KEPT)
    assert matches.overlap[0] == 0.5
    assert matches.outcome[0, 0] == 1


def test_the_first_of_equal_faces_is_hit_and_a_second_hit_is_false():
    faces = np.repeat(BOX, 2, axis=0)
    boxes = np.repeat(BOX, 2, axis=0)
    two = np.array([0, 2])
    matches = both(boxes, two, faces, two, np.array([[True, True]]))
    assert matches.best.tolist() == [0, 0]
    assert matches.outcome.tolist() == [[1, 0]]


def test_the_best_face_counts_even_if_it_is_not_kept():
    faces = np.array([[10.0, 10, 20, 20], [11, 10, 20, 20]])
    matches = both(BOX, ONE, faces, np.array([0, 2]), np.array([[False, True]]))
    assert matches.outcome.tolist() == [[-1]]
    assert not matches.recalled.any()


def test_an_image_without_annotation_is_ignored():
    matches = both(BOX, ONE, np.empty((0, 4)), np.array([0, 0]), np.empty((1, 0), bool))
    assert matches.outcome.tolist() == [[-1]]
    assert matches.best.tolist() == [-1]


def test_the_official_box_of_negative_width_is_never_hit():
    face = np.array([[1026.0, 474, -2, 23]])
    boxes = np.array([[1024.0, 474, 2, 23], [1024, 474, 0, 23], [1000, 450, 60, 60]])
    for arithmetic in ("double", "int32"):
        matches = both(boxes, np.array([0, 3]), face, ONE, KEPT, arithmetic=arithmetic)
        assert matches.overlap.tolist() == [0, 0, 0]


def test_int32_takes_the_first_face_with_one_half_and_rounds_coordinates():
    faces = np.array([[12.0, 10, 20, 20], [10, 10, 20, 20]])
    kept = np.array([[True, True]])
    assert both(BOX, ONE, faces, np.array([0, 2]), kept).best.tolist() == [1]
    older = both(BOX, ONE, faces, np.array([0, 2]), kept, arithmetic="int32")
    assert older.best.tolist() == [0]
    assert older.overlap.tolist() == [1]
    # By hand: the corners 0.5 and 3.5 become 1 and 4, so 4 of 9 + 4 x 1 - 4 pixels are shared.
    box, face = np.array([[0.5, 0, 3, 0]]), np.array([[0.0, 0, 8, 0]])
    assert both(box, ONE, face, ONE, KEPT).overlap[0] == 4 / 9
    assert both(box, ONE, face, ONE, KEPT, arithmetic="int32").overlap[0] == 0


def test_int32_rounding_is_that_of_matlab():
    values = np.array([-2.5, -1.5, -0.5, -0.49, 0.49, 0.5, 1.5, 2.5, 1e12, -1e12])
    expected = [-3, -2, -1, 0, 0, 1, 2, 3, 2**31 - 1, -(2**31)]
    assert as_int32(values).tolist() == expected


def test_boxes_as_large_as_allowed_saturate_alike():
    boxes = np.array([[-1e9, -1e9, 1e9, 1e9], [0, 0, 1e9, 1e9]])
    faces = np.array([[0.0, 0, 1e9, 1e9]])
    both(boxes, np.array([0, 2]), faces, ONE, KEPT, arithmetic="int32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou": 0.0}, "IoU threshold is 0"),
        ({"iou": np.nan}, "IoU threshold is nan"),
        ({"iou": 1.5}, "at most 1"),
        ({"arithmetic": "float16"}, "no arithmetic"),
        ({"arithmetic": "int32", "iou": 0.7}, "no meaning"),
        ({"threads": 0}, "0 threads"),
    ],
)
def test_options_out_of_range_are_refused_alike(options, message):
    answer = both(BOX, ONE, BOX, ONE, KEPT, **options)
    assert isinstance(answer, str)
    with pytest.raises(WiderFaceError, match=message):
        match_boxes(*records(BOX, ONE, BOX, ONE, KEPT), **options)


def test_int32_needs_whole_pixels():
    face = np.array([[0.5, 0, 1, 1]])
    answer = both(BOX, ONE, face, ONE, KEPT, arithmetic="int32")
    assert "whole pixels" in answer


def test_an_unknown_kernel_is_refused():
    with pytest.raises(WiderFaceError, match="no kernel 'fast'"):
        match_boxes(*records(BOX, ONE, BOX, ONE, KEPT), kernel="fast")


def test_detections_of_other_images_are_refused():
    detections, truth = records(BOX, ONE, BOX, ONE, KEPT)
    other = Detections(("e/9",), detections.offsets, detections.boxes, detections.scores)
    with pytest.raises(WiderFaceError, match="not of the ground truth's images: e/0, e/9"):
        match_boxes(other, truth)
