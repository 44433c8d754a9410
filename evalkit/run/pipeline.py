"""The way of the data for one run: decode ahead in threads, infer, store.

Images are decoded and normalised by worker threads (OpenCV and NumPy release the GIL) a few
batches ahead of the session; order is kept and memory is bounded whatever the data's size.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Session
from evalkit.core.errors import InputError
from evalkit.core.progress import Advance
from evalkit.core.results import Failure
from evalkit.core.settings import InputSpec
from evalkit.core.store import Shard, Store
from evalkit.datasets.errors import UnreadableImage
from evalkit.heads.embedding import embedding

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


@dataclass(frozen=True, slots=True)
class Batch:
    """Prepared images.

    Attributes
    ----------
    tensor : ndarray of float32 or uint8
        In the model's layout; failed samples hold zeros.
    notes : Notes
    seconds : float
        Time that the worker took.
    """

    tensor: Tensor
    notes: Notes
    seconds: float


def stamp(source: ImageSource, index: int) -> tuple[int, int]:
    """Return the size and the time of change (in ns) of a sample's file, -1 where it is missing."""
    path = source.path(index)
    if path is None:
        return 0, 0
    try:
        held = path.stat()
    except (OSError, ValueError):
        return -1, -1
    return held.st_size, held.st_mtime_ns


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
        held: NDArray[np.uint8] | None = getattr(self._scratch, "held", None)
        if held is None or held.size < image.size:
            held = self._scratch.held = np.empty(image.size, np.uint8)
        planes = held[: image.size].reshape(3, *image.shape[:2])
        return cv2.split(image, list(planes))

    def flipped(self, tensor: Tensor) -> Tensor:
        """Return the batch mirrored left to right."""
        mirrored: Tensor = tensor[..., ::-1] if self.spec.layout == "nchw" else tensor[:, :, ::-1]
        return mirrored.copy()


def read_images(
    source: ImageSource, indices: Sequence[int]
) -> tuple[dict[int, NDArray[np.uint8]], Notes]:
    """Decode some samples, by place among them; a failure is noted, not raised."""
    images: dict[int, NDArray[np.uint8]] = {}
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


def prepare(source: ImageSource, indices: Sequence[int], normalise: Normaliser) -> Batch:
    """Decode and normalise some samples."""
    start = time.perf_counter()
    tensor = normalise.empty(len(indices))
    images, notes = read_images(source, indices)
    for place, image in images.items():
        normalise(image, tensor[place])
    return Batch(tensor, notes, time.perf_counter() - start)


def batches_ahead(
    tasks: Iterable[T], work: Callable[[T], B], threads: int
) -> Iterator[tuple[T, B]]:
    """Yield what work makes of the tasks, in order, with a bounded number of them in the making.

    The tasks are taken one by one, as room for them comes: they may themselves be in the making.
    """
    with _one_opencv_thread(), ThreadPoolExecutor(threads, "ahead", _give_way) as pool:
        waiting: deque[tuple[T, Future[B]]] = deque()
        try:
            for task in tasks:
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


def _give_way() -> None:
    """Let the session's threads go first: a worker then fills the gaps in which they wait.

    Linux has a niceness for each thread; elsewhere that number could be another process's.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Let the workers be the only threads: OpenCV's own would compete with the session."""
    held = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(held)


