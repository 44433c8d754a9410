"""Selecting images of a ground truth."""

from __future__ import annotations

import numpy as np
import pytest

from evalkit.widerface_eval import GroundTruth, WiderFaceError

TRUTH = GroundTruth(
    images=("a/1", "a/2", "b/3"),
    offsets=np.array([0, 2, 2, 3]),
    boxes=np.array([[0.0, 0, 1, 1], [1, 1, 2, 2], [3, 3, 4, 4]]),
    subsets={"easy": np.array([True, False, True])},
)


def test_take_reorders_images_with_their_faces() -> None:
    taken = TRUTH.take(["b/3", "a/1"])
    assert taken.images == ("b/3", "a/1")
    assert taken.offsets.tolist() == [0, 1, 3]
    assert taken.boxes[:, 0].tolist() == [3, 0, 1]
    assert taken.subsets["easy"].tolist() == [True, True, False]


def test_take_refuses_an_unknown_image() -> None:
    with pytest.raises(WiderFaceError, match=r"has no image .*c/4"):
        TRUTH.take(["a/1", "c/4"])


def test_only_keeps_whole_events() -> None:
    assert TRUTH.only(["a"]).images == ("a/1", "a/2")
