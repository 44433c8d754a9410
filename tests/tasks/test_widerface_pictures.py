"""Pictures of the worst images, on a tiny WIDER FACE tree."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.core.errors import InputError
from evalkit.datasets.widerface import load_widerface
from evalkit.tasks.widerface import drawing, pictures
from evalkit.tasks.widerface.drawing import COLOURS
from evalkit.tasks.widerface.pictures import write_detection_pictures
from evalkit.tasks.widerface.scenes import (
    SAVED,
    Scene,
    best_f1_threshold,
    saved_scenes,
    scene_arrays,
    worst_scenes,
)
from evalkit.widerface_eval import Detections, GroundTruth, evaluate
from evalkit.widerface_eval.records import offsets_of

MISSED = "0--Parade/0_Parade_missed"
ALARM = "0--Parade/0_Parade_alarm"
GOOD = "5--Odd & ends/.hidden; rm -rf ~ é"
NAMES = (GOOD, MISSED, ALARM)
FACES = ([[20, 20, 30, 40]], [[50, 20, 30, 40], [90, 60, 20, 20]], [[30, 30, 40, 40]])
FOUND = (
    [[20, 20, 30, 40, 0.9]],
    [[10, 90, 9, 9, 0.1]],
    [[30, 30, 40, 40, 0.8], [90, 20, 30, 30, 0.7], [30, 31, 40, 40, 0.6]],
)


def truth_of(faces=FACES, names=NAMES, kept=None):
    boxes = np.array([box for rows in faces for box in rows], float).reshape(-1, 4)
    everything = np.ones(len(boxes), bool)
    subsets = {"easy": everything if kept is None else np.array(kept, bool), "hard": everything}
    return GroundTruth(names, offsets_of([len(rows) for rows in faces]), boxes, subsets)


def detections_of(found=FOUND, names=NAMES):
    return Detections.from_rows(names, [np.array(rows, float).reshape(-1, 5) for rows in found])


@pytest.fixture
def wider(tmp_path):
    root = tmp_path / "data"
    lines = []
    for name, faces in zip(NAMES, FACES, strict=True):
        path = root / "WIDER_val" / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((120, 160, 3), 90, np.uint8))
        lines += [f"{name}.jpg", str(len(faces))]
        lines += [" ".join(map(str, face)) + " 0 0 0 0 0 0" for face in faces]
    (root / "wider_face_val_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return load_widerface(root)


@pytest.fixture
def at_half(monkeypatch):
    """Draws the detections with a score of at least a half."""
    monkeypatch.setattr(pictures, "best_f1_threshold", lambda *_: 0.5)


def drawn_in(path):
    """Kinds whose colour a picture has, without the frame that holds the legend."""
    picture = cv2.imread(str(path))[44:-88].astype(int)
    # A box's line is longer than 100 pixels here, and 2 wide; JPEG makes no such colours of grey.
    return {
        kind
        for kind, colour in COLOURS.items()
        if np.count_nonzero(np.abs(picture - colour).max(axis=2) < 40) >= 200
    }


def test_worst_images_come_first_and_good_ones_are_left_out(wider, tmp_path, at_half, monkeypatch):
    evaluation = evaluate(truth_of(), detections_of())
    out = tmp_path / "out"
    written = write_detection_pictures(out, wider, evaluation)
    assert [path.name for path in written[:3]] == [
        "easy-overview.jpg",
        "easy-01-0--Parade-0_Parade_missed.jpg",
        "easy-02-0--Parade-0_Parade_alarm.jpg",
    ]
    assert len(written) == 6
    assert set(out.iterdir()) == set(written)
    monkeypatch.setattr(pictures, "_WORST", 1)
    first = write_detection_pictures(out, wider, evaluation)
    assert [path.name for path in first] == [
        "easy-overview.jpg",
        "easy-01-0--Parade-0_Parade_missed.jpg",
        "hard-overview.jpg",
        "hard-01-0--Parade-0_Parade_missed.jpg",
    ]


def test_every_kind_has_its_colour(wider, tmp_path, at_half):
    truth = truth_of(kept=[True, True, False, True])
    evaluation = evaluate(truth, detections_of())
    written = write_detection_pictures(tmp_path / "out", wider, evaluation)
    pictures = {path.name: path for path in written}
    alarm = pictures["easy-01-0--Parade-0_Parade_alarm.jpg"]
    missed = pictures["easy-02-0--Parade-0_Parade_missed.jpg"]
    assert drawn_in(alarm) == {"hit", "false alarm"}
    assert drawn_in(missed) == {"miss", "ignored"}


def test_captions_of_the_overview_are_whole():
    """Counts of up to three digits fit below a thumbnail."""
    boxes = {kind: np.zeros((999, 4)) for kind in COLOURS}
    boxes["ignored"] = np.zeros((1998, 4))
    scene = Scene("a/b", boxes, np.zeros((0, 4)), 999, {})
    for line in scene.counts:
        assert line.count("999") >= 2
        assert drawing._shortened(line, drawing._THUMBNAIL[0]) == line


def test_a_lower_threshold_shows_more():
    evaluation = evaluate(truth_of(), detections_of())
    kinds = [
        {
            kind
            for kind, boxes in worst_scenes(evaluation, "easy", at, 1)[0].boxes.items()
            if len(boxes)
        }
        for at in (0.5, 0.05)
    ]
    assert kinds == [{"miss"}, {"miss", "false alarm"}]


def test_names_never_leave_the_folder(wider, tmp_path):
    found = detections_of(([], *FOUND[1:]))
    out = tmp_path / "out"
    written = write_detection_pictures(out, wider, evaluate(truth_of(), found))
    assert any("hidden" in path.name for path in written)
    for path in written:
        assert path.parent == out
        assert path.name.isascii()
        assert not set(path.name) & set(" ;&~/\\")
        assert path.name[0] != "."
    truth = truth_of()
    truth = GroundTruth(
        truth.images, truth.offsets, truth.boxes, {"../../up": truth.subsets["hard"]}
    )
    for path in write_detection_pictures(out, wider, evaluate(truth, found)):
        assert path.resolve().parent == out.resolve()


def test_an_unreadable_image_is_drawn_on_grey(wider, tmp_path, at_half):
    wider.images.path(1).write_bytes(b"no image")
    evaluation = evaluate(truth_of(), detections_of())
    written = write_detection_pictures(tmp_path / "out", wider, evaluation)
    assert drawn_in(written[1]) == {"miss"}
    assert np.median(cv2.imread(str(written[1]))[44:-88, 500:700]) == 96


def test_boxes_far_outside_the_image_are_no_trouble(wider, tmp_path, at_half):
    far = [[-9e8, 20, 9.5e8, 9e8, 0.95], [9e8, 9e8, 5, 5, 0.9], [10, 10, 0, 0, 0.9]]
    evaluation = evaluate(truth_of(), detections_of((FOUND[0], far, FOUND[2])))
    written = write_detection_pictures(tmp_path / "out", wider, evaluation)
    assert cv2.imread(str(written[1])).shape[1] <= 1600


def test_images_that_only_one_side_has_are_left_out(wider, tmp_path, at_half):
    names = (GOOD, "0--Parade/elsewhere", ALARM)
    evaluation = evaluate(truth_of(names=names), detections_of(names=names))
    written = write_detection_pictures(tmp_path / "out", wider, evaluation)
    assert [path.name for path in written if "overview" not in path.name] == [
        "easy-01-0--Parade-0_Parade_alarm.jpg",
        "hard-01-0--Parade-0_Parade_alarm.jpg",
    ]


def test_a_subset_without_faces_or_errors_has_no_pictures(wider, tmp_path):
    evaluation = evaluate(truth_of(kept=[False] * 4), detections_of())
    written = write_detection_pictures(tmp_path / "out", wider, evaluation)
    assert written
    assert all(path.name.startswith("hard") for path in written)
    exact = [[[*face, 0.9 - place / 10] for face in FACES[place]] for place in range(3)]
    evaluation = evaluate(truth_of(), detections_of(exact))
    assert write_detection_pictures(tmp_path / "none", wider, evaluation) == []


def test_a_folder_that_is_a_file_is_named(wider, tmp_path, at_half):
    (tmp_path / "out").write_text("a file")
    evaluation = evaluate(truth_of(), detections_of())
    with pytest.raises(InputError, match=r"Cannot write .*out"):
        write_detection_pictures(tmp_path / "out", wider, evaluation)


coordinate = st.integers(0, 10).map(float)
side = st.integers(0, 6).map(float)
score = st.integers(0, 10).map(lambda value: value / 10)


def rows(*columns, most):
    return st.lists(st.tuples(*columns).map(list), max_size=most)


@st.composite
def small_sets(draw):
    images = draw(st.integers(1, 3))
    faces = [draw(rows(coordinate, coordinate, side, side, most=4)) for _ in range(images)]
    found = [draw(rows(coordinate, coordinate, side, side, score, most=5)) for _ in range(images)]
    faces[0].append([0, 0, 5, 5])
    found[0] += [[0, 0, 5, 5, 1.0], [8, 8, 5, 5, 0.0]]
    count = sum(map(len, faces))
    kept = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    kept[len(faces[0]) - 1] = True
    names = tuple(f"0--Event/{index}" for index in range(images))
    return evaluate(truth_of(faces, names, kept), detections_of(found, names))


def judged_slowly(evaluation, row, threshold):
    """Hits, misses and false alarms of each image, by cutting the detections and matching anew."""
    found, truth = evaluation.detections, evaluation.ground_truth
    kept = list(truth.subsets.values())[row]
    counts = []
    for image in range(len(truth.images)):
        faces = range(truth.offsets[image], truth.offsets[image + 1])
        hit, alarms = set(), 0
        for index in range(found.offsets[image], found.offsets[image + 1]):
            if found.scores[index] < threshold:
                continue
            face = evaluation.matches.best[index]
            if (face < 0 and faces) or face in hit:
                alarms += 1
            elif face >= 0 and kept[face]:
                hit.add(face)
        misses = sum(bool(kept[face]) and face not in hit for face in faces)
        counts.append((len(hit), misses, alarms))
    return counts


@given(small_sets(), score)
def test_scenes_equal_those_judged_slowly(evaluation, threshold):
    for row, subset in enumerate(("easy", "hard")):
        expected = judged_slowly(evaluation, row, threshold)
        scenes = worst_scenes(evaluation, subset, threshold, 10)
        seen = {
            scene.name: tuple(len(scene.boxes[kind]) for kind in ("hit", "miss", "false alarm"))
            for scene in scenes
        }
        names = evaluation.ground_truth.images
        assert seen == {
            name: counts
            for name, counts in zip(names, expected, strict=True)
            if counts[1] + counts[2]
        }
        errors = [misses + alarms for _, misses, alarms in seen.values()]
        assert errors == sorted(errors, reverse=True)


@given(small_sets())
def test_the_default_threshold_has_the_best_f1(evaluation):
    for row, subset in enumerate(evaluation.ground_truth.subsets):
        f1 = {}
        for threshold in np.unique(evaluation.detections.scores):
            hits, misses, alarms = np.sum(judged_slowly(evaluation, row, threshold), axis=0)
            f1[threshold] = 2 * hits / (2 * hits + misses + alarms)
        assert f1[best_f1_threshold(evaluation, subset)] == pytest.approx(max(f1.values()))


def test_scenes_are_kept_beside_a_result_whole():
    evaluation = evaluate(truth_of(kept=[True, True, False, True]), detections_of())
    subset, scenes = saved_scenes(scene_arrays(evaluation))
    expected = worst_scenes(evaluation, "hard", best_f1_threshold(evaluation, "hard"), SAVED)
    assert subset == "hard"
    assert [scene.name for scene in scenes] == [scene.name for scene in expected]
    for scene, other in zip(scenes, expected, strict=True):
        assert scene.counts == other.counts
        assert np.array_equal(scene.faces, other.faces)
        assert scene.boxes.keys() == other.boxes.keys()
        assert all(np.array_equal(scene.boxes[kind], other.boxes[kind]) for kind in scene.boxes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.clear(), "no worst images beside"),
        (lambda arrays: arrays.pop("scene_boxes"), "damaged"),
        (lambda arrays: arrays.update(scene_boxes=np.zeros((1, 4))), "damaged"),
        (lambda arrays: arrays.update(scene_boxes=np.array(["a"] * 4)[None]), "damaged"),
    ],
)
def test_scenes_that_are_lost_or_damaged_are_errors(change, message):
    arrays = scene_arrays(evaluate(truth_of(), detections_of()))
    change(arrays)
    with pytest.raises(InputError, match=message):
        saved_scenes(arrays)
