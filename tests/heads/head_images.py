"""Real photographs, read and fed to a detector as its configuration says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.core.settings import ModelConfig
from evalkit.heads.sizing import Geometry, pad_colour, parse_sizing, place
from evalkit.run.pipeline import Normaliser

EVENT = "22--Picnic"


def read(shared_data: Path, name: str) -> NDArray[np.uint8]:
    image = cv2.imread(str(shared_data / "widerface" / "images" / f"{name}.jpg"))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[no-any-return]


def feed(image: NDArray[np.uint8], config: ModelConfig, sizing: str) -> tuple[Any, Geometry]:
    policy = parse_sizing(sizing)
    (view,) = policy.views(image.shape[:2])  # type: ignore[arg-type]
    spec = config.input.model_copy(update={"size": view.input})
    normalise = Normaliser(spec)
    batch = normalise.empty(1)
    normalise(place(image, view, pad_colour(policy.pad, spec.mean, spec.color)), batch[0])
    return batch, view
