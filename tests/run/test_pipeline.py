"""The pipeline: order, padding, flips, failures, with sessions that are simple arithmetic."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evalkit.backends.base import Ran, Session, TensorInfo
from evalkit.core.errors import InputError
from evalkit.core.settings import InputSpec
from evalkit.core.store import SHARD, Store
from evalkit.datasets.errors import UnreadableImage
from evalkit.heads.embedding import embedding
from evalkit.run.embedder import Embedder
from evalkit.run.filling import fill_store
from evalkit.run.pipeline import Normaliser, batches_ahead

FIELDS = ["embeddings", "flipped"]
SPEC = InputSpec(size=(4, 6), mean=(10.0, 20.0, 30.0), std=2.0)


class Means(Session):
    """The mean of each channel of the left half: linear, and not symmetric under flips."""

    outputs = (TensorInfo("embedding", "float32", ("n", 3)),)
    ran = Ran("test", "0", "cpu", "fp32", "fp32", 1)

    def __init__(self, batch: int | None = None) -> None:
        self.inputs = (TensorInfo("input", "float32", (batch or "n", 3, 4, 6)),)
        self.sizes: list[int] = []

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        self.sizes.append(len(batch))
        return {"embedding": batch[..., :3].mean(axis=(2, 3)).astype(np.float32)}


class Images:
    """Random images; those in `bad` are unreadable."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 6, 3), np.uint8)
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
        return self.pixels[index], index.to_bytes(8, "big")


def reference(images: Images, *, flip: bool) -> NDArray[np.float64]:
    rows = []
    for image in images.pixels.astype(np.float64):
        scaled = (image - np.array([10, 20, 30])) / 2
        rows.append((scaled[:, ::-1] if flip else scaled)[:, :3].mean(axis=(0, 1)))
    return np.array(rows)


def fill(folder: Path, images: Images, session: Session, batch: int = 32, most: int = 100) -> Store:
    store = Store(folder, {}, len(images), FIELDS)
    embedder = Embedder(session, SPEC, flip=True, output=None, batch_size=batch)
    done: list[int] = []
    with store.writing():
        fill_store(
            store, store.missing(), images, embedder,
            decode_threads=2, max_failures=most, advance=done.append,
        )  # fmt: skip
    assert sum(done) == len(images)
    return store


@pytest.mark.parametrize("count", [1, 31, SHARD, SHARD + 1])
@pytest.mark.parametrize("fixed", [None, 8])
def test_every_image_gets_its_own_row(tmp_path: Path, count: int, fixed: int | None) -> None:
    images, session = Images(count), Means(fixed)
    store = fill(tmp_path, images, session, batch=fixed or 32)
    plain = np.concatenate([shard.outputs["embeddings"] for _, shard in store.shards()])
    mirrored = np.concatenate([shard.outputs["flipped"] for _, shard in store.shards()])
    np.testing.assert_allclose(plain, reference(images, flip=False), rtol=1e-5)
    np.testing.assert_allclose(mirrored, reference(images, flip=True), rtol=1e-5)
    if fixed:
        assert set(session.sizes) == {fixed}
    digests = np.concatenate([shard.digests for _, shard in store.shards()])
    assert [int.from_bytes(row.tobytes(), "big") for row in digests] == list(range(count))


def test_unreadable_images_are_named_and_the_run_goes_on(tmp_path: Path) -> None:
    images = Images(40, bad=(3, 39))
    store = fill(tmp_path, images, Means())
    shard = store.read(0)
    assert [failure.name for failure in shard.failures] == ["3.jpg", "39.jpg"]
    failed = np.isnan(shard.outputs["embeddings"]).all(axis=1)
    assert np.flatnonzero(failed).tolist() == [3, 39]
    np.testing.assert_allclose(
        shard.outputs["embeddings"][~failed], reference(images, flip=False)[~failed], rtol=1e-5
    )


def test_too_many_failures_stop_the_run_and_keep_the_work(tmp_path: Path) -> None:
    images = Images(SHARD * 2, bad=tuple(range(10)))
    with pytest.raises(InputError, match=r"10 failures to enrol.*--max-failures 9.*0\.jpg"):
        fill(tmp_path, images, Means(), most=9)
    assert Store(tmp_path, {}, len(images), FIELDS).missing() == [SHARD]


def test_an_output_that_overflows_is_a_failure_to_enrol(tmp_path: Path) -> None:
    class Overflows(Means):
        def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
            value = super().run(batch)["embedding"]
            value[1] = np.inf
            return {"embedding": value}

    store = fill(tmp_path, Images(5), Overflows())
    shard = store.read(0)
    assert [failure.name for failure in shard.failures] == ["1.jpg"]
    assert "NaN or infinite" in shard.failures[0].reason
    assert np.isnan(shard.outputs["embeddings"][1]).all()


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_normalising_equals_the_formula(color: str, layout: str, dtype: str) -> None:
    spec = SPEC.model_copy(update={"color": color, "layout": layout})
    normalise = Normaliser(spec, dtype)
    image = Images(1).pixels[0]
    tensor = normalise.empty(1)
    normalise(image, tensor[0])
    ordered = image if color == "rgb" else image[:, :, ::-1]
    expected = ordered.astype(np.float32)
    if dtype == "float32":
        expected = (expected - np.array([10, 20, 30], np.float32)) / np.float32(2)
    if layout == "nchw":
        expected = expected.transpose(2, 0, 1)
    np.testing.assert_array_equal(tensor[0], expected.astype(dtype))
    mirrored = normalise.flipped(tensor)[0]
    np.testing.assert_array_equal(mirrored, np.flip(expected, 2 if layout == "nchw" else 1))


def test_images_of_any_size_share_a_normaliser_and_its_threads() -> None:
    rng = np.random.default_rng(0)
    sizes = [(5, 7), (64, 48), (3, 3), (40, 90), (1, 1)] * 20
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    normalise = Normaliser(SPEC)

    def work(at: int) -> NDArray[Any]:
        tensor = normalise.empty(1, sizes[at])
        normalise(images[at], tensor[0])
        return tensor[0]

    mean = np.array(SPEC.mean, np.float32)
    for at, tensor in batches_ahead(range(len(images)), work, 4):
        expected = (images[at].astype(np.float32) - mean) / np.float32(SPEC.std)
        np.testing.assert_array_equal(tensor, expected.transpose(2, 0, 1))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness for each thread")
def test_workers_give_way_to_the_session() -> None:
    def niceness(_: int) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = niceness(0)
    assert {nice for _, nice in batches_ahead(range(8), niceness, 2)} == {max(own, 10)}
    assert niceness(0) == own


def test_the_head_refuses_what_is_no_embedding() -> None:
    two = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((2, 3), np.float32)}
    with pytest.raises(InputError, match="2 outputs"):
        embedding(two, 2)
    with pytest.raises(InputError, match="no output 'c'"):
        embedding(two, 2, "c")
    with pytest.raises(InputError, match="one row"):
        embedding({"a": np.zeros((1, 3), np.float32)}, 2)
    assert embedding({"a": np.zeros((4, 3, 1, 1), np.float32)}, 2).shape == (2, 3)
