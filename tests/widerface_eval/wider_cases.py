"""Small ground truths and detections for the tests, in memory and on disk."""

from __future__ import annotations

import numpy as np
import scipy.io
from hypothesis import strategies as st

from evalkit.widerface_eval import SUBSETS, Detections, GroundTruth

# Coarse coordinates, so that overlaps tie and thresholds are met exactly.
whole = st.integers(0, 12).map(float)
quarters = st.integers(0, 48).map(lambda value: value / 4)
size = st.integers(0, 8).map(float)
score = st.integers(0, 20).map(lambda value: value / 20)
quarter_size = st.integers(0, 32).map(lambda value: value / 4)
face_size = st.integers(-3, 8).map(float)


def rows_of(*columns, most=6):
    return st.lists(st.tuples(*columns), max_size=most).map(
        lambda rows: np.array(rows, np.float64).reshape(-1, len(columns))
    )


def offsets_of(blocks):
    return np.cumsum([0, *map(len, blocks)], dtype=np.int64)


@st.composite
def matching_cases(draw):
    """Boxes, offsets, faces, their offsets and kept flags of a few images, some empty."""
    images = draw(st.integers(1, 4))
    boxes = [draw(rows_of(quarters, quarters, quarter_size, quarter_size)) for _ in range(images)]
    faces = [draw(rows_of(whole, whole, face_size, face_size, most=5)) for _ in range(images)]
    count = sum(map(len, faces))
    settings = draw(st.integers(1, 3))
    flags = draw(st.lists(st.booleans(), min_size=settings * count, max_size=settings * count))
    kept = np.array(flags, bool).reshape(settings, count)
    return (
        np.concatenate(boxes),
        offsets_of(boxes),
        np.concatenate(faces),
        offsets_of(faces),
        kept,
    )


@st.composite
def whole_sets(draw):
    """A ground truth that keeps something in each subset, and unsorted detections."""
    images = draw(st.integers(1, 4))
    boxes = [draw(rows_of(quarters, quarters, size, size, score)) for _ in range(images)]
    boxes[0] = np.vstack([boxes[0], [[0, 0, 5, 5, 0.0], [0, 0, 5, 5, 1.0]]])
    faces = [draw(rows_of(whole, whole, size, size, most=5)) for _ in range(images)]
    faces[0] = np.vstack([faces[0], [[0, 0, 5, 5]]])
    count = sum(map(len, faces))
    subsets = {}
    for subset in SUBSETS:
        flags = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        flags[len(faces[0]) - 1] = True
        subsets[subset] = np.array(flags, bool)
    names = [f"{index % 2}--Event/image_{index}" for index in range(images)]
    truth = GroundTruth(tuple(names), offsets_of(faces), np.concatenate(faces), subsets)
    return truth, Detections.from_rows(names, boxes)


def small_truth():
    """Two events, three images, five faces."""
    names = ("0--Parade/0_Parade_a", "0--Parade/0_Parade_b", "5--people--driving/5_jpg")
    faces = [[[10, 10, 20, 20], [50, 50, 40, 60]], [[0, 0, 0, 0]], [[5, 5, 30, 320], [60, 5, 9, 9]]]
    kept = {
        "easy": [True, False, False, True, False],
        "medium": [True, True, False, True, False],
        "hard": [True, True, False, True, True],
    }
    return GroundTruth(
        names,
        offsets_of(faces),
        np.concatenate(faces).astype(float),
        {subset: np.array(flags) for subset, flags in kept.items()},
    )


def small_detections():
    rows = [
        [[10, 10, 20, 20, 0.9], [51, 50, 40, 60, 0.8], [200, 200, 9, 9, 0.3]],
        [],
        [[5, 5, 30, 320, 0.95], [60.5, 5.25, 9, 9, 0.5]],
    ]
    return Detections.from_rows(small_truth().images, [np.array(r).reshape(-1, 5) for r in rows])


def _cell(values):
    cell = np.empty((len(values), 1), object)
    for index, value in enumerate(values):
        cell[index, 0] = value
    return cell


def write_mats(folder, truth, **changes):
    """Write a ground truth as the four official files."""
    folder.mkdir(parents=True, exist_ok=True)
    events = truth.events

    def by_event(per_image):
        return _cell(
            [
                _cell([per_image[i] for i in np.flatnonzero(truth.event_of_image == event)])
                for event in range(len(events))
            ]
        )

    spans = list(zip(truth.offsets, truth.offsets[1:], strict=False))
    common = {
        "event_list": _cell([np.array([event]) for event in events]),
        "file_list": by_event([np.array([image.split("/")[1]]) for image in truth.images]),
        "face_bbx_list": by_event([truth.boxes[a:b].astype(np.int32) for a, b in spans]),
    }
    scipy.io.savemat(folder / "wider_face_val.mat", common)
    for subset, kept in truth.subsets.items():
        numbers = [np.flatnonzero(kept[a:b]).reshape(-1, 1) + 1 for a, b in spans]
        content = {**common, "gt_list": by_event(numbers), **changes}
        scipy.io.savemat(folder / f"wider_{subset}_val.mat", content)


def write_texts(folder, truth):
    """Write a ground truth as text: annotations with flags, and the subsets' lists."""
    folder.mkdir(parents=True, exist_ok=True)
    spans = list(zip(truth.offsets, truth.offsets[1:], strict=False))
    lines = []
    for image, (start, stop) in zip(truth.images, spans, strict=True):
        boxes = truth.boxes[start:stop].astype(int)
        lines += [f"{image}.jpg", str(0 if not boxes.any() else len(boxes))]
        lines += [" ".join(map(str, box)) + " 0 0 0 0 0 0 " for box in boxes]
    (folder / "wider_face_val_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    for subset, kept in truth.subsets.items():
        text = [
            f"{image}.jpg " + " ".join(map(str, np.flatnonzero(kept[start:stop]) + 1))
            for image, (start, stop) in zip(truth.images, spans, strict=True)
        ]
        (folder / f"wider_{subset}_val.txt").write_text("\n".join(text) + "\n")
