"""Reading of predictions that are one JSON or NPZ file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.widerface_eval.errors import WiderFaceError, listed
from evalkit.widerface_eval.found import COLUMNS, NOTHING, Found
from evalkit.widerface_eval.ground_truth import without_suffix

_ARRAYS = ("images", "offsets", "boxes", "scores")
_NEEDS = "It needs the arrays images, offsets, boxes and scores."


def read_json(path: Path, wanted: set[str], everything: set[str]) -> Found:
    """Read an object of ``event/image`` to a list of ``[x, y, w, h, score, ...]``.

    Parameters
    ----------
    path : Path
    wanted : set of str
        Images to read.
    everything : set of str
        Images that are not extra.

    Raises
    ------
    WiderFaceError
        It is no such file, or names an image twice.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_no_duplicates)
    except (OSError, ValueError, RecursionError) as error:
        raise WiderFaceError(f"{path}: it is no JSON file of predictions ({error}).") from error
    if not isinstance(content, dict):
        raise WiderFaceError(f"{path}: it must be an object of event/image to detections.")
    found = Found()
    for image, value in zip(_images(path, content), content.values(), strict=True):
        if image in wanted:
            _take_list(found, image, value)
        elif image not in everything:
            found.extra.append(image)
    return found


def _take_list(found: Found, image: str, value: Any) -> None:
    try:
        table = NOTHING if value == [] else np.array(value)
    except ValueError:  # rows of different lengths
        table = np.empty(0)
    if table.ndim != 2 or table.shape[1] < COLUMNS or table.dtype.kind not in "iuf":
        found.malformed[image] = (
            f"{image} is no list of [x, y, w, h, score], with as many columns in every row"
        )
        return
    found.take(image, table[:, :COLUMNS].astype(np.float64))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = {key for key, _ in pairs if key in seen or seen.add(key)}  # type: ignore[func-returns-value]
        raise ValueError(f"{listed(sorted(twice))} occurs twice")
    return content


def _images(path: Path, keys: Iterable[str]) -> list[str]:
    """Images that the keys name, which may carry the suffix."""
    named: dict[str, str] = {}
    for key in keys:
        image = without_suffix(key)
        if image in named:
            raise WiderFaceError(
                f"{path}: {named[image]!r} and {key!r} are one image. Keep one of them."
            )
        named[image] = key
    return list(named)


def read_npz(path: Path, wanted: set[str], everything: set[str]) -> Found:
    """Read the arrays that `write_predictions` writes; nothing in the file is executed.

    Parameters
    ----------
    path : Path
    wanted : set of str
        Images to read.
    everything : set of str
        Images that are not extra.

    Raises
    ------
    WiderFaceError
        It is no such file, its arrays do not fit each other, or it names an image twice.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in _ARRAYS}
    except Exception as error:  # on broken archives NumPy raises nearly anything
        problem = str(error).strip("'\"").rstrip(".") or type(error).__name__
        raise WiderFaceError(
            f"{path}: it is no file of predictions ({problem}). {_NEEDS}"
        ) from error
    _check_arrays(path, held)
    images = _images(path, held["images"].tolist())
    offsets = held["offsets"].tolist()
    table = np.column_stack([held["boxes"], held["scores"]]).astype(np.float64)
    found = Found()
    for image, (start, stop) in zip(images, pairwise(offsets), strict=True):
        if image in wanted:
            found.take(image, table[start:stop])
        elif image not in everything:
            found.extra.append(image)
    return found


def _check_arrays(path: Path, held: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays of other kinds or shapes, which NumPy would convert without a word."""
    images, offsets, boxes, scores = (held[name] for name in _ARRAYS)
    for name, kinds, what in (
        ("images", "U", "text (NumPy's str; decode byte strings first)"),
        ("offsets", "iu", "of an integer type"),
        ("boxes", "iuf", "real numbers"),
        ("scores", "iuf", "real numbers"),
    ):
        if held[name].dtype.kind not in kinds:
            raise WiderFaceError(f"{path}: {name} is {held[name].dtype}; it must be {what}.")
    for name, fits, shape in (
        ("images", images.ndim == 1, "(images,)"),
        ("offsets", offsets.shape == (images.size + 1,), f"({images.size + 1},): images and end"),
        ("boxes", boxes.ndim == 2 and boxes.shape[1] == 4, "(n, 4): x, y, width, height"),
        ("scores", scores.shape == boxes.shape[:1], "(n,): one score a box"),
    ):
        if not fits:
            raise WiderFaceError(
                f"{path}: {name} has the shape {held[name].shape}; it must have {shape}."
            )
    steps = offsets.tolist()  # Python's integers, since the difference of unsigned ones wraps
    if steps[0] != 0 or steps[-1] != len(boxes) or steps != sorted(steps):
        raise WiderFaceError(
            f"{path}: offsets must rise from 0 to {len(boxes)}, the number of boxes; those of "
            "image i are boxes[offsets[i]:offsets[i + 1]]."
        )
