from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wider_cases import small_detections, small_truth

from evalkit.widerface_eval import (
    Detections,
    IncompleteError,
    WiderFaceError,
    read_predictions,
    write_predictions,
)
from evalkit.widerface_eval.predictions import parse_text

IMAGES = small_truth().images
FORMS = ("folder", "set.json", "set.npz")
ROWS = [[1, 2, 3, 4, 0.5], [5.5, -6, 7, 8.25, 0.25]]


def same(first, second):
    assert first.images == second.images
    for name in ("offsets", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.fixture
def folder(tmp_path):
    write_predictions(tmp_path / "set", small_detections())
    return tmp_path / "set"


@pytest.mark.parametrize(
    "text",
    [
        "0_P_1\n2\n1 2 3 4 0.5\n5.5 -6 7 8.25 0.25\n",
        "0_P_1.jpg\n2\n1 2 3 4 0.5 \n5.5 -6 7 8.25 0.25 \n",
        "0--P/0_P_1.jpg\n2\n1 2 3 4 0.5\n5.5 -6 7 8.25 0.25",
        "/data/WIDER_val/images/0--P/0_P_1.jpg\n2\n1 2 3 4 0.5\n5.5 -6 7 8.25 0.25",
        "C:\\images\\0--P\\0_P_1.JPG\r\n2\r\n1 2 3 4 0.5\r\n5.5 -6 7 8.25 0.25\r\n",
        "\n0_P_1\n\n2\n\n1 2 3 4 0.5\n\n5.5 -6 7 8.25 0.25\n\n",
        "0_P_1\n1 2 3 4 0.5\n5.5 -6 7 8.25 0.25\n",
        "2\n1 2 3 4 0.5\n5.5 -6 7 8.25 0.25\n",
        "1 2 3 4 0.5\n5.5 -6 7 8.25 0.25\n",
        "0_P_1\n2\n1  2\t3 4.0 5e-1\n  5.5 -6 7 8.25 2.5E-1\n",
        "0_P_1\n2\n1 2 3 4 0.5 9 9 9 9 9 9 9 9 9 9\n5.5 -6 7 8.25 0.25 9 9 9 9 9 9 9 9 9 9\n",
        "\ufeff0_P_1\n2\n1 2 3 4 0.5\n5.5 -6 7 8.25 0.25\n",
    ],
)
def test_the_variants_met_in_the_wild(tmp_path, text):
    (tmp_path / "0--P").mkdir()
    (tmp_path / "0--P" / "0_P_1.txt").write_bytes(text.encode())
    reading = read_predictions(tmp_path, ["0--P/0_P_1"])
    np.testing.assert_array_equal(
        np.column_stack([reading.detections.boxes, reading.detections.scores]), ROWS
    )


@pytest.mark.parametrize("text", ["a\n0\n", "0", "a.jpg\r\n0\r\n\r\n"])
def test_no_detection_is_an_answer(text):
    assert parse_text(text, "a").shape == (0, 5)


@pytest.mark.parametrize("text", ["", "\n \n", "a\n", "a.jpg"])
def test_a_file_that_states_nothing_is_empty(text):
    assert parse_text(text, "a") is None


def test_a_name_that_is_a_number_is_the_name():
    assert parse_text("12\n1\n1 2 3 4 0.5\n", "12").tolist() == [ROWS[0]]


@pytest.mark.parametrize("stem", ["big_jpg", "ppg", "a.v2", "5_j"])
def test_only_the_suffix_is_dropped_from_a_name(stem):
    assert parse_text(f"{stem}.jpg\n1\n1 2 3 4 0.5\n", stem).tolist() == [ROWS[0]]
    assert parse_text(f"{stem}\n1\n1 2 3 4 0.5\n", stem).tolist() == [ROWS[0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b\n1\n1 2 3 4 0.5\n", "names 'b', another image"),
        ("1_465\n1\n1 2 3 4 0.5\n", "names '1_465', another image"),
        ("a\n3\n1 2 3 4 0.5\n", "announces 3 detections and has 1"),
        ("a\n0\n1 2 3 4 0.5\n", "announces 0 detections and has 1"),
        ("a\n-1\n", "'-1' is not a number of detections"),
        ("a\none\n", "'one' is not a number of detections"),
        ("a\n1\n\n1 2 3 4\n", "line 4 has 4 columns, not 5"),
        ("a\n2\n1 2 3 4 0.5\n1 2 3 4 0.5 6\n", "line 4 has 6 columns, not 5"),
        ("a\n1\n1 2 3 x 0.5\n", "line 3 is not numbers"),
        ("a\n1\n1,2,3,4,0.5 1 1 1 1\n", "line 3 is not numbers"),
        ("a\n1\n1_0 2 3 4 0.5\n", "line 3 is not numbers"),
        ("a\n1\n1 2 nan 4 0.5\n", "line 3: box .* not in pixels"),
        ("a\n2\n1 2 3 4 0.5\n1 2 inf 4 0.5\n", "line 4: box .* not in pixels"),
        ("a\n1\n1 2 -3 4 0.5\n", "line 3: box .* inverted"),
        ("a\n1\n1 2 3 4 nan\n", "line 3: score nan"),
        ("a\n1\n1 2 3 4 inf\n", "line 3: score inf"),
    ],
)
def test_malformed_text_is_named_by_line(text, message):
    with pytest.raises(ValueError, match=message):
        parse_text(text, "a")


@given(st.text(alphabet="a0 1\n.-x\t", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        rows = parse_text(text, "a")
    except ValueError:
        return
    assert rows is None or rows.shape[1] == 5


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_is_read_again(tmp_path, form):
    write_predictions(tmp_path / form, small_detections())
    reading = read_predictions(tmp_path / form, IMAGES)
    same(reading.detections, small_detections())
    assert reading.warnings() == ()
    assert [entry.name for entry in tmp_path.iterdir()] == [form]


number = st.floats(-1e6, 1e6)
length = st.floats(0, 1e6)
detection = st.tuples(number, number, length, length, st.floats(-1e30, 1e30))


@given(st.lists(st.lists(detection, max_size=4), min_size=3, max_size=3))
def test_every_digit_survives(tmp_path_factory, rows):
    detections = Detections.from_rows(
        IMAGES, [np.array(block, np.float64).reshape(-1, 5) for block in rows]
    )
    for form in FORMS:
        path = tmp_path_factory.mktemp("digits") / form
        write_predictions(path, detections)
        same(read_predictions(path, IMAGES).detections, detections)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_overwritten_unasked_and_nothing_left_half(tmp_path, form):
    path = tmp_path / form
    write_predictions(path, small_detections())
    with pytest.raises(WiderFaceError, match="it exists"):
        write_predictions(path, small_detections())
    other = Detections.from_rows(IMAGES, [np.array([ROWS[0]])] * 3)
    write_predictions(path, other, overwrite=True)
    same(read_predictions(path, IMAGES).detections, other)
    assert [entry.name for entry in tmp_path.iterdir()] == [form]


def test_a_name_that_leaves_the_folder_is_refused(tmp_path):
    for name in ("../up", "a/b/c", "alone", "/root"):
        outside = Detections.from_rows([name], [np.array([ROWS[0]])])
        with pytest.raises(WiderFaceError, match="no name of the form"):
            write_predictions(tmp_path / "set", outside)
    assert list(tmp_path.iterdir()) == []


def test_missing_files_are_named_and_refused(folder):
    (folder / f"{IMAGES[0]}.txt").unlink()
    with pytest.raises(IncompleteError, match="1 are missing: 0--Parade/0_Parade_a") as caught:
        read_predictions(folder, IMAGES)
    assert caught.value.exit_code == 3
    reading = read_predictions(folder, IMAGES, allow_missing=True)
    assert reading.missing == (IMAGES[0],)
    assert reading.detections.offsets.tolist() == [0, 0, 0, 2]
    assert "missing" in reading.warnings()[0]


def test_empty_files_are_named_and_refused(folder):
    (folder / f"{IMAGES[1]}.txt").write_text("0_Parade_b\n")
    with pytest.raises(IncompleteError, match=r"1 are empty .*write the number 0.*0_Parade_b"):
        read_predictions(folder, IMAGES)
    assert read_predictions(folder, IMAGES, allow_missing=True).empty == (IMAGES[1],)


def test_malformed_files_are_named_with_line_and_refused(folder):
    path = folder / f"{IMAGES[2]}.txt"
    path.write_text("5_jpg\n1\n1 2 3 4\n")
    with pytest.raises(WiderFaceError, match=r"malformed: .*5_jpg\.txt: line 3") as caught:
        read_predictions(folder, IMAGES)
    assert caught.value.exit_code == 2
    reading = read_predictions(folder, IMAGES, allow_missing=True)
    assert reading.malformed == (IMAGES[2],)
    path.write_bytes(b"\xff\xfe\x00")
    assert read_predictions(folder, IMAGES, allow_missing=True).malformed == (IMAGES[2],)


def test_extra_files_are_named_and_refused(folder):
    (folder / "0--Parade" / "0_Parade_z.txt").write_text("0_Parade_z\n0\n")
    with pytest.raises(WiderFaceError, match="unknown images: 0--Parade/0_Parade_z") as caught:
        read_predictions(folder, IMAGES)
    assert caught.value.exit_code == 2
    assert read_predictions(folder, IMAGES, allow_missing=True).extra == ("0--Parade/0_Parade_z",)


def test_other_things_in_the_folder_do_no_harm(folder):
    (folder / "log.txt").write_text("done")
    (folder / "0--Parade" / ".DS_Store").write_text("x")
    (folder / "0--Parade" / "picture.jpg").write_text("x")
    same(read_predictions(folder, IMAGES).detections, small_detections())


def test_known_images_are_not_extra(folder):
    reading = read_predictions(folder, IMAGES[:2], known=IMAGES)
    assert reading.detections.images == IMAGES[:2]
    assert reading.extra == ()


@pytest.mark.parametrize("form", FORMS)
def test_predictions_of_another_split_are_refused_even_if_missing_is_allowed(tmp_path, form):
    other = Detections.from_rows(["0--Parade/test_1"], [np.array([ROWS[0]])])
    write_predictions(tmp_path / form, other)
    with pytest.raises(WiderFaceError, match="another split"):
        read_predictions(tmp_path / form, IMAGES, allow_missing=True)


def test_a_folder_too_high_or_too_deep_is_refused(folder):
    for wrong in (folder.parent, folder / "0--Parade"):
        with pytest.raises(WiderFaceError, match="folder above or below"):
            read_predictions(wrong, IMAGES, allow_missing=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must be an object"),
        ("{", "not a JSON file"),
        ('{"0--Parade/0_Parade_a": [], "0--Parade/0_Parade_a": []}', "occurs twice"),
        ('{"0--Parade/0_Parade_a.jpg": [[1, 2, 3, 4]]}', "0_Parade_a is not a list of"),
        ('{"0--Parade/0_Parade_a": [1, 2, 3, 4, 0.5]}', "0_Parade_a is not a list of"),
        ('{"0--Parade/0_Parade_a": {"x": 1}}', "0_Parade_a is not a list of"),
        ('{"0--Parade/0_Parade_a": [[1, 2, 3, 4, 1], [1, 2, 3, 4, 1, 6]]}', "in every row"),
        ('{"0--Parade/0_Parade_a": [[1, 2, 3, 4, 1, [6, 7]]]}', "0_Parade_a is not a list of"),
        ('{"0--Parade/0_Parade_a": [[1, 2, 3, 4, 1], [1, 2, 3, -4, 1]]}', "a: detection 2: box"),
        ('{"0--Parade/0_Parade_a": [[1, 2, 3, NaN, 0.5]]}', "not in pixels"),
        ('{"0--Parade/0_Parade_a": [["1", 2, 3, 4, 0.5]]}', "0_Parade_a is not a list of"),
    ],
)
def test_malformed_json_is_refused(tmp_path, content, message):
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(WiderFaceError, match=message):
        read_predictions(tmp_path / "set.json", IMAGES)


def test_two_keys_of_one_image_are_refused(tmp_path):
    content = {IMAGES[0]: [ROWS[0]], IMAGES[1]: [], IMAGES[2]: [], f"{IMAGES[0]}.jpg": [ROWS[1]]}
    (tmp_path / "set.json").write_text(json.dumps(content))
    message = "'0--Parade/0_Parade_a' and '0--Parade/0_Parade_a.jpg' are one image"
    with pytest.raises(WiderFaceError, match=message):
        read_predictions(tmp_path / "set.json", IMAGES, allow_missing=True)


@pytest.mark.parametrize("more", [0, 1, 10, 11])
def test_json_takes_a_byte_order_mark_and_landmarks_as_text_does(tmp_path, more):
    wide = [[*row, *range(more)] for row in ROWS]
    (tmp_path / "set.json").write_text(json.dumps({"0--P/a": wide}), "utf-8-sig")
    (tmp_path / "set" / "0--P").mkdir(parents=True)
    text = "\n".join(" ".join(map(str, row)) for row in wide)
    (tmp_path / "set" / "0--P" / "a.txt").write_text(f"a\n2\n{text}\n", "utf-8-sig")
    as_json, as_text = (
        read_predictions(tmp_path / form, ["0--P/a"]).detections for form in ("set.json", "set")
    )
    same(as_json, as_text)
    assert np.column_stack([as_json.boxes, as_json.scores]).tolist() == ROWS


def test_json_keys_may_carry_the_suffix_and_images_may_be_missing(tmp_path):
    content = {f"{image}.jpg": ROWS for image in IMAGES[:2]}
    (tmp_path / "set.json").write_text(json.dumps(content))
    with pytest.raises(IncompleteError, match="1 are missing"):
        read_predictions(tmp_path / "set.json", IMAGES)
    assert (
        read_predictions(tmp_path / "set.json", IMAGES[:2]).detections.scores.tolist()
        == [
            0.5,
            0.25,
        ]
        * 2
    )


def test_an_npz_that_is_none_is_refused_and_runs_nothing(tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(WiderFaceError, match="not a file of predictions"):
        read_predictions(path, IMAGES)
    np.savez(path, images=np.array([print], object))
    with pytest.raises(WiderFaceError, match=r"not a file of predictions .*allow_pickle"):
        read_predictions(path, IMAGES)
    np.savez(path, images=np.array(["a"]))
    with pytest.raises(WiderFaceError, match=r"not a file of predictions .*offsets"):
        read_predictions(path, IMAGES)


SOUND = {"images": IMAGES, "offsets": [0, 1, 1, 2], "boxes": [[1, 2, 3, 4]] * 2, "scores": [0.5, 1]}


def test_a_flaw_in_an_npz_is_of_its_image_alone(tmp_path):
    path = tmp_path / "set.npz"
    for flawed, message in (
        ({"boxes": [[1, 2, 3, 4], [1, 2, -3, 4]]}, "detection 1: box .* inverted"),
        ({"boxes": [[1, 2, 3, 4], [1, np.nan, 3, 4]]}, "detection 1: box .* not in pixels"),
        ({"scores": [0.5, np.nan]}, "detection 1: score nan"),
    ):
        np.savez(path, **{**SOUND, **flawed})
        with pytest.raises(
            WiderFaceError, match=f"1 are malformed: 5--people--driving/5_jpg: {message}"
        ):
            read_predictions(path, IMAGES)
        reading = read_predictions(path, IMAGES, allow_missing=True)
        assert reading.malformed == (IMAGES[2],)
        assert reading.detections.offsets.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.array(IMAGES, np.bytes_)}, r"images is \|S\d+; it must be text .*decode"),
        ({"images": IMAGES[0]}, r"images has the shape \(\)"),
        ({"offsets": [0, 1.5, 1.9, 2]}, "offsets is float64; it must be of an integer type"),
        ({"offsets": [0, 1, 2]}, r"offsets has the shape \(3,\); it must have \(4,\)"),
        ({"offsets": [0, 2, 1, 2]}, "offsets must rise from 0 to 2"),
        ({"offsets": np.array([0, 2, 1, 2], np.uint64)}, "offsets must rise from 0 to 2"),
        ({"offsets": [0, 1, 1, 1]}, "offsets must rise from 0 to 2"),
        ({"boxes": [["1", "2", "3", "4"]] * 2}, "boxes is <U1; it must be real numbers"),
        ({"boxes": [[1, 1]] * 4}, r"boxes has the shape \(4, 2\); it must have \(n, 4\)"),
        ({"scores": [0.5, 1j]}, "scores is complex128; it must be real numbers"),
        ({"scores": [True, False]}, "scores is bool"),
        ({"scores": [[0.5], [1]]}, r"scores has the shape \(2, 1\)"),
        ({"images": ["a/b", "a/b.jpg", "a/c"]}, "'a/b' and 'a/b.jpg' are one image"),
    ],
)
def test_an_npz_of_other_arrays_is_refused_by_name(tmp_path, change, message):
    np.savez(tmp_path / "set.npz", **{**SOUND, **change})
    with pytest.raises(WiderFaceError, match=message):
        read_predictions(tmp_path / "set.npz", IMAGES, allow_missing=True)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int32, np.uint64])
def test_an_npz_may_hold_other_real_numbers(tmp_path, kind):
    change = {name: np.array(SOUND[name], kind) for name in ("boxes", "scores")}
    np.savez(tmp_path / "set.npz", **{**SOUND, **change})
    held = read_predictions(tmp_path / "set.npz", IMAGES).detections
    assert held.boxes.tolist() == SOUND["boxes"]
    assert held.scores.tolist() == change["scores"].tolist()


@pytest.mark.parametrize("place", [0, 60, 150, -40])
def test_a_damaged_npz_is_refused(tmp_path, place):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **SOUND)
    content = bytearray(path.read_bytes())
    content[place : place + 12 if place >= 0 else None] = b"\xff" * 12
    path.write_bytes(content)
    with pytest.raises(WiderFaceError, match="not a file of predictions"):
        read_predictions(path, IMAGES)


def test_a_path_that_is_no_form_is_refused(tmp_path):
    with pytest.raises(WiderFaceError, match=r"neither a folder nor a \.json"):
        read_predictions(tmp_path / "absent", IMAGES)
    with pytest.raises(WiderFaceError, match="not a JSON file"):
        read_predictions(tmp_path / "absent.json", IMAGES)
