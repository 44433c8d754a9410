"""A made-up set of WIDER FACE's size: its faces, and what a detector finds of them.

No benchmark itself; `ap_bootstrap.py` and `widerface_eval.py` take it where no files are named.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalkit.widerface_eval import Detections, GroundTruth

IMAGES = 3226
FACES_AN_IMAGE = 12.3  # 39,708 faces in the validation images
STRAYS_AN_IMAGE = 60
SHARES = {"easy": 0.18, "medium": 0.34, "hard": 0.80}


def made_up(images: int, detectors: int = 1, seed: int = 0) -> tuple[GroundTruth, list[Detections]]:
    """Draw faces at random places; each detector finds most of them, and some that are none."""
    rng = np.random.default_rng(seed)
    names = tuple(f"{image % 61}--Event/{image}" for image in range(images))
    faces = [_boxes(rng, 1 + rng.poisson(FACES_AN_IMAGE - 1)) for _ in names]
    offsets = np.cumsum([0, *map(len, faces)])
    ease = rng.random(offsets[-1])
    truth = GroundTruth(
        names,
        offsets,
        np.concatenate(faces),
        {subset: ease < share for subset, share in SHARES.items()},
    )
    return truth, [
        Detections.from_rows(names, [_found(rng, own) for own in faces]) for _ in range(detectors)
    ]


def _boxes(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    side = rng.lognormal(3.2, 0.8, (count, 1)).clip(4, 400)
    return np.round(np.hstack([rng.uniform(0, 1024, (count, 2)), side, 1.2 * side]))


def _found(rng: np.random.Generator, faces: NDArray[np.float64]) -> NDArray[np.float64]:
    hits = faces[rng.random(len(faces)) < 0.85]
    hits = hits + rng.normal(0, 0.04, hits.shape) * hits[:, 2:3]
    hits[:, 2:] = hits[:, 2:].clip(1)
    strays = _boxes(rng, rng.poisson(STRAYS_AN_IMAGE))
    scores = np.concatenate([rng.beta(6, 2, len(hits)), rng.beta(1, 6, len(strays))])
    order = np.argsort(-scores)
    return np.column_stack([np.vstack([hits, strays]), scores])[order]