class Embedder:
    """Runs a session over prepared batches: padding, flips, head, failures.

    Parameters
    ----------
    session : Session
        Opened by the caller, who closes it.
    normalise : Normaliser
        Mirrors batches in its layout.
    flip : bool
        Whether mirrored images are run too.
    output : str or None
        The output that holds the embedding.
    """

    def __init__(
        self, session: Session, normalise: Normaliser, *, flip: bool, output: str | None
    ) -> None:
        self.session = session
        self.normalise = normalise
        self.flip = flip
        self.output = output
        self.seconds = 0.0

    def __call__(self, tensor: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return the embeddings of a batch, and of its mirror image."""
        start = time.perf_counter()
        plain = self._embed(tensor)
        mirrored = self._embed(self.normalise.flipped(tensor)) if self.flip else None
        self.seconds += time.perf_counter() - start
        return plain, mirrored

    def _embed(self, tensor: Tensor) -> NDArray[np.float32]:
        fixed = self.session.inputs[0].batch
        count = len(tensor)
        if fixed is None or fixed == count:
            return embedding(self.session.run(tensor), count, self.output, rows=count)
        parts = []
        for first in range(0, count, fixed):
            part = tensor[first : first + fixed]
            padding = [(0, fixed - len(part)), *[(0, 0)] * (part.ndim - 1)]
            outputs = self.session.run(np.pad(part, padding))
            parts.append(embedding(outputs, len(part), self.output, rows=fixed))
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How a run goes; none of these moves a figure.

    Attributes
    ----------
    batch_size, decode_threads : int
    max_failures : int
        More failures than this stop the run; what was done stays in the store.
    failures : tuple of Failure
        Those that the store holds already.
    """

    batch_size: int
    decode_threads: int
    max_failures: int
    failures: tuple[Failure, ...] = ()


def fill_store(
    store: Store,
    starts: Sequence[int],
    source: ImageSource,
    embedder: Embedder,
    options: EmbedOptions,
    advance: Advance,
) -> None:
    """Compute and write the shards that begin at `starts`.

    Raises
    ------
    evalkit.core.errors.InputError
        More than ``options.max_failures`` samples failed, or the model's output does not fit.
    """
    failures = list(options.failures)
    parts: list[Shard] = []
    first = 0
    for task, batch in batches_ahead(
        shard_tasks(store, starts, options.batch_size),
        lambda task: prepare(source, task, embedder.normalise),
        options.decode_threads,
    ):
        if not parts:
            first = task.start
        parts.append(_embed_batch(task, batch, source, embedder))
        advance(len(task))
        if task.stop == store.span(first).stop:
            shard = join_shards(parts)
            store.write(first, shard)
            failures += shard.failures
            parts = []
            check_failures(failures, options.max_failures, store)


def shard_tasks(store: Store, starts: Sequence[int], size: int) -> list[range]:
    """Cut the shards that begin at `starts` into tasks of `size` samples; none crosses a shard."""
    return [
        range(first, min(first + size, store.span(start).stop))
        for start in starts
        for first in range(start, store.span(start).stop, size)
    ]


def join_shards(parts: Sequence[Shard]) -> Shard:
    """Put consecutive parts of a shard together."""
    return Shard(
        outputs={
            name: np.concatenate([part.outputs[name] for part in parts])
            for name in parts[0].outputs
        },
        digests=np.concatenate([part.digests for part in parts]),
        stamps=np.concatenate([part.stamps for part in parts]),
        failures=tuple(failure for part in parts for failure in part.failures),
        decode_seconds=sum(part.decode_seconds for part in parts),
        inference_seconds=sum(part.inference_seconds for part in parts),
    )


def not_finite(name: str, cause: str = "overflow in a low precision?") -> Failure:
    """Return the failure of a sample whose output is not a number."""
    return Failure(name=name, reason=f"the model's output is NaN or infinite ({cause}).")


def check_failures(failures: Sequence[Failure], most: int, store: Store | None = None) -> None:
    """Stop a run in which too much fails.

    Raises
    ------
    evalkit.core.errors.InputError
        There are more than `most`; the first three are named.
    """
    if len(failures) > most:
        named = "; ".join(f"{failure.name}: {failure.reason}" for failure in failures[:3])
        kept = f"What was done is kept in {store.folder}. " if store is not None else ""
        count = "1 failure" if len(failures) == 1 else f"{len(failures)} failures"
        raise InputError(
            f"{count} to enrol, more than --max-failures {most}. The first: "
            f"{named} {kept}Mend the data or the model, or raise --max-failures."
        )


def _embed_batch(task: range, batch: Batch, source: ImageSource, embedder: Embedder) -> Shard:
    before = embedder.seconds
    plain, mirrored = embedder(batch.tensor)
    failures = dict(batch.notes.failures)
    usable = np.isfinite(plain).all(axis=1)
    if mirrored is not None:
        usable &= np.isfinite(mirrored).all(axis=1)
    for place in np.flatnonzero(~usable).tolist():
        failures.setdefault(place, not_finite(source.name(task[place])))
    failed = sorted(failures)
    outputs = (
        {"embeddings": plain} if mirrored is None else {"embeddings": plain, "flipped": mirrored}
    )
    for value in outputs.values():
        value[failed] = np.nan
    return Shard(
        outputs=outputs,
        digests=batch.notes.digests,
        stamps=batch.notes.stamps,
        failures=tuple(failures[place] for place in failed),
        decode_seconds=batch.seconds,
        inference_seconds=embedder.seconds - before,
    )
