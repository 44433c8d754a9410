"""Sizing policies: their names, what they make of sizes and pixels, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.core.errors import InputError
from evalkit.heads.sizing import (
    Fixed,
    MultiScale,
    Original,
    ShortSide,
    Size,
    batches_by_size,
    pad_colour,
    parse_sizing,
    place,
)

sizes = st.tuples(st.integers(1, 900), st.integers(1, 900))
POLICIES = [
    "original stride=32 pad=mean",
    "original stride=1 pad=0",
    "short_side=320 stride=32 pad=mean",
    "short_side=320 max=480 stride=16 pad=114",
    "fixed=640x480 letterbox pad=0",
    "fixed=320x320 centered pad=mean",
    "fixed=320x240 stretch",
    "multi_scale=100,300,500 max=600 flip stride=32 pad=mean",
]


@pytest.mark.parametrize("name", POLICIES)
def test_names_are_read_as_they_are_written(name: str) -> None:
    assert str(parse_sizing(name)) == name


def test_short_names() -> None:
    assert parse_sizing("original") == Original(32, "mean")
    assert parse_sizing("short_side=800 max=1333") == ShortSide(800, 1333, 32, "mean")
    assert parse_sizing(" fixed=640x480   letterbox ") == Fixed(480, 640, "letterbox", "mean")
    assert parse_sizing("multi_scale=500,800") == MultiScale((500, 800))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "orginal",
        "original=3",
        "original max=3",
        "original stride=0",
        "original stride=32 stride=16",
        "original pad=256",
        "original pad=red",
        "short_side",
        "short_side=800 longest=3",
        "short_side=-5",
        "short_side=1e3",
        "short_side=99999999999",
        "fixed=640x480",
        "fixed=640 letterbox",
        "fixed=640x480 letterbox stretch",
        "fixed=640x480 letterbox=1",
        "fixed=640x480 stretch pad=3",
        "multi_scale=500,,800",
        "multi_scale=500 flip=1",
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="short_side=N max=M"):
        parse_sizing(text)


def test_by_hand() -> None:
    (view,) = Original().views((683, 1024))
    assert (view.resized, view.input) == ((683, 1024), (704, 1024))
    (view,) = Original(stride=1).views((683, 1023))
    assert view.input == (683, 1023)
    (view,) = ShortSide(800, 1200).views((600, 800))
    assert (view.resized, view.input) == ((800, 1067), (800, 1088))
    (view,) = ShortSide(800, 1200).views((500, 1000))
    assert (view.resized, view.input) == ((600, 1200), (608, 1216))
    (view,) = Fixed(640, 640).views((683, 1024))
    assert (view.resized, view.input, view.offset) == ((427, 640), (640, 640), (0, 0))
    (view,) = Fixed(640, 640, "centered").views((683, 1024))
    assert view.offset == (106, 0)
    (view,) = Fixed(240, 320, "stretch").views((683, 1024))
    assert (view.resized, view.scale) == ((240, 320), (320 / 1024, 240 / 683))
    views = MultiScale((500, 800, 900), 1000, flip=True).views((600, 900))
    assert [view.resized for view in views] == [(500, 750), (667, 1000)] * 2
    assert [view.mirrored for view in views] == [False, False, True, True]


@given(sizes, st.sampled_from(POLICIES))
def test_the_image_lies_within_the_input_and_boxes_come_back(size: Size, name: str) -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 1, (5, 2, 2)), axis=1) * (size[1], size[0])
    boxes = corners.reshape(5, 4)
    points = rng.uniform(0, 1, (5, 5, 2)) * (size[1], size[0])
    for view in parse_sizing(name).views(size):
        top, left = view.offset
        assert 0 <= top <= view.input[0] - view.resized[0]
        assert 0 <= left <= view.input[1] - view.resized[1]
        assert min(view.resized) >= 1

        def shown(xy: np.ndarray, view=view, top=top, left=left) -> np.ndarray:  # type: ignore[no-untyped-def,type-arg]
            x = size[1] - xy[..., 0] if view.mirrored else xy[..., 0]
            fx, fy = view.resized[1] / size[1], view.resized[0] / size[0]
            return np.stack([x * fx + left, xy[..., 1] * fy + top], axis=-1).astype(np.float32)

        seen = shown(corners)
        if view.mirrored:
            seen[:, :, 0] = seen[:, ::-1, 0]
            assert (seen[:, 0] <= seen[:, 1]).all()
        np.testing.assert_allclose(
            view.boxes_to_image(seen.reshape(5, 4)), boxes, rtol=1e-4, atol=2e-3
        )
        marks = shown(points)[:, [1, 0, 2, 4, 3]] if view.mirrored else shown(points)
        np.testing.assert_allclose(view.landmarks_to_image(marks), points, rtol=1e-4, atol=2e-3)


def test_pixels_and_padding() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    (view,) = Original(stride=4).views((2, 3))
    canvas = place(image, view, (7, 8, 9))
    assert canvas.shape == (4, 4, 3)
    np.testing.assert_array_equal(canvas[:2, :3], image)
    assert np.unique(canvas[2:].reshape(-1, 3), axis=0).tolist() == [[7, 8, 9]]
    assert canvas[:, 3].tolist() == [[7, 8, 9]] * 4
    with pytest.raises(ValueError, match="does not fit"):
        place(image[:1], view, (0, 0, 0))


def test_a_mirrored_view_shows_the_mirrored_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    plain, mirrored = MultiScale((40,), flip=True, stride=1).views((40, 60))
    seen = place(image, mirrored, (0, 0, 0))
    np.testing.assert_array_equal(seen, place(image, plain, (0, 0, 0))[:, ::-1])


def test_centred_padding_lies_on_both_sides() -> None:
    image = np.full((10, 20, 3), 255, np.uint8)
    (view,) = Fixed(40, 40, "centered").views((10, 20))
    canvas = place(image, view, (0, 0, 0))
    assert canvas[:, 0, 0].tolist() == [0] * 10 + [255] * 20 + [0] * 10


def test_pad_colours_are_in_rgb() -> None:
    assert pad_colour(114, 127.5, "bgr") == (114, 114, 114)
    assert pad_colour("mean", (1, 2, 3), "rgb") == (1, 2, 3)
    assert pad_colour("mean", (1, 2, 3), "bgr") == (3, 2, 1)
    assert pad_colour("mean", 300.0, "rgb") == (255, 255, 255)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=30),
    st.integers(1, 5),
    st.none() | st.integers(1, 20),
)
def test_batches_hold_each_image_once_and_one_size(
    sizes: list[Size], batch_size: int, max_pixels: int | None
) -> None:
    batches = batches_by_size(sizes, batch_size, max_pixels)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len({sizes[index] for index in batch}) == 1
        assert list(batch) == sorted(batch)
        assert 1 <= len(batch) <= batch_size
        if max_pixels is not None and len(batch) > 1:
            assert sum(sizes[index][0] * sizes[index][1] for index in batch) <= max_pixels


def test_no_more_batches_than_needed() -> None:
    assert batches_by_size([(1, 1)] * 5, 2) == [(0, 1), (2, 3), (4,)]
    with pytest.raises(ValueError, match="at least 1"):
        batches_by_size([], 0)
