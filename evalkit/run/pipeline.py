"""From files to batches: read images, normalise them, in threads ahead of the session.

Images are decoded and normalised by worker threads (OpenCV and NumPy release the GIL) a few
batches ahead of the session. Order is kept, and memory is bounded whatever the data's size.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.core.results import Failure
from evalkit.core.settings import InputSpec
from evalkit.core.store import Shard
from evalkit.datasets.errors import UnreadableImage

Pixels: TypeAlias = NDArray[np.uint8]
Tensor: TypeAlias = NDArray[np.float32] | NDArray[np.uint8]

T = TypeVar("T")
B = TypeVar("B")

_BATCHES_AHEAD = 3
_NICE = 10


class ImageSource(Protocol):
    """What a data set gives to the pipeline; `load_with_digest` is called from many threads."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Name of a sample, for messages and results."""

    def path(self, index: int) -> Path | None:
        """File of a sample; None where it is part of a file that the data's hash covers."""

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        """Return the RGB image, shape (height, width, 3), and 8 bytes of hash of its file.

        Raises
        ------
        evalkit.datasets.errors.UnreadableImage
            The file is missing or does not decode.
        """


@dataclass(frozen=True, slots=True)
class Notes:
    """What is kept of some samples' files, and what failed when they were read.

    Attributes
    ----------
    digests : ndarray of uint8, shape (n, 8)
    stamps : ndarray of int64, shape (n, 2)
        See `stamp`.
    failures : dict of int to Failure
        By place among the samples.
    """

    digests: NDArray[np.uint8]
    stamps: NDArray[np.int64]
    failures: dict[int, Failure]


def stamp(source: ImageSource, index: int) -> tuple[int, int]:
    """Return the size and the time of change (in ns) of a sample's file, -1 where it is missing."""
    path = source.path(index)
    if path is None:
        return 0, 0
    try:
        status = path.stat()
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


def unchanged(source: ImageSource, span: slice, shard: Shard) -> bool:
    """Whether the files of some samples are those that a shard was computed from.

    A file of another time of change but the same bytes, such as a copy, is the same.
    """
    for place, index in enumerate(range(span.start, span.stop)):
        if stamp(source, index) == tuple(shard.stamps[place].tolist()):
            continue
        path = source.path(index)
        try:
            data = b"" if path is None else path.read_bytes()
        except OSError:
            return False
        if hashlib.blake2b(data, digest_size=8).digest() != shard.digests[place].tobytes():
            return False
    return True


class Normaliser:
    """``(pixel - mean) / std`` in float32, channel order and layout, by a table of 256 values.

    Parameters
    ----------
    spec : InputSpec
        What the model wants.
    dtype : str
        The model's input type: ``uint8`` takes the pixels as they are.
    """

    def __init__(self, spec: InputSpec, dtype: str = "float32") -> None:
        self.spec = spec
        self.raw = dtype == "uint8"
        mean = np.broadcast_to(np.asarray(spec.mean, np.float32), 3)
        std = np.broadcast_to(np.asarray(spec.std, np.float32), 3)
        self._tables = (np.arange(256, dtype=np.float32) - mean[:, None]) / std[:, None]
        self._scratch = threading.local()

    @property
    def dtype(self) -> str:
        """Element type of the batches."""
        return "uint8" if self.raw else "float32"

    def shape(self, count: int, size: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
        """Return the shape of a batch, of (height, width) or the model's own size."""
        height, width = size or self.spec.size
        if self.spec.layout == "nchw":
            return count, 3, height, width
        return count, height, width, 3

    def empty(self, count: int, size: tuple[int, int] | None = None) -> Tensor:
        """Return zeros in the shape of a batch."""
        tensor: Tensor = np.zeros(self.shape(count, size), self.dtype)
        return tensor

    def __call__(self, image: NDArray[np.uint8], out: Tensor) -> None:
        """Write an RGB image, shape (height, width, 3), into its place in a batch."""
        planes = self._split(image)
        for channel, plane in enumerate(planes if self.spec.color == "rgb" else planes[::-1]):
            if self.spec.layout == "nhwc":
                out[..., channel] = plane if self.raw else cv2.LUT(plane, self._tables[channel])
            elif self.raw:
                out[channel] = plane
            else:
                cv2.LUT(plane, self._tables[channel], dst=out[channel])

    def _split(self, image: NDArray[np.uint8]) -> Sequence[Any]:
        """Split into channels, in memory that each thread keeps: fresh pages cost far more."""
        memory: NDArray[np.uint8] | None = getattr(self._scratch, "memory", None)
        if memory is None or memory.size < image.size:
            memory = self._scratch.memory = np.empty(image.size, np.uint8)
        planes = memory[: image.size].reshape(3, *image.shape[:2])
        return cv2.split(image, list(planes))

    def flipped(self, tensor: Tensor) -> Tensor:
        """Return the batch mirrored left to right."""
        mirrored: Tensor = tensor[..., ::-1] if self.spec.layout == "nchw" else tensor[:, :, ::-1]
        return mirrored.copy()


def read_images(source: ImageSource, indices: Sequence[int]) -> tuple[dict[int, Pixels], Notes]:
    """Decode some samples, by place among them; a failure is noted, not raised."""
    images: dict[int, Pixels] = {}
    digests = np.zeros((len(indices), 8), np.uint8)
    stamps = np.array([stamp(source, index) for index in indices], np.int64)
    failures: dict[int, Failure] = {}
    for place, index in enumerate(indices):
        try:
            images[place], digest = source.load_with_digest(index)
        except UnreadableImage as error:
            failures[place] = Failure(name=source.name(index), reason=str(error))
        else:
            digests[place] = np.frombuffer(digest, np.uint8)
    return images, Notes(digests, stamps, failures)


def batches_ahead(
    tasks: Iterable[T], work: Callable[[T], B], threads: int
) -> Generator[tuple[T, B]]:
    """Yield what work makes of the tasks, in order, with a bounded number of them in the making.

    The tasks are taken one by one, as room for them comes: they may themselves be in the making.
    Where taking one fails, those that were taken before are yielded first.
    """
    with ThreadPoolExecutor(threads, "ahead", _give_way) as pool:
        waiting: deque[tuple[T, Future[B]]] = deque()
        source = iter(tasks)
        error: BaseException | None = None
        try:
            while True:
                try:
                    task = next(source)
                except StopIteration:
                    break
                except BaseException as failure:  # Ctrl-C too: finished work is kept
                    error = failure
                    break
                waiting.append((task, pool.submit(work, task)))
                if len(waiting) >= threads + _BATCHES_AHEAD:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
        if error is not None:
            raise error


def _give_way() -> None:
    """Let the session's threads go first: a worker then fills the gaps in which they wait.

    Linux has a niceness for each thread; elsewhere that number could be another process's.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let the workers of `batches_ahead` be the only threads.

    OpenCV's own would compete with the session. The number belongs to the whole process, so a run
    enters this once, around all its workers.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
