"""Writing of predictions, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np

from evalkit.widerface_eval.errors import WiderFaceError
from evalkit.widerface_eval.records import Detections


def write_predictions(path: str | Path, detections: Detections, *, overwrite: bool = False) -> None:
    """Write detections so that `read_predictions` and the public tools read them.

    Numbers keep all their digits, and whole ones have no point.

    Parameters
    ----------
    path : path
        A name ending in ``.json`` or ``.npz`` makes one file; any other the folder of
        ``event/image.txt``. It appears only when it is complete.
    detections : Detections
    overwrite : bool
        Replace what is there.

    Raises
    ------
    WiderFaceError
        Something is there, or an image's name would leave the folder.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise WiderFaceError(f"{path}: it exists; remove it, choose another, or overwrite it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as made:
        if path.suffix == ".json":
            made.write_text(_json(detections), "utf-8")
        elif path.suffix == ".npz":
            _write_npz(made, detections)
        else:
            _write_folder(made, detections)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give another path to write a file or a folder to, which takes the place of `path` at the end.

    Where writing fails, nothing is left, and an older file or folder stays.
    """
    # A sibling, so that it can be renamed into place.
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary / "new"
        if path.is_dir():
            path.rename(temporary / "old")
        (temporary / "new").replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_folder(folder: Path, detections: Detections) -> None:
    folder.mkdir()
    for image, rows in zip(detections.images, _rows(detections), strict=True):
        parts = image.split("/")
        if len(parts) != 2 or not all(parts) or {".", ".."} & set(parts) or os.sep in parts[1]:
            raise WiderFaceError(f"The image {image!r} has no name of the form event/image.")
        event, stem = parts
        (folder / event).mkdir(exist_ok=True)
        lines = [stem, str(len(rows)), *(" ".join(map(_shortest, row)) for row in rows)]
        (folder / event / f"{stem}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def _json(detections: Detections) -> str:
    table = dict(zip(detections.images, _rows(detections), strict=True))
    return json.dumps(table, allow_nan=False) + "\n"


def _write_npz(path: Path, detections: Detections) -> None:
    with path.open("wb") as file:
        np.savez(
            file,
            images=np.array(detections.images, np.str_),
            offsets=detections.offsets,
            boxes=detections.boxes,
            scores=detections.scores,
        )


def _rows(detections: Detections) -> list[list[list[float]]]:
    table = np.column_stack([detections.boxes, detections.scores]).tolist()
    bounds = detections.offsets.tolist()
    return [table[start:stop] for start, stop in pairwise(bounds)]


def _shortest(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
