"""What all detection heads share: the record, the settings, and the way from tensors to faces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
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
    """The faces found in one image.

    Attributes
    ----------
    boxes : ndarray of float32, shape (n, 4)
        x1, y1, x2, y2 in pixels.
    scores : ndarray of float32, shape (n,)
    landmarks : ndarray of float32, shape (n, 5, 2), or None
        Left eye, right eye, nose, left and right mouth corner, as seen in the image; None where
        the model gives none.
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
        """Whether every value is a number, and every place within 1e9 pixels."""
        parts = [self.boxes, self.scores, *([] if self.landmarks is None else [self.landmarks])]
        return all(bool((np.abs(part) <= _FAR_AWAY).all()) for part in parts)


@dataclass(frozen=True, slots=True)
class DetectionOptions:
    """What happens to a head's candidates; each of these moves the figure.

    Attributes
    ----------
    score_threshold : float
        Candidates below it are dropped. 0.02 is the public WIDER FACE protocols' value.
    nms_threshold : float or None
        Overlap above which the weaker box goes; None suppresses nothing.
    nms_overlap : str
        Convention of the overlap, see `evalkit.heads.nms.nms`; ``plus_one`` as in the public
        RetinaFace code.
    top_k_before, top_k_after : int or None
        Best candidates that enter suppression, and that leave it; None keeps all, as the public
        RetinaFace code does.
    clip : bool
        Whether boxes are cut at the image's border, before suppression.
    truncate : bool
        Whether the final corners lose their fractions, as in the prediction files that the public
        RetinaFace code writes: it moves the AP of small faces.
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
                raise InputError(f"{name} is {value}; it lies between 0 and 1.")
        for name in ("top_k_before", "top_k_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it is at least 1.")

    def settings(self) -> dict[str, Any]:
        """Every option, as results record them."""
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
            What the session gave; the first axis is the batch, or is missing where the model
            has none.
        size : tuple of int
            Height and width of the network's input.
        threshold : float
            Candidates with a lower score are left out; NaN scores are not.

        Returns
        -------
        list of Detections
            One an image of the batch, in pixels of the input, unsorted, before suppression.

        Raises
        ------
        evalkit.core.errors.InputError
            The outputs do not fit the head; the message says what was found and expected.
        """

    def options(self) -> DetectionOptions:
        """Return the options that suit the head where the user says nothing."""
        return DetectionOptions()

    def settings(self) -> dict[str, Any]:
        """Name and settings, as results record them."""
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
        Of the images, in the batch's order and of one input size; what the batch holds beyond
        them is padding and is left out.
    options : DetectionOptions

    Returns
    -------
    list of Detections or None
        By descending score, in pixels of the original image. None where a candidate is NaN,
        infinite or beyond 1e9 pixels: the image failed (an overflow in a low precision, perhaps),
        and is to be named.

    Raises
    ------
    evalkit.core.errors.InputError
        The outputs do not fit the head, hold fewer images than were given, or have scores that
        are no probabilities.
    """
    sizes = {geometry.input for geometry in geometries}
    if len(sizes) != 1:
        raise ValueError(f"a batch has one input size, not {sorted(sizes)}")
    # Overflow is looked for below, image by image.
    with np.errstate(over="ignore", invalid="ignore"):
        decoded = head.decode(outputs, sizes.pop(), options.score_threshold)
    if len(decoded) < len(geometries):
        raise InputError(
            f"The model's outputs are of {len(decoded)} images, but {len(geometries)} were given. "
            "Run it with --batch-size 1."
        )
    pairs = zip(decoded, geometries, strict=False)
    _check_scores(head, decoded[: len(geometries)])
    return [_finish(found, geometry, options) for found, geometry in pairs]


def _check_scores(head: DetectionHead, decoded: Sequence[Detections]) -> None:
    for found in decoded:
        highest = float(np.max(found.scores, initial=0.0, where=np.isfinite(found.scores)))
        if highest > _MOST_SCORE:
            raise InputError(
                f"The head {head.name!r} reads a score of {highest:.4g} from the model's outputs; "
                "scores are probabilities. Is the model's last sigmoid or softmax missing, or are "
                "its outputs named wrongly in the model's YAML?"
            )


def _finish(found: Detections, geometry: Geometry, options: DetectionOptions) -> Detections | None:
    if not found.finite:
        return None
    points = found.landmarks
    boxes = geometry.boxes_to_image(found.boxes)
    if options.clip:
        height, width = geometry.image
        boxes = np.clip(boxes, 0, np.array((width, height, width, height), np.float32))
    found = Detections(
        boxes, found.scores, None if points is None else geometry.landmarks_to_image(points)
    )
    if not found.finite:  # the image may be far larger than the input
        return None
    # A box without area is no face; the convention of whole pixels would give it one.
    found = found.take(np.flatnonzero((found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1)))
    if options.top_k_before is not None and len(found) > options.top_k_before:
        found = found.take(_best_first(found.scores)[: options.top_k_before])
    found = found.take(_kept(found, options))
    return found.truncated() if options.truncate else found


def _kept(found: Detections, options: DetectionOptions) -> NDArray[np.int64]:
    if options.nms_threshold is None:
        return _best_first(found.scores)[: options.top_k_after]
    return nms(
        found.boxes,
        found.scores,
        options.nms_threshold,
        overlap=options.nms_overlap,
        limit=options.top_k_after,
    )


def _best_first(scores: Floats) -> NDArray[np.int64]:
    return np.argsort(-scores, kind="stable")


def batched(value: Floats, axes: int) -> Floats:
    """Return an output with its batch axis, adding one to what models of one image leave out."""
    return value[None] if value.ndim == axes - 1 else value


def passes(scores: Floats, threshold: float) -> NDArray[np.bool_]:
    """Which scores reach the threshold; NaN does, so that it is found and not lost."""
    return ~(scores < threshold)


def tables_of(outputs: Outputs, rows: int, columns: int) -> list[Floats]:
    """Find the outputs of a number of rows and columns; adds the batch axis, keeps the order."""
    tables = [batched(value, 3) for value in outputs.values()]
    return [table for table in tables if table.ndim == 3 and table.shape[1:] == (rows, columns)]


def same_batch(tables: Sequence[Floats]) -> bool:
    """Whether all tables hold equally many images."""
    return len({len(table) for table in tables}) == 1


def misfit(head: str, outputs: Outputs, expected: str) -> InputError:
    """Return the error for outputs that do not fit a head."""
    found = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
    return InputError(
        f"The outputs do not fit the head {head!r}: found {found}; expected {expected}. "
        "Choose another head or correct its settings in the model's YAML."
    )


@lru_cache(maxsize=64)
def grid(size: Size, stride: int, repeats: int) -> Floats:
    """Column and row of each anchor of a level, row by row, each place `repeats` times.

    Returns
    -------
    ndarray of float32, shape (rows x columns x repeats, 2), read-only

    Examples
    --------
    >>> grid((16, 24), 8, 1).tolist()
    [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]
    """
    rows, columns = -(-size[0] // stride), -(-size[1] // stride)
    places = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    cells: Floats = np.repeat(places, repeats, axis=0).astype(np.float32)
    cells.setflags(write=False)
    return cells


def from_center(center: Floats, size: Floats) -> Floats:
    """Corners x1 y1 x2 y2 of boxes given by centre and width and height, each (n, 2)."""
    half = size / np.float32(2)
    return np.concatenate([center - half, center + half], axis=1)


def joined(levels: Sequence[Detections]) -> Detections:
    """Put the candidates of several levels into one record."""
    points = [level.landmarks for level in levels if level.landmarks is not None]
    return Detections(
        np.concatenate([level.boxes for level in levels]),
        np.concatenate([level.scores for level in levels]),
        np.concatenate(points) if points else None,
    )
