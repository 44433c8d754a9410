"""What happens to candidates after decoding, option by option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evalkit.core.errors import InputError
from evalkit.heads import build_head
from evalkit.heads.detection import DetectionOptions, Detections, detect
from evalkit.heads.sizing import Geometry

SIZE = (64, 64)
TABLE = np.array(
    [
        [10.5, 10.5, 20.5, 20.5, 0.5],
        [11.5, 10.5, 21.5, 20.5, 0.9],
        [40.0, 40.0, 80.0, 90.0, 0.7],
        [30.0, 30.0, 30.0, 35.0, 0.95],
        [0.0, 0.0, 5.0, 5.0, 0.02],
        [50.0, 0.0, 55.0, 5.0, 0.0199],
    ],
    np.float32,
)


def run(geometry: Geometry | None = None, **options: Any) -> Detections:
    head = build_head("boxes", {"boxes": "dets", "scores": None})
    geometry = geometry or Geometry(SIZE, SIZE, SIZE)
    (found,) = detect(head, {"dets": TABLE}, [geometry], DetectionOptions(**options))
    assert found is not None
    return found


def test_defaults() -> None:
    """Sorted, the flat box gone, the threshold itself let in, the weaker twin suppressed."""
    assert run().scores.tolist() == np.float32([0.9, 0.7, 0.02]).tolist()


@pytest.mark.parametrize(
    "row",
    [[10, 10, 9, 20, 0.5], [10, 10, 20, 9, 0.5], [0, 0, 1e30, 1, 0.5], [0, np.inf, 1, 9, 0.5]],
)
def test_a_box_that_is_none_fails_its_image_and_no_other(row: list[float]) -> None:
    good = [1.0, 2.0, 30.0, 40.0, 0.5]
    head = build_head("boxes", {"boxes": "dets", "scores": None})
    outputs = {"dets": np.array([[good, row], [good, good]], np.float32)}
    failed, found = detect(head, outputs, [Geometry(SIZE, SIZE, SIZE)] * 2, DetectionOptions())
    assert failed is None
    assert found is not None
    assert found.boxes.tolist() == [good[:4]]
    # Below the threshold it is nobody's concern.
    outputs["dets"][0, 1, 4] = 0.01
    failed, _ = detect(head, outputs, [Geometry(SIZE, SIZE, SIZE)] * 2, DetectionOptions())
    assert failed is not None


def test_a_box_that_leaves_all_bounds_in_the_image_fails_it() -> None:
    head = build_head("boxes", {"boxes": "dets", "scores": None})
    outputs = {"dets": np.array([[0, 0, 9e8, 60, 0.5]], np.float32)}
    geometries = [Geometry((640, 640), SIZE, SIZE)]
    assert detect(head, outputs, geometries, DetectionOptions()) == [None]


def test_scores_that_are_no_probabilities_are_refused() -> None:
    head = build_head("boxes", {"boxes": "dets", "scores": None})
    outputs = {"dets": np.array([[1, 1, 9, 9, 0.4], [1, 1, 9, 9, 57]], np.float32)}
    with pytest.raises(InputError, match=r"reads a score of 57 .* sigmoid or softmax is missing"):
        detect(head, outputs, [Geometry(SIZE, SIZE, SIZE)], DetectionOptions())


def test_options_one_by_one() -> None:
    assert len(run(nms_threshold=None)) == 4
    assert run(score_threshold=0.6).scores.tolist() == np.float32([0.9, 0.7]).tolist()
    assert run(top_k_after=1).scores.tolist() == [np.float32(0.9)]
    assert run(nms_threshold=None, top_k_after=2).scores.tolist() == np.float32([0.9, 0.7]).tolist()
    # The weaker twin is the third of those with an area.
    assert run(top_k_before=3).scores.tolist() == np.float32([0.9, 0.7]).tolist()
    assert run(clip=True).boxes[1].tolist() == [40, 40, 64, 64]
    assert run(truncate=True).boxes[0].tolist() == [11, 10, 21, 20]


def test_suppression_is_in_pixels_of_the_image() -> None:
    """The extra pixel of the convention is one of the original image, whatever its scale."""
    geometry = Geometry((640, 640), SIZE, SIZE)
    np.testing.assert_allclose(run(geometry).boxes[0], [115, 105, 215, 205])


def test_options_are_checked_and_recorded() -> None:
    assert DetectionOptions().settings() == {
        "score_threshold": 0.02,
        "nms_threshold": 0.4,
        "nms_overlap": "plus_one",
        "top_k_before": None,
        "top_k_after": None,
        "clip": False,
        "truncate": False,
    }
    with pytest.raises(InputError, match="score_threshold is 2"):
        DetectionOptions(score_threshold=2)
    with pytest.raises(InputError, match="top_k_after is 0"):
        DetectionOptions(top_k_after=0)
    with pytest.raises(InputError, match="plus_one, continuous"):
        DetectionOptions(nms_overlap="other")  # type: ignore[arg-type]


def test_records_must_agree() -> None:
    with pytest.raises(ValueError, match="2 scores do not go with boxes"):
        Detections(np.zeros((1, 4), np.float32), np.zeros(2, np.float32))
