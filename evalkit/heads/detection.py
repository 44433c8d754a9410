"""What all detection heads share: detections, options, and the steps from tensors to faces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from evalkit.core.errors import InputError
from evalkit.heads.nms import OVERLAPS, Overlap, nms
from evalkit.heads.sizing import Geometry, Size

Floats: TypeAlias = NDArray[np.float32]
Outputs: TypeAlias = Mapping[str, Floats]

_FAR_AWAY = 1e9
_MOST_SCORE = 1.05
"""Probabilities end at 1; those of int8 may be a step beyond."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The faces of one image.

    Attributes
    ----------
    boxes : ndarray of float32, shape (n, 4)
        x1, y1, x2, y2 in pixels.
    scores : ndarray of float32, shape (n,)
    landmarks : ndarray of float32, shape (n, 5, 2), or None
        Left eye, right eye, nose, left and right mouth corner, as seen in the image; None if the
        model has no landmarks.
    """

    boxes: Floats
    scores: Floats
    landmarks: Floats | None = None

    def __post_init__(self) -> None:
        count = len(self.scores)
        points = None if self.landmarks is None else self.landmarks.shape
        if self.boxes.shape != (count, 4) or points not in {None, (count, 5, 2)}:
            raise ValueError(
                f"{count} scores do not go with boxes of shape {self.boxes.shape} and landmarks "
                f"of shape {points}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: NDArray[Any] | slice) -> Detections:
        """Select rows by a mask, by indices or by a slice."""
        points = None if self.landmarks is None else self.landmarks[rows]
        return Detections(self.boxes[rows], self.scores[rows], points)

    def truncated(self) -> Detections:
        """Drop the fractions of the corners."""
        return Detections(np.trunc(self.boxes), self.scores, self.landmarks)

    @property
    def finite(self) -> bool:
        """Whether every value is finite, and every coordinate within 1e9 pixels."""
        parts = [self.boxes, self.scores, *([] if self.landmarks is None else [self.landmarks])]
        return all(bool((np.abs(part) <= _FAR_AWAY).all()) for part in parts)


@dataclass(frozen=True, slots=True)
class DetectionOptions:
    """Options of post-processing; each of them changes the figure.

    Attributes
    ----------
    score_threshold : float
        Candidates below it are dropped. 0.02 is the value of the public WIDER FACE protocols.
    nms_threshold : float or None
        The weaker of two boxes is dropped if their overlap is greater; None suppresses nothing.
    nms_overlap : str
        Convention of the overlap, see `evalkit.heads.nms.nms`; ``plus_one`` as in the public
        RetinaFace code.
    top_k_before, top_k_after : int or None
        The number of best candidates before and after suppression; None keeps all, as the public
        RetinaFace code does.
    clip : bool
        Whether boxes are clipped at the image's border, before suppression.
    truncate : bool
        Whether the final corners lose their fractions, as in the prediction files of the public
        RetinaFace code: this changes the AP of small faces.
    """

    score_threshold: float = 0.02
    nms_threshold: float | None = 0.4
    nms_overlap: Overlap = "plus_one"
    top_k_before: int | None = None
    top_k_after: int | None = None
    clip: bool = False
    truncate: bool = False

    def __post_init__(self) -> None:
        if self.nms_overlap not in OVERLAPS:
            raise InputError(
                f"nms_overlap is {self.nms_overlap!r}; take one of {', '.join(OVERLAPS)}."
            )
        for name in ("score_threshold", "nms_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{name} is {value}. Give a number between 0 and 1.")
        for name in ("top_k_before", "top_k_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}. Give 1 or more.")

    def settings(self) -> dict[str, Any]:
        """Return every option, as results record them."""
        return asdict(self)


class DetectionHead(ABC):
    """Decodes a model's raw outputs; subclasses are frozen dataclasses of their settings."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    name: ClassVar[str]

    @abstractmethod
    def decode(self, outputs: Outputs, size: Size, threshold: float) -> list[Detections]:
        """Decode a batch.

        Parameters
        ----------
        outputs : mapping of str to ndarray of float32
            The session's outputs; the first axis is the batch. Models without a batch axis have
            none.
        size : tuple of int
            Height and width of the network's input.
        threshold : float
            Candidates with a lower score are dropped; NaN scores are kept.

        Returns
        -------
        list of Detections
            One for each image of the batch, in pixels of the input, unsorted, before suppression.

        Raises
        ------
        evalkit.core.errors.InputError
            The outputs do not fit the head; the message has the actual and the expected shapes.
        """

    def misfit(self, outputs: Outputs, expected: str) -> InputError:
        """Return the error for outputs that do not fit the head."""
        actual = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
        return InputError(
            f"The outputs do not fit the head {self.name!r}: they are {actual}; expected "
            f"{expected}. Choose another head or correct its settings in the model's YAML."
        )

    def options(self) -> DetectionOptions:
        """Return the head's default options."""
        return DetectionOptions()

    def settings(self) -> dict[str, Any]:
        """Return name and settings, as results record them."""
        return {"head": self.name, **asdict(self)}  # type: ignore[call-overload]


