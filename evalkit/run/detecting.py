"""The way of the data for detectors.

Images are read and sized ahead of the session in threads, and inferred in batches of equal size.
While one batch infers, the faces of the one before are read from its outputs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Session
from evalkit.core.progress import Advance
from evalkit.core.results import Failure
from evalkit.core.settings import InputSpec
from evalkit.core.store import Shard, Store
from evalkit.heads.detection import (
    DetectionHead,
    DetectionOptions,
    Detections,
    Outputs,
    detect,
)
from evalkit.heads.sizing import Geometry, Sizing, batches_by_size, pad_colour, place
from evalkit.heads.voting import vote
from evalkit.run.buffers import Buffers
from evalkit.run.pipeline import (
    ImageSource,
    Normaliser,
    Notes,
    Tensor,
    batches_ahead,
    check_failures,
    join_shards,
    not_finite,
    read_images,
    shard_tasks,
)

FIELDS = ("counts", "detections")
SHARD = 32
TASK = 4
_DECODERS = 1
_MAX_PIXELS = 1 << 22
_NO_BOXES = (
    "or a box beyond 1e9 pixels, or of the head 'boxes' one that is inside out: overflow in a low "
    "precision, or the wrong 'form'?"
)
_ROW = 15
"""x1 y1 x2 y2 score and five points, NaN where the model gives none."""


@dataclass(frozen=True, slots=True)
class View:
    """One image, or one of its scales, as the network sees it; `image` counts within a task."""

    image: int
    geometry: Geometry


@dataclass(frozen=True, slots=True)
class Prepared:
    """Ready batches of some images.

    Attributes
    ----------
    batches : tuple of (ndarray, tuple of View)
        A tensor in the model's layout, and what its rows are; rows beyond them are padding.
    notes : Notes
    seconds : float
        Time that the worker took.
    """

    batches: tuple[tuple[Tensor, tuple[View, ...]], ...]
    notes: Notes
    seconds: float


class Detector:
    """Runs a session over views and decodes what it gives.

    Parameters
    ----------
    session : Session
        Opened by the caller, who closes it.
    head : DetectionHead
    spec : InputSpec
        Normalisation, channel order and layout; its size plays no part.
    sizing : Sizing
    options : DetectionOptions
    batch_size : int
        The largest; a model of fixed batch size is padded to its own.
    """

    def __init__(
        self,
        session: Session,
        head: DetectionHead,
        spec: InputSpec,
        sizing: Sizing,
        options: DetectionOptions,
        batch_size: int,
    ) -> None:
        self.session = session
        self.head = head
        self.sizing = sizing
        self.options = options
        self._of_view = replace(options, truncate=False)
        self.batch_size = session.inputs[0].batch or batch_size
        self.normalise = Normaliser(spec, session.inputs[0].dtype)
        self.colour = pad_colour(sizing.pad, spec.mean, spec.color)
        self.buffers = Buffers()
        self.seconds = 0.0

    def prepare(self, source: ImageSource, indices: Sequence[int]) -> Prepared:
        """Decode, size and normalise some images."""
        start = time.perf_counter()
        views: list[View] = []
        pixels: list[NDArray[np.uint8]] = []
        images, notes = read_images(source, indices)
        for at, image in images.items():
            height, width = image.shape[:2]
            for geometry in self.sizing.views((height, width)):
                views.append(View(at, geometry))
                pixels.append(place(image, geometry, self.colour))
        return Prepared(self._batches(views, pixels), notes, time.perf_counter() - start)

    def infer(self, prepared: Prepared) -> list[Outputs]:
        """Return the raw outputs of each batch."""
        start = time.perf_counter()
        outputs: list[Outputs] = [self.session.run(tensor) for tensor, _ in prepared.batches]
        self.seconds += time.perf_counter() - start
        return outputs

    def decode(
        self, prepared: Prepared, outputs: Sequence[Outputs], count: int
    ) -> list[Detections | None]:
        """Return the faces of each of `count` images; None where an output is not finite.

        The batches are used up: their memory goes to later ones.
        """
        found: list[list[Detections | None]] = [[] for _ in range(count)]
        for (tensor, views), raw in zip(prepared.batches, outputs, strict=True):
            geometries = [view.geometry for view in views]
            detected = detect(self.head, raw, geometries, self._of_view)
            self.buffers.give(tensor)
            for view, faces in zip(views, detected, strict=True):
                found[view.image].append(faces)
        return [self._joined(views) for views in found]

    def __call__(self, prepared: Prepared, count: int) -> list[Detections | None]:
        """Infer and decode."""
        return self.decode(prepared, self.infer(prepared), count)

    def _batches(
        self, views: Sequence[View], pixels: Sequence[NDArray[np.uint8]]
    ) -> tuple[tuple[Tensor, tuple[View, ...]], ...]:
        sizes = [view.geometry.input for view in views]
        made = []
        for batch in batches_by_size(sizes, self.batch_size, _MAX_PIXELS):
            rows = self.session.inputs[0].batch or len(batch)
            shape = self.normalise.shape(rows, sizes[batch[0]])
            tensor = self.buffers.take(shape, self.normalise.dtype)
            tensor[len(batch) :] = 0
            for index, out in zip(batch, tensor, strict=False):
                self.normalise(pixels[index], out)
            made.append((tensor, tuple(views[index] for index in batch)))
        return tuple(made)

    def _joined(self, views: Sequence[Detections | None]) -> Detections | None:
        usable = [view for view in views if view is not None]
        if len(usable) < len(views) or not usable:
            return None
        faces = usable[0]
        if len(usable) > 1:
            options = self.options
            faces = vote(
                usable,
                vote_threshold(options),
                overlap=options.nms_overlap,
                limit=options.top_k_after,
            )
        return faces.truncated() if self.options.truncate else faces


def vote_threshold(options: DetectionOptions) -> float:
    """Return the overlap at which boxes of several views are joined: 0.4 where none suppresses."""
    return 0.4 if options.nms_threshold is None else options.nms_threshold


def fill_detections(
    store: Store,
    starts: Sequence[int],
    source: ImageSource,
    detector: Detector,
    *,
    decode_threads: int,
    max_failures: int,
    known: Sequence[Failure],
    advance: Advance,
) -> None:
    """Compute and write the shards that begin at `starts`; `known` failures are in the store.

    Raises
    ------
    evalkit.core.errors.InputError
        More than `max_failures` images failed, or the model's outputs do not fit its head.
    """
    failures = list(known)
    parts: list[Shard] = []
    first = 0
    for done, part in batches_ahead(
        _inferred(shard_tasks(store, starts, TASK), source, detector, decode_threads),
        lambda inferred: _decoded(inferred, source, detector),
        _DECODERS,
    ):
        task = done.task
        if not parts:
            first = task.start
        parts.append(part)
        advance(len(task))
        if task.stop == store.span(first).stop:
            shard = join_shards(parts)
            store.write(first, shard)
            failures += shard.failures
            parts = []
            check_failures(failures, max_failures, store)


def rows_of(shard: Shard) -> list[NDArray[np.float32] | None]:
    """Split a shard's detections by image: ``x1 y1 x2 y2 score ...`` rows, None where it failed."""
    counts = shard.outputs["counts"]
    ends = np.cumsum(np.maximum(counts, 0))
    return [
        None if count < 0 else shard.outputs["detections"][end - count : end]
        for count, end in zip(counts.tolist(), ends.tolist(), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Inferred:
    """Some images with the raw outputs of their batches, and the seconds that the session took."""

    task: range
    prepared: Prepared
    outputs: list[Outputs]
    seconds: float


def _inferred(
    tasks: Sequence[range], source: ImageSource, detector: Detector, threads: int
) -> Iterator[_Inferred]:
    for task, prepared in batches_ahead(tasks, lambda t: detector.prepare(source, t), threads):
        before = detector.seconds
        outputs = detector.infer(prepared)
        yield _Inferred(task, prepared, outputs, detector.seconds - before)


def _decoded(inferred: _Inferred, source: ImageSource, detector: Detector) -> Shard:
    task, notes = inferred.task, inferred.prepared.notes
    found = detector.decode(inferred.prepared, inferred.outputs, len(task))
    failures = dict(notes.failures)
    for at, faces in enumerate(found):
        if faces is None:
            failures.setdefault(at, not_finite(source.name(task[at]), _NO_BOXES))
    rows = [_rows(faces) for faces in found if faces is not None]
    return Shard(
        outputs={
            "counts": np.array([-1 if faces is None else len(faces) for faces in found], np.int64),
            "detections": np.concatenate([np.empty((0, _ROW), np.float32), *rows]),
        },
        digests=notes.digests,
        stamps=notes.stamps,
        failures=tuple(failures[at] for at in sorted(failures)),
        decode_seconds=inferred.prepared.seconds,
        inference_seconds=inferred.seconds,
    )


def _rows(faces: Detections) -> NDArray[np.float32]:
    points = np.full((len(faces), 10), np.nan, np.float32)
    if faces.landmarks is not None:
        points = faces.landmarks.reshape(-1, 10)
    return np.concatenate([faces.boxes, faces.scores[:, None], points], axis=1)
