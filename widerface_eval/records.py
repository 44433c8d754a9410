"""What is judged: ground truth and detections of a whole set, as flat arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.widerface_eval.errors import WiderFaceError, listed

SUBSETS = ("easy", "medium", "hard")
_FAR_AWAY = 1e9
_MAX_SCORE = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The annotated faces of a set of images.

    Attributes
    ----------
    images : tuple of str
        ``event/image``, without the image's suffix.
    offsets : ndarray of int64, shape (images + 1,)
        The faces of image i are ``boxes[offsets[i]:offsets[i + 1]]``.
    boxes : ndarray of float64, shape (faces, 4)
        x, y, width, height in pixels; sizes may be negative (one official box's is).
    subsets : dict of str to ndarray of bool, shape (faces,)
        Which faces each subset keeps; the others are ignored in it.
    """

    images: tuple[str, ...]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float64]
    subsets: Mapping[str, NDArray[np.bool_]]

    def __post_init__(self) -> None:
        _check_layout(self.images, self.offsets, self.boxes, "ground truth")
        if not np.all(np.abs(self.boxes) <= _FAR_AWAY):
            row = int(np.argmin(np.all(np.abs(self.boxes) <= _FAR_AWAY, axis=1)))
            raise WiderFaceError(
                f"Ground-truth box {self.boxes[row].tolist()} of {self.images[self.image_of[row]]} "
                "is not in pixels; correct the annotation."
            )
        if not self.subsets:
            raise WiderFaceError("The ground truth names no subset; give at least one.")
        for name, kept in self.subsets.items():
            if kept.shape != (len(self.boxes),) or kept.dtype != np.bool_:
                raise WiderFaceError(
                    f"Subset {name!r} must be {len(self.boxes)} booleans, one a face; "
                    f"it has dtype {kept.dtype} and shape {kept.shape}."
                )

    @cached_property
    def image_of(self) -> NDArray[np.intp]:
        """Index of each face's image, shape (faces,)."""
        return np.repeat(np.arange(len(self.images)), np.diff(self.offsets))

    @cached_property
    def events(self) -> tuple[str, ...]:
        """The distinct events, in order of appearance."""
        return tuple(dict.fromkeys(event_of(image) for image in self.images))

    @cached_property
    def event_of_image(self) -> NDArray[np.intp]:
        """Index into `events` of each image, shape (images,)."""
        place = {event: index for index, event in enumerate(self.events)}
        return np.array([place[event_of(image)] for image in self.images], np.intp)

    def only(self, events: Collection[str]) -> GroundTruth:
        """Keep the images of some events.

        Raises
        ------
        WiderFaceError
            An event is unknown.
        """
        unknown = sorted(set(events) - set(self.events))
        if unknown:
            raise WiderFaceError(
                f"The ground truth has no event {listed(unknown)}. "
                f"It has: {', '.join(self.events)}."
            )
        return self.take([image for image in self.images if event_of(image) in events])

    def take(self, images: Sequence[str]) -> GroundTruth:
        """Keep some images, in the order of `images`.

        Raises
        ------
        WiderFaceError
            An image is unknown.
        """
        place = {image: row for row, image in enumerate(self.images)}
        unknown = [image for image in images if image not in place]
        if unknown:
            raise WiderFaceError(f"The ground truth has no image {listed(unknown)}.")
        rows = [place[image] for image in images]
        spans = [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
        faces = np.concatenate([np.empty(0, np.int64), *spans])
        return GroundTruth(
            images=tuple(images),
            offsets=offsets_of([len(span) for span in spans]),
            boxes=self.boxes[faces],
            subsets={name: kept[faces] for name, kept in self.subsets.items()},
        )


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections of a set of images, in the order of their file.

    Attributes
    ----------
    images : tuple of str
        ``event/image``, without the image's suffix.
    offsets : ndarray of int64, shape (images + 1,)
        The detections of image i are ``boxes[offsets[i]:offsets[i + 1]]``.
    boxes : ndarray of float64, shape (detections, 4)
        x, y, width, height in pixels.
    scores : ndarray of float64, shape (detections,)
        The detector's own, before any normalisation.
    """

    images: tuple[str, ...]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        _check_layout(self.images, self.offsets, self.boxes, "detections")
        if self.scores.shape != (len(self.boxes),):
            raise WiderFaceError(
                f"{len(self.boxes)} boxes need as many scores; their shape is {self.scores.shape}."
            )
        flaw = find_flaw(self.boxes, self.scores)
        if flaw is not None:
            row, problem = flaw
            raise WiderFaceError(f"{self.images[self.image_of[row]]}: {problem}.")

    @cached_property
    def image_of(self) -> NDArray[np.intp]:
        """Index of each detection's image, shape (detections,)."""
        return np.repeat(np.arange(len(self.images)), np.diff(self.offsets))

    @classmethod
    def from_rows(cls, images: Sequence[str], rows: Iterable[NDArray[np.float64]]) -> Detections:
        """Build from one array of ``x y w h score`` rows an image, in the images' order.

        Raises
        ------
        WiderFaceError
            The number of arrays is not that of images, or a detection is no box with a score.

        Examples
        --------
        >>> one = Detections.from_rows(["0--Parade/a"], [np.array([[1.0, 2, 3, 4, 0.9]])])
        >>> one.scores
        array([0.9])
        """
        blocks = [np.asarray(block, np.float64).reshape(-1, 5) for block in rows]
        table = np.concatenate([np.empty((0, 5)), *blocks])
        return cls(
            images=tuple(images),
            offsets=offsets_of([len(block) for block in blocks]),
            boxes=np.ascontiguousarray(table[:, :4]),
            scores=np.ascontiguousarray(table[:, 4]),
        )


def event_of(image: str) -> str:
    """Event of an image's name.

    Examples
    --------
    >>> event_of("59--people--driving--car/59_peopledrivingcar_1")
    '59--people--driving--car'
    """
    return image.rpartition("/")[0]


def offsets_of(counts: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Offsets of consecutive blocks, one more than there are blocks.

    Examples
    --------
    >>> offsets_of([2, 0, 3])
    array([0, 2, 2, 5])
    """
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def find_flaw(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> tuple[int, str] | None:
    """First detection that is not a box with a score, and what is wrong with it.

    Parameters
    ----------
    boxes : ndarray of shape (n, 4)
        x, y, width, height.
    scores : ndarray of shape (n,)

    Examples
    --------
    >>> find_flaw(np.array([[0.0, 0, 5, -1]]), np.array([0.5]))
    (0, 'box [0.0, 0.0, 5.0, -1.0] is inverted: its width or height is negative')
    """
    # Each comparison is False for NaN, so that it needs no test of its own.
    near = np.all(np.abs(boxes) <= _FAR_AWAY, axis=1)
    upright = np.all(boxes[:, 2:] >= 0, axis=1)
    scored = np.abs(scores) <= _MAX_SCORE
    good = near & upright & scored
    if good.all():
        return None
    row = int(np.argmin(good))
    if not near[row]:
        return row, f"box {boxes[row].tolist()} is not in pixels"
    if not upright[row]:
        return row, f"box {boxes[row].tolist()} is inverted: its width or height is negative"
    return row, f"score {float(scores[row])!r} is not a finite number in single precision's range"


def _check_layout(
    images: tuple[str, ...], offsets: NDArray[np.int64], boxes: NDArray[np.float64], what: str
) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise WiderFaceError(f"The {what}'s boxes must have the shape (n, 4), not {boxes.shape}.")
    count = len(boxes)
    if (
        not np.issubdtype(offsets.dtype, np.integer)
        or offsets.shape != (len(images) + 1,)
        or offsets[0] != 0
        or offsets[-1] != count
        or np.any(np.diff(offsets) < 0)
    ):
        raise WiderFaceError(
            f"The {what}'s offsets must be {len(images) + 1} integers that rise from 0 to "
            f"{count}: one for each image, and the end."
        )
    if len(set(images)) != len(images):
        seen: set[str] = set()
        twice = [image for image in images if image in seen or seen.add(image)]  # type: ignore[func-returns-value]
        raise WiderFaceError(f"The {what} names an image twice: {listed(twice)}.")
