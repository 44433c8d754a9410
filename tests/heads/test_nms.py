"""Suppression against the textbook, OpenCV, and its own rules."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from head_references import greedy, overlap
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evalkit.heads.nms import OVERLAPS, Overlap, extra_pixel, nms

Case = tuple[NDArray[np.float32], NDArray[np.float32]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    # Few distinct places and scores: ties and overlaps of exactly the threshold are common.
    count = draw(st.integers(0, 25))
    whole = st.integers(0, 12)
    rows = draw(st.lists(st.tuples(whole, whole, whole, whole), min_size=count, max_size=count))
    scores = draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2] + 1
    return boxes, np.array(scores, np.float32) / 8


@given(cases(), st.sampled_from([0.0, 0.3, 0.4, 0.5, 1.0]), st.sampled_from(OVERLAPS))
def test_equals_the_textbook(case: Case, threshold: float, rule: Overlap) -> None:
    boxes, scores = case
    expected = greedy(boxes, scores, threshold, extra_pixel(rule))
    assert nms(boxes, scores, threshold, overlap=rule).tolist() == expected


@given(cases(), st.sampled_from([0.3, 0.4, 0.5]))
def test_no_two_kept_boxes_overlap_and_each_lost_one_has_a_better(
    case: Case, threshold: float
) -> None:
    boxes, scores = case
    kept = nms(boxes, scores, threshold).tolist()
    for place, row in enumerate(kept):
        assert all(overlap(boxes[row], boxes[k], 1) <= threshold for k in kept[:place])
    for row in set(range(len(boxes))) - set(kept):
        better = [k for k in kept if scores[k] >= scores[row]]
        assert any(overlap(boxes[row], boxes[k], 1) > threshold for k in better)


@pytest.mark.parametrize("seed", range(20))
def test_equals_opencv(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 200, (300, 2))
    wide = np.hstack([corners, rng.uniform(5, 60, (300, 2))]).astype(np.float32)
    boxes = np.hstack([wide[:, :2], wide[:, :2] + wide[:, 2:]])
    scores = rng.permutation(300).astype(np.float32) / 300 + np.float32(0.001)
    expected = cv2.dnn.NMSBoxes(wide.astype(np.float64), scores, 0.0, 0.45)
    assert nms(boxes, scores, 0.45, overlap="continuous").tolist() == list(expected)


@given(cases(), st.integers(1, 10))
def test_a_limit_takes_the_first(case: Case, limit: int) -> None:
    boxes, scores = case
    assert nms(boxes, scores, 0.4, limit=limit).tolist() == nms(boxes, scores, 0.4)[:limit].tolist()


def test_the_extra_pixel_decides() -> None:
    # Shared are 5 of 15 without the extra pixel, 12 of 32 with it.
    boxes = np.array([[0, 0, 10, 1], [5, 0, 15, 1]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert len(nms(boxes, scores, 0.35, overlap="plus_one")) == 1
    assert len(nms(boxes, scores, 0.35, overlap="continuous")) == 2


def test_refuses_what_it_cannot_judge() -> None:
    boxes, scores = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match=r"\(n, 4\)"):
        nms(boxes, scores[:1], 0.4)
    with pytest.raises(ValueError, match="finite"):
        nms(boxes, np.array([0, np.nan], np.float32), 0.4)
    with pytest.raises(ValueError, match="between 0 and 1"):
        nms(boxes, scores, 40.0)
    with pytest.raises(ValueError, match="plus_one, continuous"):
        nms(boxes, scores, 0.4, overlap="other")  # type: ignore[arg-type]