def detect(
    head: DetectionHead,
    outputs: Outputs,
    geometries: Sequence[Geometry],
    options: DetectionOptions,
) -> list[Detections | None]:
    """Turn the raw outputs of a batch into faces in the original images.

    Parameters
    ----------
    head : DetectionHead
    outputs : mapping of str to ndarray of float32
    geometries : sequence of Geometry
        Of the images, in the batch's order and of one input size; further rows of the batch are
        padding.
    options : DetectionOptions

    Returns
    -------
    list of Detections or None
        By descending score, in pixels of the original image. None if a candidate is NaN, infinite
        or beyond 1e9 pixels: the image failed, perhaps by an overflow in a low precision.

    Raises
    ------
    evalkit.core.errors.InputError
        The outputs do not fit the head, have too few images, or have scores that are no
        probabilities.
    """
    sizes = {geometry.input for geometry in geometries}
    if len(sizes) != 1:
        raise ValueError(f"a batch has one input size, not {sorted(sizes)}")
    # Overflow is checked below, image by image.
    with np.errstate(over="ignore", invalid="ignore"):
        decoded = head.decode(outputs, sizes.pop(), options.score_threshold)
    if len(decoded) < len(geometries):
        raise InputError(
            f"The model's outputs are of {len(decoded)} images, but {len(geometries)} were given. "
            "Run it with --batch-size 1."
        )
    decoded = decoded[: len(geometries)]
    _check_scores(head, decoded)
    pairs = zip(decoded, geometries, strict=True)
    return [_finish(candidates, geometry, options) for candidates, geometry in pairs]


def _check_scores(head: DetectionHead, decoded: Sequence[Detections]) -> None:
    for faces in decoded:
        highest = float(np.max(faces.scores, initial=0.0, where=np.isfinite(faces.scores)))
        if highest > _MOST_SCORE:
            raise InputError(
                f"The head {head.name!r} reads a score of {highest:.4g} from the model's outputs; "
                "scores are probabilities. Check whether the model's last sigmoid or softmax is "
                "missing, and the names of its outputs in the model's YAML."
            )


def _finish(faces: Detections, geometry: Geometry, options: DetectionOptions) -> Detections | None:
    if not faces.finite:
        return None
    boxes, points = geometry.boxes_to_image(faces.boxes), faces.landmarks
    if options.clip:
        height, width = geometry.image
        boxes = np.clip(boxes, 0, np.array((width, height, width, height), np.float32))
    points = None if points is None else geometry.landmarks_to_image(points)
    faces = Detections(boxes, faces.scores, points)
    if not faces.finite:  # the image may be far larger than the input
        return None
    # A box without area is no face; the plus_one convention would give it an area.
    faces = faces.take(np.flatnonzero((faces.boxes[:, 2:] > faces.boxes[:, :2]).all(axis=1)))
    if options.top_k_before is not None and len(faces) > options.top_k_before:
        faces = faces.take(_best_first(faces.scores)[: options.top_k_before])
    faces = faces.take(_suppressed(faces, options))
    return faces.truncated() if options.truncate else faces


def _suppressed(faces: Detections, options: DetectionOptions) -> NDArray[np.int64]:
    """Return the rows that suppression keeps, the best first."""
    threshold, limit = options.nms_threshold, options.top_k_after
    if threshold is None:
        return _best_first(faces.scores)[:limit]
    return nms(faces.boxes, faces.scores, threshold, overlap=options.nms_overlap, limit=limit)


def _best_first(scores: Floats) -> NDArray[np.int64]:
    return np.argsort(-scores, kind="stable")


def joined(levels: Sequence[Detections]) -> Detections:
    """Concatenate the candidates of several levels."""
    points = [level.landmarks for level in levels if level.landmarks is not None]
    return Detections(
        np.concatenate([level.boxes for level in levels]),
        np.concatenate([level.scores for level in levels]),
        np.concatenate(points) if points else None,
    )
