"""Box voting against the loop of the public protocols, and its rules."""

from __future__ import annotations

import numpy as np
import pytest
from head_references import overlap

from evalkit.heads.detection import Detections
from evalkit.heads.voting import vote


def crowd(seed: int, count: int) -> Detections:
    rng = np.random.default_rng(seed)
    faces = rng.uniform(0, 120, (6, 2))[rng.integers(0, 6, count)]
    corner = faces + rng.normal(0, 3, (count, 2))
    boxes = np.hstack([corner, corner + rng.uniform(18, 30, (count, 2))])
    scores = rng.permutation(count) / count + 0.01
    return Detections(
        boxes.astype(np.float32),
        scores.astype(np.float32),
        rng.uniform(0, 100, (count, 5, 2)).astype(np.float32),
    )


def slow_vote(
    rows: list[tuple[list[float], float]], threshold: float, extra: float, keep_single: bool
) -> list[tuple[list[float], float]]:
    rows = sorted(rows, key=lambda row: -row[1])
    voted = []
    while rows:
        best = rows[0][0]
        group = [row for row in rows if overlap(best, row[0], extra) >= threshold]
        rows = [row for row in rows if overlap(best, row[0], extra) < threshold]
        if len(group) > 1 or keep_single:
            total = sum(score for _, score in group)
            mean = [sum(box[k] * score for box, score in group) / total for k in range(4)]
            voted.append((mean, group[0][1]))
    return voted


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("keep_single", [True, False])
def test_equals_the_loop(seed: int, keep_single: bool) -> None:
    views = [crowd(seed, 40), crowd(seed + 100, 25)]
    rows = [
        (box, score)
        for view in views
        for box, score in zip(view.boxes.tolist(), view.scores.tolist(), strict=True)
    ]
    expected = slow_vote(rows, 0.4, 1, keep_single)
    found = vote(views, 0.4, keep_single=keep_single, limit=None)
    np.testing.assert_allclose(found.boxes, [row[0] for row in expected], rtol=1e-5)
    np.testing.assert_array_equal(found.scores, np.float32([row[1] for row in expected]))
    assert (np.diff(found.scores) <= 0).all()
    first = vote(views, 0.4, keep_single=keep_single, limit=3)
    np.testing.assert_array_equal(first.boxes, found.boxes[:3])


def test_landmarks_are_weighted_too() -> None:
    box = np.array([[0, 0, 10, 10]], np.float32)
    near = Detections(box, np.array([0.75], np.float32), np.zeros((1, 5, 2), np.float32))
    far = Detections(box, np.array([0.25], np.float32), np.ones((1, 5, 2), np.float32))
    found = vote([near, far])
    assert found.landmarks is not None
    np.testing.assert_allclose(found.landmarks, 0.25)
    assert vote([near, Detections(box, far.scores)]).landmarks is None


def test_one_view_of_separate_boxes_is_unchanged() -> None:
    boxes = np.array([[0, 0, 5, 5], [50, 50, 60, 60]], np.float32)
    found = vote([Detections(boxes, np.array([0.0, 0.5], np.float32))])
    assert found.boxes.tolist() == boxes[::-1].tolist()
    assert len(vote([Detections(boxes, np.array([0.1, 0.5], np.float32))], keep_single=False)) == 0


def test_nothing_is_voted_into_nothing() -> None:
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    assert len(vote([empty, empty])) == 0
    with pytest.raises(ValueError, match="at least one view"):
        vote([])
