from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest

from evalkit.datasets.errors import DatasetError, UnreadableImage
from evalkit.datasets.widerface import load_widerface

ANNOTATIONS = """\
0--Parade/0_Parade_a.jpg
2
10 20 30 40 1 0 1 0 2 1
1026 474 -2 23 2 0 0 1 0 0

0--Parade/0_Parade_b.jpg
0
0 0 0 0 0 0 0 0 0 0
59--people--driving--car/59_car_1.jpg
1
1 2 3 4 0 1 0 0 1 0
"""
NAMES = ("0--Parade/0_Parade_a", "0--Parade/0_Parade_b", "59--people--driving--car/59_car_1")


def write_images(folder):
    for index, name in enumerate(NAMES):
        path = folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.zeros((8 + index, 16, 3), np.uint8)
        image[..., 2] = 250  # red, in OpenCV's order
        cv2.imwrite(str(path), image)


@pytest.fixture
def root(tmp_path):
    write_images(tmp_path / "WIDER_val" / "images")
    (tmp_path / "wider_face_split").mkdir()
    (tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt").write_text(ANNOTATIONS)
    return tmp_path


def boxes_of(data, index):
    return data.boxes[data.offsets[index] : data.offsets[index + 1]]


def annotations_of(root):
    return root / "wider_face_split" / "wider_face_val_bbx_gt.txt"


def test_images_boxes_and_flags(root):
    data = load_widerface(root)
    assert data.images.names == NAMES
    assert len(data.images) == 3
    assert data.offsets.tolist() == [0, 2, 3, 4]
    assert boxes_of(data, 0).tolist() == [[10, 20, 30, 40], [1026, 474, -2, 23]]
    assert boxes_of(data, 1).tolist() == [[0, 0, 0, 0]]
    assert data.flags.dtype == np.int8
    assert data.flags[0].tolist() == [1, 0, 1, 0, 2, 1]
    assert data.flags[:, 3:].T.tolist() == [
        [0, 1, 0, 0],
        [2, 0, 0, 1],
        [1, 0, 0, 0],
    ]
    assert data.annotations == annotations_of(root)


def test_pixels_are_red_green_blue(root):
    images = load_widerface(root).images
    image, digest = images.load_with_digest(1)
    assert (image.shape, image.dtype) == ((9, 16, 3), np.uint8)
    assert image[..., 0].min() > 240
    assert image[..., 1:].max() < 10
    np.testing.assert_array_equal(images.load(1), image)
    assert digest == hashlib.blake2b(images.path(1).read_bytes(), digest_size=8).digest()


@pytest.mark.parametrize("layout", ["images", "."])
@pytest.mark.parametrize("place", [".", "ground_truth"])
def test_other_layouts(tmp_path, layout, place):
    write_images(tmp_path / layout)
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "wider_face_val_bbx_gt.txt").write_text(ANNOTATIONS)
    assert load_widerface(tmp_path).images.load(0).shape == (8, 16, 3)


