"""The loop that fills a store, with an engine that only counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from evalkit.core.errors import InputError
from evalkit.core.results import Failure
from evalkit.core.store import Store
from evalkit.datasets.errors import UnreadableImage
from evalkit.run.filling import TaskOutputs, fill_store
from evalkit.run.pipeline import Pixels

SHARD = 6


class Images:
    """Grey images of one value each; those in `bad` are unreadable."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.count = count
        self.bad = bad

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"image {index}"

    def path(self, index: int) -> None:
        return None

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        if index in self.bad:
            raise UnreadableImage("does not decode", path=self.name(index))
        return np.full((2, 2, 3), index, np.uint8), index.to_bytes(8, "big")


class Values:
    """An engine whose output is an image's value, 255 where it has none."""

    fields: ClassVar[tuple[str, ...]] = ("values",)
    task_size: ClassVar[int] = 4
    shard_size: ClassVar[int] = SHARD

    def prepare(self, images: Mapping[int, Pixels], count: int) -> NDArray[np.uint8]:
        return np.array([images[at][0, 0, 0] if at in images else 255 for at in range(count)])

    def infer(self, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return inputs

    def decode(self, inputs: NDArray[np.uint8], raw: NDArray[np.uint8], count: int) -> TaskOutputs:
        odd = [at for at in range(count) if raw[at] % 5 == 0]
        return TaskOutputs({"values": raw}, dict.fromkeys(odd, "a multiple of five"))


def fill(
    folder: Path,
    images: Images,
    engine: Values,
    *,
    most: int = 1000,
    failures: tuple[Failure, ...] = (),
) -> Store:
    store = Store(folder, {}, len(images), engine.fields, engine.shard_size)
    with store.writing():
        fill_store(
            store,
            store.missing(),
            images,
            engine,
            decode_threads=2,
            max_failures=most,
            failures=failures,
            advance=lambda _: None,
        )
    return store


@pytest.mark.parametrize("count", [1, 4, 5, 6, 7, 12, 31])
def test_every_image_has_its_own_output(tmp_path: Path, count: int) -> None:
    store = fill(tmp_path, Images(count), Values())
    values = np.concatenate([shard.outputs["values"] for _, shard in store.shards()])
    digests = np.concatenate([shard.digests for _, shard in store.shards()])
    assert values.tolist() == list(range(count))
    assert [int.from_bytes(row.tobytes(), "big") for row in digests] == list(range(count))


def test_failures_are_in_order_and_reading_goes_before_decoding(tmp_path: Path) -> None:
    store = fill(tmp_path, Images(12, bad=(3, 10)), Values())
    failures = [failure for _, shard in store.shards() for failure in shard.failures]
    names = [failure.name for failure in failures]
    assert names == ["image 0", "image 3", "image 5", "image 10"]
    unreadable = ["does not decode" in failure.reason for failure in failures]
    assert unreadable == [False, True, False, True]


def test_earlier_failures_count(tmp_path: Path) -> None:
    earlier = (Failure(name="a", reason="b."), Failure(name="c", reason="d."))
    fill(tmp_path / "few", Images(6), Values(), most=4, failures=earlier)
    with pytest.raises(InputError, match=r"4 failures.*The first: a: b\.; c: d\.; image 0"):
        fill(tmp_path / "many", Images(6), Values(), most=3, failures=earlier)
    assert not Store(tmp_path / "many", {}, 6, ("values",), SHARD).missing()


def test_a_task_is_decoded_while_the_next_one_infers(tmp_path: Path) -> None:
    class Waits(Values):
        task_size = 1

        def __init__(self) -> None:
            self.begun = [threading.Event() for _ in range(5)]
            self.overlapped: list[bool] = []

        def infer(self, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
            self.begun[inputs[0]].set()
            return inputs

        def decode(
            self, inputs: NDArray[np.uint8], raw: NDArray[np.uint8], count: int
        ) -> TaskOutputs:
            if raw[0] < 4:
                self.overlapped.append(self.begun[raw[0] + 1].wait(timeout=60))
            return super().decode(inputs, raw, count)

    engine = Waits()
    fill(tmp_path, Images(5), engine)
    assert engine.overlapped == [True] * 4


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("prepare", InputError),
        ("infer", InputError),
        ("decode", InputError),
        ("infer", KeyboardInterrupt),
    ],
)
def test_an_error_of_any_step_stops_the_run_and_keeps_the_shards(
    tmp_path: Path, step: str, error: type[BaseException]
) -> None:
    def check(values: NDArray[np.uint8]) -> None:
        if 14 in values:
            raise error("it stops here")

    class Fails(Values):
        def prepare(self, images: Mapping[int, Pixels], count: int) -> NDArray[np.uint8]:
            inputs = super().prepare(images, count)
            if step == "prepare":
                check(inputs)
            return inputs

        def infer(self, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
            if step == "infer":
                check(inputs)
            return inputs

        def decode(
            self, inputs: NDArray[np.uint8], raw: NDArray[np.uint8], count: int
        ) -> TaskOutputs:
            if step == "decode":
                check(raw)
            return super().decode(inputs, raw, count)

    with pytest.raises(error, match="it stops here"):
        fill(tmp_path, Images(60), Fails())
    store = Store(tmp_path, {}, 60, ("values",), SHARD)
    assert [start for start in store.starts if start not in store.missing()] == [0, 6]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.fixture
def opencv_threads() -> Iterator[int]:
    """Give OpenCV a number of threads that no run sets."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    yield cv2.getNumThreads()
    cv2.setNumThreads(before)


class Records(Values):
    """Notes OpenCV's threads while a task infers, and fails at the second task."""

    def __init__(self, error: type[BaseException] | None) -> None:
        self.error = error
        self.threads: list[int] = []

    def infer(self, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.threads.append(cv2.getNumThreads())
        if self.error is not None and len(self.threads) == 2:
            raise self.error("stops here")
        return inputs


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_opencv_has_its_threads_again_after_a_run(
    tmp_path: Path, opencv_threads: int, error: type[BaseException] | None
) -> None:
    engine = Records(error)
    if error is None:
        fill(tmp_path, Images(31), engine)
    else:
        with pytest.raises(error, match="stops here"):
            fill(tmp_path, Images(31), engine)
    assert set(engine.threads) == {1}
    assert cv2.getNumThreads() == opencv_threads


def test_opencv_has_its_threads_again_after_a_run_that_stops_early(
    tmp_path: Path, opencv_threads: int
) -> None:
    with pytest.raises(InputError, match="failures to enrol"):
        fill(tmp_path, Images(60), Values(), most=0)
    assert cv2.getNumThreads() == opencv_threads
