"""The figures of real prediction sets, obtained by other code on these very files."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest

from evalkit.widerface_eval import (
    Detections,
    Settings,
    evaluate,
    read_ground_truth,
    read_predictions,
)
from evalkit.widerface_eval import _reference as reference
from evalkit.widerface_eval.__main__ import main
from evalkit.widerface_eval.ground_truth import read_annotation_text

FIGURES = {
    "retinaface-mnet025": (0.907076104848709, 0.8816501731241937, 0.7382726532319118),
    "rfb-320": (0.8147677534285981, 0.7106850326719537, 0.36314699652220983),
}


@pytest.fixture(scope="module")
def widerface(shared_data):
    return shared_data / "widerface"


@pytest.fixture(scope="module")
def truth(widerface):
    return read_ground_truth(widerface / "ground_truth")


@pytest.fixture(scope="module")
def folders(widerface, tmp_path_factory):
    root = tmp_path_factory.mktemp("predictions")
    for name in FIGURES:
        with tarfile.open(widerface / "predictions" / f"{name}.tar.xz") as archive:
            archive.extractall(root / name, filter="data")
    return root


@pytest.fixture(scope="module")
def detections(folders, truth):
    return {name: read_predictions(folders / name, truth.images).detections for name in FIGURES}


def test_the_ground_truth_has_the_published_counts(truth):
    assert (len(truth.events), len(truth.images), len(truth.boxes)) == (61, 3226, 39708)
    assert np.diff(truth.offsets).max() == 709
    assert {name: int(kept.sum()) for name, kept in truth.subsets.items()} == {
        "easy": 7211,
        "medium": 13319,
        "hard": 31958,
    }
    easy, medium, hard = truth.subsets.values()
    assert not (easy & ~medium).any()
    assert not (medium & ~hard).any()
    without = [
        len(truth.images) - len(np.unique(truth.image_of[kept])) for kept in truth.subsets.values()
    ]
    assert without == [622, 207, 7]
    assert (truth.boxes[truth.boxes[:, 2] < 0]).tolist() == [[1026, 474, -2, 23]]


@pytest.mark.parametrize("name", FIGURES)
def test_the_text_with_the_official_subsets_gives_the_same_figures(
    widerface, truth, detections, tmp_path, name
):
    for path in (widerface / "ground_truth").iterdir():
        if path.name != "wider_face_val.mat":
            (tmp_path / path.name).symlink_to(path)
    text = read_ground_truth(tmp_path)
    assert evaluate(text, detections[name]).ap == evaluate(truth, detections[name]).ap


def test_the_text_has_the_boxes_of_the_mat_file(widerface, truth):
    images, boxes = read_annotation_text(widerface / "ground_truth" / "wider_face_val_bbx_gt.txt")
    blocks = dict(zip(images, boxes, strict=True))
    assert blocks.keys() == set(truth.images)
    ours = np.concatenate([blocks[image] for image in truth.images])
    np.testing.assert_array_equal(ours, truth.boxes)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("rule", ["python", "python_file_order"])
def test_ap_equals_the_public_python_code(truth, detections, name, rule):
    ap = evaluate(truth, detections[name], Settings(rule)).ap
    assert tuple(ap.values()) == pytest.approx(FIGURES[name], abs=1e-12)


@pytest.mark.parametrize("name", FIGURES)
def test_single_precision_moves_the_figure_a_little(truth, detections, name):
    ap = evaluate(truth, detections[name], Settings("matlab")).ap
    assert tuple(ap.values()) == pytest.approx(FIGURES[name], abs=1e-6)


def test_the_event_alone(truth, folders):
    picnic = truth.only(["22--Picnic"])
    reading = read_predictions(folders / "retinaface-mnet025", picnic.images, known=truth.images)
    result = evaluate(picnic, reading.detections)
    assert [curve.faces for curve in result.curves.values()] == [36, 61, 137]
    assert [round(ap, 5) for ap in result.ap.values()] == [0.89844, 0.92361, 0.68787]


def test_the_kernel_equals_the_reference_on_the_event(truth, folders):
    picnic = truth.only(["22--Picnic"])
    for name in FIGURES:
        found = read_predictions(folders / name, picnic.images, known=truth.images).detections
        for rule in ("python", "matlab_int"):
            fast = evaluate(picnic, found, Settings(rule))
            slow = evaluate(picnic, found, Settings(rule), kernel="reference")
            np.testing.assert_array_equal(fast.matches.outcome, slow.matches.outcome)
            np.testing.assert_array_equal(fast.matches.overlap, slow.matches.overlap)
            assert fast.ap == slow.ap


def test_a_cut_at_a_score_loses_what_is_known(truth, detections):
    whole = detections["retinaface-mnet025"]
    above = whole.scores >= 0.3
    counts = np.bincount(whole.image_of[above], minlength=len(truth.images))
    cut = Detections(whole.images, np.cumsum([0, *counts]), whole.boxes[above], whole.scores[above])
    assert [round(ap, 3) for ap in evaluate(truth, cut).ap.values()] == [0.898, 0.864, 0.666]


def test_a_reversed_file_is_sorted_or_gives_the_public_codes_wrong_figure(truth, detections):
    whole = detections["retinaface-mnet025"]
    starts, stops = whole.offsets[:-1], whole.offsets[1:]
    turned = np.concatenate(
        [np.arange(start, stop)[::-1] for start, stop in zip(starts, stops, strict=True)]
    )
    backwards = Detections(whole.images, whole.offsets, whole.boxes[turned], whole.scores[turned])
    public = evaluate(truth, backwards, Settings("python_file_order"))
    assert [round(ap, 3) for ap in public.ap.values()] == [0.052, 0.086, 0.110]
    sorted_ = evaluate(truth, backwards)
    # Not equal to the last digit: equal scores are now in the other order.
    assert tuple(sorted_.ap.values()) == pytest.approx(FIGURES["retinaface-mnet025"], abs=1e-4)
    assert "have been sorted" in sorted_.warnings[0]


@pytest.mark.parametrize("name", FIGURES)
def test_real_boxes_of_another_form_are_suspected(truth, detections, name):
    given = detections[name]
    assert evaluate(truth, given).warnings == ()
    x, y, width, height = given.boxes.T
    for other in (
        [x, y, np.maximum(x + width, 0), np.maximum(y + height, 0)],
        [y, x, height, width],
        [x + width / 2, y + height / 2, width, height],
        [x / 1024, y / 1024, width / 1024, height / 1024],
    ):
        wrong = Detections(given.images, given.offsets, np.column_stack(other), given.scores)
        assert "not x1 y1 x2 y2" in evaluate(truth, wrong).warnings[-1]


@pytest.mark.slow
def test_without_the_last_pixel_another_known_figure_appears(truth, detections, monkeypatch):
    monkeypatch.setattr(reference, "overlaps", _overlaps_without_the_last_pixel)
    ap = evaluate(truth, detections["retinaface-mnet025"], kernel="reference").ap
    assert [round(value, 5) for value in ap.values()] == [0.90531, 0.87835, 0.72002]


def _overlaps_without_the_last_pixel(box, faces):
    width = np.minimum(box[2], faces[:, 2]) - np.maximum(box[0], faces[:, 0])
    height = np.minimum(box[3], faces[:, 3]) - np.maximum(box[1], faces[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = np.prod(faces[:, 2:4] - faces[:, :2], axis=1)
    return np.divide(shared, area + areas - shared, out=np.zeros(len(faces)), where=shared > 0)


@pytest.mark.parametrize("name", FIGURES)
def test_the_command_prints_all_digits(widerface, folders, name, capsys):
    assert main(["-p", str(folders / name), "-g", str(widerface / "ground_truth")]) == 0
    easy, medium, hard = FIGURES[name]
    lines = capsys.readouterr().out.splitlines()
    assert f"Easy   Val AP: {easy}" in lines
    assert f"Medium Val AP: {medium}" in lines
    assert f"Hard   Val AP: {hard}" in lines