def test_the_annotations_may_lie_elsewhere(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    path = annotations_of(root).rename(other / "wider_face_val_bbx_gt.txt")
    for named in (other, path):
        assert load_widerface(root, annotations=named).images.names == NAMES
    with pytest.raises(DatasetError, match=r"holds no wider_face_val_bbx_gt\.txt"):
        load_widerface(root)


def test_the_training_split(root):
    (root / "WIDER_val").rename(root / "WIDER_train")
    annotations_of(root).rename(root / "wider_face_train_bbx_gt.txt")
    assert load_widerface(root, "train").images.names == NAMES
    with pytest.raises(DatasetError, match="no split 'test'"):
        load_widerface(root, "test")


def test_some_events_only(root):
    part = load_widerface(root, events=["59--people--driving--car"])
    assert part.images.names == NAMES[2:]
    assert part.boxes.tolist() == [[1, 2, 3, 4]]
    with pytest.raises(DatasetError, match="no event 1--Nowhere"):
        load_widerface(root, events=["1--Nowhere"])


def test_a_missing_image_is_named_unless_its_event_is_left_out(root):
    (root / "WIDER_val" / "images" / f"{NAMES[2]}.jpg").unlink()
    with pytest.raises(
        DatasetError, match=r"1 of 3 images are missing, the first 59--.*car_1\.jpg"
    ):
        load_widerface(root)
    assert len(load_widerface(root, events=["0--Parade"]).images) == 2


def test_an_image_that_does_not_decode_is_named_when_it_is_loaded(root):
    images = load_widerface(root).images
    whole = images.path(0).read_bytes()
    images.path(0).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImage, match=r"0_Parade_a\.jpg: .*truncated"):
        images.load(0)
    images.path(1).write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"0_Parade_b\.jpg: It gives no image: "):
        images.load(1)
    images.path(2).unlink()
    with pytest.raises(UnreadableImage, match=r"59_car_1\.jpg: The image is missing"):
        images.load(2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0--Parade/0_Parade_b.jpg", "0_Parade_b.jpg", ":6: '0_Parade_b.jpg' is not an image path"),
        (
            "0--Parade/0_Parade_b.jpg",
            "../0_Parade_b.jpg",
            ":6: '../0_Parade_b.jpg' is not an image",
        ),
        ("0--Parade/0_Parade_b.jpg", "/0_Parade_b.jpg", ":6: '/0_Parade_b.jpg' is not an image"),
        ("0--Parade/0_Parade_b.jpg", "0--Parade/0_Parade_a.jpg", "names an image twice"),
        ("a.jpg\n2", "a.jpg\nmany", ":2: 'many' is not a number of faces"),
        ("a.jpg\n2", "a.jpg\n3", ":6: A face has 10 numbers"),
        ("1 2 3 4 0 1 0 0 1 0", "1 2 3 4", ":11: A face has 10 numbers .* not 4"),
        ("1 2 3 4 0 1 0 0 1 0", "", ":10: A face has 10 numbers .* not 0"),
        ("1 2 3 4 0 1", "1 2 x 4 0 1", ":11: .* is not numbers"),
        ("1 2 3 4 0 1", "1 2 nan 4 0 1", ":11: .* is not a face"),
        ("1 2 3 4 0 1", "1 2 3 4 3 1", ":11: .* is not a face: flags are 0, 1 or 2"),
        ("1 2 3 4 0 1", "1 2 3 4 0.5 1", ":11: .* is not a face: flags are 0, 1 or 2"),
    ],
)
def test_malformed_annotations_are_named_by_line(root, old, new, message):
    assert old in ANNOTATIONS
    annotations_of(root).write_text(ANNOTATIONS.replace(old, new))
    with pytest.raises(DatasetError, match=message):
        load_widerface(root)


def test_annotations_that_are_no_text_are_refused(root):
    annotations_of(root).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="cannot be read as text"):
        load_widerface(root)
    with pytest.raises(DatasetError, match="no such folder"):
        load_widerface(root / "absent")


def test_real_images_and_annotations(shared_data):
    data = load_widerface(shared_data / "widerface", events=["22--Picnic"])
    assert len(data.images) == 24
    assert len(data.boxes) == data.offsets[-1]
    for index in range(3):
        height, width, _ = data.images.load(index).shape
        boxes = boxes_of(data, index)
        assert width == 1024
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 0] + boxes[:, 2] <= width + 1).all()
        assert (boxes[:, 1] + boxes[:, 3] <= height + 1).all()
    with pytest.raises(DatasetError, match="3202 of 3226 images are missing"):
        load_widerface(shared_data / "widerface")


def test_taking_images_keeps_their_faces_and_the_order(root):
    whole = load_widerface(root)
    rows = list(range(len(whole.images)))[::-1]
    taken = whole.take(rows)
    assert taken.images.names == whole.images.names[::-1]
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(boxes_of(taken, place), boxes_of(whole, row))
    assert len(taken.flags) == len(whole.flags)
