"""Runs of models on the images of a conversion: the fp32 source once, then each built model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Precision
from evalkit.backends.tensors import check_available
from evalkit.convert.calibration import Drawn, ImageBatches, Prepare
from evalkit.convert.image_sets import ImageSet, Kind
from evalkit.core.errors import InputError
from evalkit.core.progress import Progress
from evalkit.core.settings import ModelConfig, RunSettings
from evalkit.heads.embedding import embedding
from evalkit.heads.sizing import Fixed, pad_colour, parse_sizing, place
from evalkit.protocols.verification import evaluate as verify
from evalkit.run import models
from evalkit.run.models import OpenModel
from evalkit.run.pipeline import Normaliser

Rows = list[NDArray[np.float32]]
"""One array of shape (images, values) for each output."""

_BATCHES: dict[Kind, int] = {"faces": 8, "photographs": 1}
_LEAST_PAIRS = 20


def kind_of(config: ModelConfig) -> Kind:
    """Return the kind of images that a model takes."""
    return "faces" if config.head == "embedding" else "photographs"


def side_of(config: ModelConfig) -> int:
    """Return the side of the aligned faces that a model takes; 0 for a detector."""
    return models.face_side(config) if kind_of(config) == "faces" else 0


def check_runtime(run: RunSettings, backend: str, config: ModelConfig) -> None:
    """Check that a backend can run here, before any image is read for it.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        It cannot; the message says why, and what to install.
    """
    changed = run.model_copy(update={"backend": backend})
    check_available(backend, models.choose_backend(changed, config).probe())


@contextmanager
def opened(
    run: RunSettings, backend: str, precision: Precision, config: ModelConfig, file: Path
) -> Iterator[OpenModel]:
    """Open a file as the model that a configuration describes."""
    changed = run.model_copy(update={"backend": backend, "precision": precision})
    alone = config.model_copy(update={"files": {"any": str(file.absolute())}})
    with models.open_model(changed, alone) as model:
        yield model


@dataclass(frozen=True, slots=True)
class Reading:
    """A session's outputs for some images.

    Attributes
    ----------
    rows : list of ndarray
    images_per_second : float
        Of the session alone, without the first batch if there are several.
    """

    rows: Rows
    images_per_second: float


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The images of a conversion, prepared as for an evaluation.

    Attributes
    ----------
    config : ModelConfig
    images : ImageSet
    drawn : Drawn
    size : tuple of int
        Height and width of the model's input.
    """

    config: ModelConfig
    images: ImageSet
    drawn: Drawn
    size: tuple[int, int]

    @classmethod
    def of(cls, model: OpenModel, images: ImageSet, drawn: Drawn) -> Prepared:
        """Take the input size of an opened model; a detector gets one size for all images."""
        if kind_of(model.config) == "faces":
            models.check_input(model.session, model.config)
        return cls(model.config, images, drawn, _input_size(model))

    def calibration(self, model: OpenModel) -> ImageBatches:
        """Return the images to calibrate with, in batches that a model takes."""
        return self._batches(model, self.drawn.calibration)

    def check_calibration(self, model: OpenModel) -> None:
        """Check that fp32 gives finite outputs for the calibration images; few toolchains check.

        Raises
        ------
        evalkit.core.errors.InputError
            It does not; the message names the first image of the batch.
        """
        batches = self.calibration(model)
        for number, batch in enumerate(batches):
            outputs = model.session.run(batch)
            if not all(np.isfinite(value).all() for value in outputs.values()):
                first = self.images.source.name(int(batches.rows[number * batches.batch]))
                raise InputError(
                    "The fp32 model itself gives NaN or infinite values for calibration images, in "
                    f"the batch of {len(batch)} from {first} on. Check the model, the images, "
                    "--mean and --std."
                )

    def read(self, model: OpenModel, progress: Progress, name: str, most: int) -> Reading:
        """Run a model on the images of the comparison, at most `most`."""
        rows = self.drawn.held_out[:most]
        parts: list[Rows] = []
        seconds: list[float] = []
        sizes: list[int] = []
        with progress.stage(name, len(rows), "images") as advance:
            for batch in self._batches(model, rows):
                start = time.perf_counter()
                outputs = model.session.run(batch)
                seconds.append(time.perf_counter() - start)
                sizes.append(len(batch))
                parts.append(self._rows(outputs, len(batch)))
                advance(len(batch))
        skip = 1 if len(sizes) > 1 else 0
        speed = sum(sizes[skip:]) / max(sum(seconds[skip:]), 1e-9)
        # Further rows are padding of the last batch.
        return Reading(
            [np.concatenate(part)[: len(rows)] for part in zip(*parts, strict=True)], speed
        )

    def _rows(self, outputs: dict[str, NDArray[np.float32]], count: int) -> Rows:
        if kind_of(self.config) == "faces":
            return [embedding(outputs, count, self.config.output, rows=count)]
        return [value.reshape(count, -1) for value in outputs.values()]

    def accuracy(self, embeddings: NDArray[np.float32]) -> float:
        """Return the accuracy of 1:1 verification on the pairs of the comparison.

        Raises
        ------
        evalkit.core.errors.InputError
            The calibration data are no pairs, or too few are held out.
        """
        rows, issame = self.drawn.held_out, self.images.issame
        if issame is None or kind_of(self.config) != "faces":
            raise InputError(
                f"--until-accuracy verifies pairs, and {self.images.path} has none. Calibrate with "
                "a .bin, or give --until-cosine."
            )
        pairs, counts = np.unique(rows // 2, return_counts=True)
        whole = pairs[counts == 2]
        if len(whole) < _LEAST_PAIRS:
            raise InputError(
                f"Only {len(whole)} whole pairs are held out; --until-accuracy needs "
                f"{_LEAST_PAIRS} or more. Raise --held-out."
            )
        places = np.searchsorted(rows, (2 * whole[:, None] + (0, 1)).ravel())
        (result,) = verify(embeddings[places], issame[whole], rules=("exact",)).accuracy
        return float(result.accuracy)

    def _batches(self, model: OpenModel, rows: NDArray[np.int64]) -> ImageBatches:
        info = model.session.inputs[0]
        return ImageBatches(
            self.images,
            rows,
            Normaliser(self.config.input, info.dtype),
            self._prepare(),
            self.size,
            batch=info.batch or _BATCHES[self.images.kind],
            full=info.batch is not None,
        )

    def _prepare(self) -> Prepare:
        if self.images.kind == "faces":
            return lambda image: image
        sizing = _fixed(self.config, self.size)
        spec = self.config.input
        colour = pad_colour(sizing.pad, spec.mean, spec.color)

        def prepare(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
            height, width = image.shape[:2]
            return place(image, sizing.views((height, width))[0], colour)

        return prepare


def _input_size(model: OpenModel) -> tuple[int, int]:
    nchw = model.config.input.layout == "nchw"
    shape = model.session.inputs[0].shape
    height, width = shape[2:4] if nchw else shape[1:3]
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    sizing = parse_sizing(model.config.sizing)
    if kind_of(model.config) == "photographs" and isinstance(sizing, Fixed):
        return sizing.height, sizing.width
    sizes = models.image_shape(model.config)
    return sizes[1:] if nchw else sizes[:2]


def _fixed(config: ModelConfig, size: tuple[int, int]) -> Fixed:
    """Return the sizing of photographs to one size: the model's own if that is fixed."""
    sizing = parse_sizing(config.sizing)
    if isinstance(sizing, Fixed) and (sizing.height, sizing.width) == size:
        return sizing
    return Fixed(*size, pad=sizing.pad)
