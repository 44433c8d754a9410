from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from wider_cases import small_truth, write_mats, write_texts

from evalkit.widerface_eval import WiderFaceError, read_ground_truth


def same(first, second):
    assert first.images == second.images
    np.testing.assert_array_equal(first.offsets, second.offsets)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert first.subsets.keys() == second.subsets.keys()
    for name, kept in first.subsets.items():
        np.testing.assert_array_equal(kept, second.subsets[name])


@pytest.mark.parametrize("write", [write_mats, write_texts])
def test_both_forms_are_read(tmp_path, write):
    write(tmp_path, small_truth())
    same(read_ground_truth(tmp_path), small_truth())


def test_text_boxes_go_with_the_subsets_of_the_mat_files(tmp_path):
    write_texts(tmp_path, small_truth())
    write_mats(tmp_path, small_truth())
    (tmp_path / "wider_face_val.mat").unlink()
    for list_ in tmp_path.glob("wider_*_val.txt"):
        list_.unlink()
    same(read_ground_truth(tmp_path), small_truth())


def test_some_events_only():
    part = small_truth().only(["5--people--driving"])
    assert part.images == ("5--people--driving/5_jpg",)
    assert part.boxes.tolist() == [[5, 5, 30, 320], [60, 5, 9, 9]]
    assert part.subsets["hard"].tolist() == [True, True]
    assert part.offsets.tolist() == [0, 2]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WiderFaceError, match="no such folder"):
        read_ground_truth(tmp_path / "absent")
    with pytest.raises(WiderFaceError, match=r"neither wider_face_val\.mat nor"):
        read_ground_truth(tmp_path)
    write_mats(tmp_path, small_truth())
    (tmp_path / "wider_medium_val.mat").unlink()
    with pytest.raises(WiderFaceError, match=r"neither wider_medium_val\.mat nor"):
        read_ground_truth(tmp_path)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    write_mats(tmp_path, small_truth())
    part = small_truth().only(["0--Parade"])
    write_mats(tmp_path / "other", part)
    (tmp_path / "other" / "wider_easy_val.mat").replace(tmp_path / "wider_easy_val.mat")
    with pytest.raises(WiderFaceError, match=r"wider_easy_val\.mat: its images are not those"):
        read_ground_truth(tmp_path)


def test_another_number_of_faces_is_refused(tmp_path):
    truth = small_truth()
    write_texts(tmp_path, truth)
    write_mats(tmp_path, truth)
    (tmp_path / "wider_face_val.mat").unlink()
    text = (tmp_path / "wider_face_val_bbx_gt.txt").read_text()
    fewer = text.replace("a.jpg\n2\n10 10 20 20 0 0 0 0 0 0 \n", "a.jpg\n1\n")
    assert fewer != text
    (tmp_path / "wider_face_val_bbx_gt.txt").write_text(fewer)
    with pytest.raises(WiderFaceError, match="0_Parade_a has 2 faces, but 1"):
        read_ground_truth(tmp_path)


@pytest.mark.parametrize("write", [write_mats, write_texts])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            "easy",
            "hard",
            r"wider_easy_val\.(mat|txt): it keeps face 2 of 5--people\S+ .*medium_val",
        ),
        ("easy", "medium", r"wider_easy_val\.(mat|txt): it keeps face 2 of 0--.*wider_medium_val"),
        ("medium", "hard", r"wider_medium_val\.(mat|txt): it keeps face 2 of 5--.*exchanged"),
    ],
)
def test_exchanged_subsets_are_refused(tmp_path, write, first, second, message):
    write(tmp_path, small_truth())
    suffix = "mat" if write is write_mats else "txt"
    one, other = (tmp_path / f"wider_{name}_val.{suffix}" for name in (first, second))
    one.replace(tmp_path / "held")
    other.replace(one)
    (tmp_path / "held").replace(other)
    with pytest.raises(WiderFaceError, match=message):
        read_ground_truth(tmp_path)


def moved(truth, face, box):
    boxes = truth.boxes.copy()
    boxes[face] = box
    return dataclasses.replace(truth, boxes=boxes)


def test_a_subset_of_other_boxes_is_refused(tmp_path):
    write_mats(tmp_path, small_truth())
    write_mats(tmp_path / "other", moved(small_truth(), 4, [60, 5, 9, 8]))
    (tmp_path / "other" / "wider_hard_val.mat").replace(tmp_path / "wider_hard_val.mat")
    message = (
        r"hard_val\.mat: its face 2 of 5--\S+ is \[60.* 8\.0\], but \[60.* 9\.0\] .*and 0 more"
    )
    with pytest.raises(WiderFaceError, match=message):
        read_ground_truth(tmp_path)


def text_with_mats(folder, in_text, in_mats):
    """Faces as text, subsets as the official files."""
    write_mats(folder, in_mats)
    (folder / "wider_face_val.mat").unlink()
    write_texts(folder / "texts", in_text)
    name = "wider_face_val_bbx_gt.txt"
    (folder / "texts" / name).replace(folder / name)


def test_text_of_other_boxes_than_the_subsets_is_refused(tmp_path):
    text_with_mats(tmp_path, moved(small_truth(), 0, [10, 11, 20, 20]), small_truth())
    with pytest.raises(
        WiderFaceError, match=r"easy_val\.mat: its face 1 of 0--Parade/0_Parade_a is"
    ):
        read_ground_truth(tmp_path)


