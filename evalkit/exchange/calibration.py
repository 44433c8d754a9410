"""Inputs to calibrate a device's model with, kept apart from the data that it is judged on."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.outputs.manifest import INPUTS
from evalkit.convert.calibration import draw
from evalkit.convert.image_sets import ImageSet, Kind, load_images
from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write, sha256_json
from evalkit.core.progress import Progress
from evalkit.exchange.dump import dump
from evalkit.exchange.inputs import Inputs
from evalkit.exchange.settings import DumpSettings
from evalkit.run.models import face_side
from evalkit.run.pipeline import ImageSource


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was written to calibrate with, and what the user should know of it."""

    folder: Path
    inputs: int
    warnings: tuple[str, ...]


class _Chosen:
    """Some images of a source."""

    def __init__(self, source: ImageSource, rows: NDArray[np.int64]) -> None:
        self._source = source
        self._rows = rows.tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        return self._source.name(self._rows[index])

    def path(self, index: int) -> Path | None:
        return self._source.path(self._rows[index])

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        return self._source.load_with_digest(self._rows[index])


def dump_calibration(config: DumpSettings, inputs: Inputs, progress: Progress) -> Calibration:
    """Draw images by the seed, and write their inputs, not mirrored, beside those to judge on.

    Raises
    ------
    evalkit.core.errors.InputError
        There are not enough images of other people.
    """
    if config.calibration is None:
        raise InputError("--calibration says how many images to draw.")
    detection = inputs.manifest.task == "detection"
    side = 0 if detection else face_side(inputs.model)
    kind: Kind = "photographs" if detection else "faces"
    with ExitStack() as stack:
        images = evaluated = stack.enter_context(load_images(config.data, kind, side, progress))
        if config.calibration_data is not None:
            own = load_images(config.calibration_data, kind, side, progress)
            images = stack.enter_context(own)
        return _write(config, config.calibration, inputs, images, evaluated, progress)


def _write(
    config: DumpSettings,
    samples: int,
    inputs: Inputs,
    images: ImageSet,
    evaluated: ImageSet,
    progress: Progress,
) -> Calibration:
    drawn = draw(
        images,
        samples=samples,
        held_out=1,
        seed=config.seed,
        evaluated=evaluated,
        progress=progress,
    )
    source = _Chosen(images.source, drawn.calibration)
    folder = config.out / "calibration"
    fingerprint = sha256_json([drawn.record, inputs.manifest.preprocessing])
    manifest = inputs.manifest.model_copy(
        update={
            "dataset": f"{images.name}:calibration",
            "fingerprint": fingerprint,
            "samples": len(source),
        }
    )
    detection = inputs.manifest.task == "detection"
    views = inputs.views if detection else lambda image: [("plain", image)]
    done = dump(folder, manifest, source, views, inputs.normalise, progress)
    with atomic_write(folder / "drawn.json") as file:
        file.write(json.dumps(drawn.record, indent=2).encode())
    return Calibration(folder / INPUTS, done.inputs, drawn.warnings)
