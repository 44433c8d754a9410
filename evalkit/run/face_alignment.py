"""Alignment of whole photographs: a detector finds the face and its five points."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.core.alignment import AlignmentSettings
from evalkit.core.errors import InputError
from evalkit.core.settings import ModelConfig, RunSettings, load_model_config
from evalkit.datasets.alignment import ARCFACE_SIZE, align
from evalkit.datasets.pack import Align, five_point_alignment
from evalkit.heads.detection import Detections
from evalkit.heads.sizing import Size
from evalkit.run.detecting import Detector
from evalkit.run.detector import open_detector


def alignment(
    settings: AlignmentSettings, images: Path, run: RunSettings, size: int = ARCFACE_SIZE
) -> AbstractContextManager[Align | None]:
    """Open what makes faces of photographs, as the settings say; None where they are faces.

    Parameters
    ----------
    settings : AlignmentSettings
    images : Path
        Folder that the paths in a file of points start from.
    run : RunSettings
        Of a detector.
    size : int
        Side of the aligned face, in pixels.

    Raises
    ------
    evalkit.core.errors.EvalkitError, evalkit.datasets.errors.DatasetError
        The detector cannot be opened, or the file of points cannot be read.
    """
    if settings.points is not None:
        return nullcontext(five_point_alignment(settings.points, images, size))
    if settings.detector is None:
        return nullcontext()
    config = load_model_config(settings.detector, run)
    return detector_alignment(run, config, score_threshold=settings.score_threshold, size=size)


@contextmanager
def detector_alignment(
    run: RunSettings,
    config: ModelConfig,
    *,
    score_threshold: float,
    size: int = ARCFACE_SIZE,
) -> Iterator[Align]:
    """Open a detector and yield an alignment for `evalkit.datasets.pack.pack`.

    The face is that of `central_face`, moved onto the template by its five points.

    Parameters
    ----------
    run : RunSettings
        Backend, precision, device and threads.
    config : ModelConfig
        Of a detector that gives five points.
    score_threshold : float
        Faces that score less are ignored.
    size : int
        Side of the aligned face, in pixels.

    Yields
    ------
    callable
        From an image (height, width, 3), blue, green, red, and its file, to the aligned face. It
        raises a ValueError that names the file where there is no face, and an `InputError` where
        the detector gives no points.

    Raises
    ------
    evalkit.core.errors.EvalkitError
        The detector cannot be opened; see `open_detector`.
    """
    # Images come one at a time and in any size, so no batch can have two.
    single = run.model_copy(update={"batch_size": 1})
    with open_detector(single, config, {"score_threshold": score_threshold}) as opened:
        detector = opened.detector

        def aligned(image: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
            faces = _detect(detector, image, path.name)
            if faces.landmarks is None:
                raise InputError(
                    f"The detector {config.name!r} gives boxes without the five points that "
                    "alignment needs. Choose one that gives them, or name the output in its YAML."
                )
            if not len(faces):
                raise ValueError(
                    f"{config.name} finds no face in {path.name} that scores {score_threshold:g} "
                    "or more (--score-threshold)"
                )
            return align(image, faces.landmarks[central_face(faces, image.shape[:2])], size)

        yield aligned


def central_face(faces: Detections, image: Size) -> int:
    """Return the row of the face whose box has its centre nearest to the image's.

    In LFW's photographs the person that the file is named for is the one in the middle [1]_.

    Parameters
    ----------
    faces : Detections
        At least one, by descending score: of faces equally near the best one is taken.
    image : tuple of int
        Height and width, in pixels.

    References
    ----------
    .. [1] G. B. Huang, M. Ramesh, T. Berg, E. Learned-Miller, "Labeled Faces in the Wild: A
       Database for Studying Face Recognition in Unconstrained Environments", University of
       Massachusetts, Amherst, Technical Report 07-49, 2007.

    Examples
    --------
    >>> boxes = np.float32([[0, 0, 40, 40], [30, 30, 60, 70]])
    >>> central_face(Detections(boxes, np.float32([0.9, 0.6])), (100, 100))
    1
    """
    height, width = image
    centres = faces.boxes.astype(np.float64).reshape(-1, 2, 2).mean(axis=1)
    offsets = centres - (width / 2, height / 2)
    return int((offsets * offsets).sum(axis=1).argmin())


def _detect(detector: Detector, image: NDArray[np.uint8], name: str) -> Detections:
    rgb = np.ascontiguousarray(image[:, :, ::-1])
    (faces,) = detector([rgb])
    if faces is None:
        raise ValueError(f"the detector's output for {name} is NaN or infinite")
    return faces
