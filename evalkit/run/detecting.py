"""Detectors as an engine: images of any size in, faces out.

An image becomes one view, or one for each scale. Views of equal size share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Session
from evalkit.core.settings import InputSpec
from evalkit.core.store import Shard
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
from evalkit.run.filling import NOT_FINITE, TaskOutputs
from evalkit.run.pipeline import Normaliser, Pixels, Tensor

FIELDS = ("counts", "detections")
SHARD = 32
TASK = 4
_MAX_PIXELS = 1 << 22
_REASON = NOT_FINITE.format(
    cause="or a box beyond 1e9 pixels, or of the head 'boxes' one that is inside out: overflow in "
    "a low precision, or the wrong 'form'?"
)
_ROW = 15
"""x1 y1 x2 y2 score and five points, NaN where the model gives none."""


@dataclass(frozen=True, slots=True)
class View:
    """One image, or one of its scales, as the network sees it; `image` counts within a task."""

    image: int
    geometry: Geometry


Batches: TypeAlias = tuple[tuple[Tensor, tuple[View, ...]], ...]
"""Tensors in the model's layout, each with what its rows are; rows beyond them are padding."""


class Detector:
    """Runs a session over views of images and reads the faces from its outputs; see `Engine`.

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

    fields: ClassVar[tuple[str, ...]] = FIELDS
    task_size: ClassVar[int] = TASK
    shard_size: ClassVar[int] = SHARD

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

    def prepare(self, images: Mapping[int, Pixels], count: int) -> Batches:
        """See `Engine.prepare`: size and normalise the images."""
        views: list[View] = []
        pixels: list[Pixels] = []
        for index, image in images.items():
            height, width = image.shape[:2]
            for geometry in self.sizing.views((height, width)):
                views.append(View(index, geometry))
                pixels.append(place(image, geometry, self.colour))
        return self._batches(views, pixels)

    def infer(self, inputs: Batches) -> list[Outputs]:
        """See `Engine.infer`: the raw outputs of each batch."""
        return [self.session.run(tensor) for tensor, _ in inputs]

    def decode(self, inputs: Batches, raw: list[Outputs], count: int) -> TaskOutputs:
        """See `Engine.decode`: how many faces each image has, and all faces behind one another."""
        faces = self.faces(inputs, raw, count)
        rows = [_rows(detections) for detections in faces if detections is not None]
        counts = [-1 if detections is None else len(detections) for detections in faces]
        return TaskOutputs(
            outputs={
                "counts": np.array(counts, np.int64),
                "detections": np.concatenate([np.empty((0, _ROW), np.float32), *rows]),
            },
            unusable={index: _REASON for index, number in enumerate(counts) if number < 0},
        )

    def faces(self, inputs: Batches, raw: Sequence[Outputs], count: int) -> list[Detections | None]:
        """Return the faces of each of `count` images; None where an output is not finite.

        The batches are used up: their memory goes to later ones.
        """
        by_image: list[list[Detections | None]] = [[] for _ in range(count)]
        for (tensor, views), outputs in zip(inputs, raw, strict=True):
            geometries = [view.geometry for view in views]
            detected = detect(self.head, outputs, geometries, self._of_view)
            self.buffers.give(tensor)
            for view, faces in zip(views, detected, strict=True):
                by_image[view.image].append(faces)
        return [self._joined(views) for views in by_image]

    def __call__(self, images: Sequence[Pixels]) -> list[Detections | None]:
        """Return the faces of some images, in one go."""
        inputs = self.prepare(dict(enumerate(images)), len(images))
        return self.faces(inputs, self.infer(inputs), len(images))

    def _batches(self, views: Sequence[View], pixels: Sequence[Pixels]) -> Batches:
        sizes = [view.geometry.input for view in views]
        batches = []
        for batch in batches_by_size(sizes, self.batch_size, _MAX_PIXELS):
            rows = self.session.inputs[0].batch or len(batch)
            shape = self.normalise.shape(rows, sizes[batch[0]])
            tensor = self.buffers.take(shape, self.normalise.dtype)
            tensor[len(batch) :] = 0
            for index, out in zip(batch, tensor, strict=False):
                self.normalise(pixels[index], out)
            batches.append((tensor, tuple(views[index] for index in batch)))
        return tuple(batches)

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


def rows_of(shard: Shard) -> list[NDArray[np.float32] | None]:
    """Split a shard's detections by image: ``x1 y1 x2 y2 score ...`` rows, None where it failed."""
    counts = shard.outputs["counts"]
    ends = np.cumsum(np.maximum(counts, 0))
    return [
        None if count < 0 else shard.outputs["detections"][end - count : end]
        for count, end in zip(counts.tolist(), ends.tolist(), strict=True)
    ]


def _rows(faces: Detections) -> NDArray[np.float32]:
    points = np.full((len(faces), 10), np.nan, np.float32)
    if faces.landmarks is not None:
        points = faces.landmarks.reshape(-1, 10)
    return np.concatenate([faces.boxes, faces.scores[:, None], points], axis=1)
