"""Reading of predictions that are one JSON or NPZ file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.widerface_eval.errors import WiderFaceError, listed
from evalkit.widerface_eval.ground_truth import without_suffix
from evalkit.widerface_eval.records import find_flaw

Rows: TypeAlias = NDArray[np.float64]
"""Detections of one image, shape (n, 5): x, y, width, height, score."""

Entry: TypeAlias = tuple[str, Callable[[], Rows | None]]
"""An image and what reads its rows: None if its file states nothing. A ValueError says what is
wrong."""

COLUMNS = 5
"""x, y, width, height, score. A reader ignores what follows in a row, such as landmarks."""
NOTHING: Rows = np.empty((0, COLUMNS))

_ARRAYS = ("images", "offsets", "boxes", "scores")
_NEEDS = "It needs the arrays images, offsets, boxes and scores."


def read_json(path: Path) -> Iterator[Entry]:
    """Read an object of ``event/image`` to a list of ``[x, y, w, h, score, ...]``.

    Raises
    ------
    WiderFaceError
        It is no such file, or names an image twice.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_no_duplicates)
    except (OSError, ValueError, RecursionError) as error:
        raise WiderFaceError(f"{path}: it is not a JSON file of predictions ({error}).") from error
    if not isinstance(content, dict):
        raise WiderFaceError(f"{path}: it must be an object of event/image to detections.")
    for image, value in zip(_images(path, content), content.values(), strict=True):
        yield image, partial(_listed_rows, image, value)


def read_npz(path: Path) -> Iterator[Entry]:
    """Read the arrays that `write_predictions` writes; nothing in the file is executed.

    Raises
    ------
    WiderFaceError
        It is no such file, its arrays do not fit each other, or it names an image twice.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
    except Exception as error:  # on broken archives NumPy raises nearly anything
        problem = str(error).strip("'\"").rstrip(".") or type(error).__name__
        raise WiderFaceError(
            f"{path}: it is not a file of predictions ({problem}). {_NEEDS}"
        ) from error
    _check_arrays(path, arrays)
    images = _images(path, arrays["images"].tolist())
    table = np.column_stack([arrays["boxes"], arrays["scores"]]).astype(np.float64)
    for image, (start, stop) in zip(images, pairwise(arrays["offsets"].tolist()), strict=True):
        yield image, partial(_checked, image, table[start:stop])


def _listed_rows(image: str, value: Any) -> Rows:
    try:
        table = NOTHING if value == [] else np.array(value)
    except ValueError:  # rows of different lengths
        table = np.empty(0)
    if table.ndim != 2 or table.shape[1] < COLUMNS or table.dtype.kind not in "iuf":
        raise ValueError(
            f"{image} is not a list of [x, y, w, h, score], with as many columns in every row"
        )
    return _checked(image, table[:, :COLUMNS].astype(np.float64))


def _checked(image: str, rows: Rows) -> Rows:
    flaw = find_flaw(rows[:, :4], rows[:, 4])
    if flaw is not None:
        raise ValueError(f"{image}: detection {flaw[0] + 1}: {flaw[1]}")
    return rows


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = {key for key, _ in pairs if key in seen or seen.add(key)}  # type: ignore[func-returns-value]
        raise ValueError(f"{listed(sorted(twice))} occurs twice")
    return content


def _images(path: Path, keys: Iterable[str]) -> list[str]:
    """Return the images of keys, which may have the suffix of a file."""
    images: dict[str, str] = {}
    for key in keys:
        image = without_suffix(key)
        if image in images:
            raise WiderFaceError(
                f"{path}: {images[image]!r} and {key!r} are one image. Keep one of them."
            )
        images[image] = key
    return list(images)


def _check_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays of other kinds or shapes, which NumPy would convert without a warning."""
    images, offsets, boxes, scores = (arrays[name] for name in _ARRAYS)
    for name, kinds, what in (
        ("images", "U", "text (NumPy's str; decode byte strings first)"),
        ("offsets", "iu", "of an integer type"),
        ("boxes", "iuf", "real numbers"),
        ("scores", "iuf", "real numbers"),
    ):
        if arrays[name].dtype.kind not in kinds:
            raise WiderFaceError(f"{path}: {name} is {arrays[name].dtype}; it must be {what}.")
    for name, fits, shape in (
        ("images", images.ndim == 1, "(images,)"),
        ("offsets", offsets.shape == (images.size + 1,), f"({images.size + 1},): images and end"),
        ("boxes", boxes.ndim == 2 and boxes.shape[1] == 4, "(n, 4): x, y, width, height"),
        ("scores", scores.shape == boxes.shape[:1], "(n,): one score a box"),
    ):
        if not fits:
            raise WiderFaceError(
                f"{path}: {name} has the shape {arrays[name].shape}; it must have {shape}."
            )
    steps = offsets.tolist()  # Python's integers, since the difference of unsigned ones wraps
    if steps[0] != 0 or steps[-1] != len(boxes) or steps != sorted(steps):
        raise WiderFaceError(
            f"{path}: offsets must rise from 0 to {len(boxes)}, the number of boxes; those of "
            "image i are boxes[offsets[i]:offsets[i + 1]]."
        )