def test_a_negative_width_may_be_none_in_the_text(tmp_path):
    official = moved(small_truth(), 4, [60, 5, -2, 9])
    copied = moved(small_truth(), 4, [60, 5, 0, 9])
    text_with_mats(tmp_path, copied, official)
    same(read_ground_truth(tmp_path), copied)


def test_a_kept_face_that_does_not_exist_is_refused(tmp_path):
    write_texts(tmp_path, small_truth())
    path = tmp_path / "wider_hard_val.txt"
    path.write_text(path.read_text().replace("a.jpg 1 2", "a.jpg 1 3"))
    with pytest.raises(WiderFaceError, match="'hard' keeps face 3 of 0--Parade/0_Parade_a"):
        read_ground_truth(tmp_path)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"\x00" * 500, b"x" * 2000])
def test_a_broken_mat_is_refused(tmp_path, content):
    write_mats(tmp_path, small_truth())
    (tmp_path / "wider_easy_val.mat").write_bytes(content)
    with pytest.raises(WiderFaceError, match=r"wider_easy_val\.mat"):
        read_ground_truth(tmp_path)


def test_a_truncated_mat_is_refused(tmp_path):
    write_mats(tmp_path, small_truth())
    path = tmp_path / "wider_face_val.mat"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WiderFaceError, match=r"wider_face_val\.mat"):
        read_ground_truth(tmp_path)


@pytest.mark.parametrize("change", [{"gt_list": [1, 2]}, {"face_bbx_list": [[1.0]]}])
def test_a_mat_of_other_content_is_refused(tmp_path, change):
    write_mats(tmp_path, small_truth(), **change)
    with pytest.raises(WiderFaceError, match="is not the official cells"):
        read_ground_truth(tmp_path)


@pytest.mark.parametrize("number", [1.5, np.nan, np.inf, 1e300, "1", 1 + 1j])
def test_numbers_of_faces_that_are_none_are_refused(tmp_path, number):
    truth = small_truth().only(["5--people--driving"])
    cell = np.empty((1, 1), object)
    cell[0, 0] = np.empty((1, 1), object)
    cell[0, 0][0, 0] = np.array([[number]])
    write_mats(tmp_path, truth, gt_list=cell)
    with pytest.raises(WiderFaceError, match="gt_list is not the official cells"):
        read_ground_truth(tmp_path)


def test_a_mat_without_its_variable_is_refused(tmp_path):
    write_mats(tmp_path, small_truth())
    (tmp_path / "wider_face_val.mat").replace(tmp_path / "wider_hard_val.mat")
    write_mats(tmp_path / "again", small_truth())
    (tmp_path / "again" / "wider_face_val.mat").replace(tmp_path / "wider_face_val.mat")
    with pytest.raises(WiderFaceError, match="no variable gt_list"):
        read_ground_truth(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0--Parade/0_Parade_b.jpg", "0_Parade_b.jpg", ":5: '0_Parade_b.jpg' is not an image path"),
        ("0--Parade/0_Parade_b.jpg", "0--Parade/0_Parade_a.jpg", "an image twice"),
        ("jpg\n2\n10", "jpg\ntwo\n10", ":2: 'two' is not a number of faces"),
        ("jpg\n2\n10", "jpg\n9\n10", ":5: .* is not a face"),
        ("jpg\n2\n10", f"jpg\n{'9' * 5000}\n10", ":2: '9{20}' is not a number of faces"),
        ("50 50 40 60", "50 50 forty 60", ":4: .* is not a face"),
        ("60 5 9 9 0 0 0 0 0 0", "", "ends within the faces of 5--people"),
        ("60 5 9 9 0 0 0 0 0 0", "60 5 9", ":11: .* is not a face"),
        ("50 50 40 60", "50 50 nan 60", "is not in pixels"),
    ],
)
def test_malformed_annotation_text_is_named_by_line(tmp_path, old, new, message):
    write_texts(tmp_path, small_truth())
    path = tmp_path / "wider_face_val_bbx_gt.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(WiderFaceError, match=message):
        read_ground_truth(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0--Parade/0_Parade_b.jpg \n", "", "not those of the faces' file: 0--Parade/0_Parade_b"),
        ("b.jpg \n", "b.jpg x\n", ":2: write whole numbers of faces"),
        ("0_Parade_b.jpg \n", "0_Parade_a.jpg \n", ":2: it names .* a second time"),
        ("a.jpg 1\n", f"a.jpg {2**63}\n", ":1: it keeps face 9223372036854775808 of 0--Parade"),
        ("a.jpg 1\n", f"a.jpg {'9' * 5000}\n", ":1: it keeps face 99999999999999999999 of"),
    ],
)
def test_a_malformed_subset_list_is_named_by_line(tmp_path, old, new, message):
    write_texts(tmp_path, small_truth())
    path = tmp_path / "wider_easy_val.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(WiderFaceError, match=message):
        read_ground_truth(tmp_path)


def test_text_that_is_no_text_is_refused(tmp_path):
    write_texts(tmp_path, small_truth())
    (tmp_path / "wider_face_val_bbx_gt.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WiderFaceError, match="cannot be read as text"):
        read_ground_truth(tmp_path)
