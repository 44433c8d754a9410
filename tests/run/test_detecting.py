"""The detectors' pipeline: every image keeps its own faces whatever goes beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evalkit.backends.base import Ran, Session, TensorInfo
from evalkit.core.settings import InputSpec
from evalkit.core.store import Store
from evalkit.datasets.errors import UnreadableImage
from evalkit.heads import build_head
from evalkit.heads.detection import DetectionOptions
from evalkit.heads.sizing import parse_sizing, place
from evalkit.run.buffers import Buffers
from evalkit.run.detecting import FIELDS, Detector, rows_of, vote_threshold
from evalkit.run.filling import fill_store
from evalkit.run.pipeline import Normaliser

SPEC = InputSpec(size=(8, 8), mean=(10.0, 20.0, 30.0), std=2.0, color="bgr")
OPTIONS = DetectionOptions(score_threshold=0.0, nms_threshold=None)


class Corners(Session):
    """Gives one box an image, made of its pixels; remembers its batches."""

    outputs = (TensorInfo("boxes", "float32", ("n", 1, 5)),)
    ran = Ran("test", "0", "cpu", "fp32", "fp32", 1)

    def __init__(self, batch: int | None = None) -> None:
        self.inputs = (TensorInfo("input", "float32", (batch or "n", 3, None, None)),)
        self.batches: list[NDArray[Any]] = []

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        self.batches.append(batch.copy())
        means = np.abs(batch.mean(axis=(2, 3)))
        first = means[:, :2]
        boxes = np.concatenate([first, first + 1, 0.5 + 0 * means[:, :1]], axis=1)
        return {"boxes": boxes[:, None].astype(np.float32)}


class Photographs:
    """Random images of a few sizes; those in `bad` are unreadable."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        rng = np.random.default_rng(0)
        sizes = [(8, 8), (9, 14), (30, 17)]
        self.pixels = [
            rng.integers(0, 256, (*sizes[rng.integers(3)], 3), np.uint8) for _ in range(count)
        ]
        self.bad = bad

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return f"{index}.jpg"

    def path(self, index: int) -> None:
        return None

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        if index in self.bad:
            raise UnreadableImage("does not decode", path=self.name(index))
        return self.pixels[index], bytes(8)


def detector(session: Session, sizing: str = "original stride=8") -> Detector:
    head = build_head("boxes", {"scores": None})
    return Detector(session, head, SPEC, parse_sizing(sizing), OPTIONS, 4)


@pytest.mark.parametrize(("threshold", "voted"), [(None, 0.4), (0.0, 0.0), (0.7, 0.7)])
def test_views_are_joined_before_the_fractions_go(threshold: float | None, voted: float) -> None:
    options = replace(OPTIONS, nms_threshold=threshold, truncate=True)
    assert vote_threshold(options) == voted
    session = Corners()
    head = build_head("boxes", {"scores": None})
    sizing = parse_sizing("multi_scale=8,16 stride=8")
    images = Photographs(3)
    for index in range(3):
        whole, plain = (
            Detector(session, head, SPEC, sizing, replace(options, truncate=cut), 4)
            for cut in (True, False)
        )
        (faces,) = whole([images.pixels[index]])
        (exact,) = plain([images.pixels[index]])
        assert faces is not None
        assert exact is not None
        np.testing.assert_array_equal(faces.boxes, np.trunc(exact.boxes))


def stored_rows(
    folder: Path, images: Photographs, network: Detector
) -> list[NDArray[np.float32] | None]:
    store = Store(folder, {}, len(images), FIELDS, 32)
    with store.writing():
        fill_store(
            store, store.missing(), images, network,
            decode_threads=3, max_failures=100, advance=lambda _: None,
        )  # fmt: skip
    return [rows for _, shard in store.shards() for rows in rows_of(shard)]


@pytest.mark.parametrize("fixed", [None, 3])
def test_every_image_keeps_its_own_faces(tmp_path: Path, fixed: int | None) -> None:
    images = Photographs(70, bad=(3, 40))
    together = stored_rows(tmp_path, images, detector(Corners(fixed)))
    for index, rows in enumerate(together):
        if index in images.bad:
            assert rows is None
            continue
        alone = detector(Corners())
        (faces,) = alone([images.pixels[index]])
        assert rows is not None
        assert faces is not None
        np.testing.assert_array_equal(rows[:, :4], faces.boxes)


@pytest.mark.parametrize("fixed", [None, 3])
def test_batches_hold_the_images_and_zeros(tmp_path: Path, fixed: int | None) -> None:
    """Used memory shows through nowhere, whatever was in it before."""
    images, session = Photographs(40), Corners(fixed)
    network = detector(session)
    stored_rows(tmp_path / "first", images, network)
    session.batches.clear()
    stored_rows(tmp_path / "second", images, network)
    normalise = Normaliser(SPEC)
    expected = []
    for pixels in images.pixels:
        (view,) = network.sizing.views(pixels.shape[:2])
        row = normalise.empty(1, view.input)[0]
        normalise(place(pixels, view, network.colour), row)
        expected.append(row)
    rows = [row for batch in session.batches for row in batch]
    images_only = [row for row in rows if row.any()]
    assert len(images_only) == len(expected)
    assert sorted(row.tobytes() for row in images_only) == sorted(row.tobytes() for row in expected)
    assert (len(rows) > len(images_only)) == (fixed is not None)


def test_buffers_are_used_again_and_never_twice_at_once() -> None:
    buffers = Buffers()
    first, second = buffers.take((4, 5), "float32"), buffers.take((10,), "uint8")
    assert not np.shares_memory(first, second)
    buffers.give(second)
    buffers.give(first)
    again = buffers.take((3,), "float32")
    assert np.shares_memory(again, first)
    assert np.shares_memory(buffers.take((9,), "uint8"), second)
    larger = buffers.take((100,), "float32")
    assert larger.dtype == np.float32
    assert not np.shares_memory(larger, first)


def test_a_buffer_that_is_too_small_is_let_go() -> None:
    buffers = Buffers()
    small = buffers.take((3,), "uint8")
    buffers.give(small)
    buffers.give(buffers.take((8,), "uint8"))
    assert not np.shares_memory(buffers.take((3,), "uint8"), small)


def test_foreign_memory_is_refused() -> None:
    with pytest.raises(TypeError, match="does not come from"):
        Buffers().give(np.empty(3, np.uint8))
