"""Writes an LFW-family `.bin` of painted faces."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from evalkit.datasets.alignment import align
from evalkit.datasets.sample import LFW_FILE_NAME
from sample_painter.photo import encode, photograph
from sample_painter.writing import Progress, in_threads

HARDNESS = 1.0
QUALITY = 85  # of the JPEG images
_FOLDS = 10


def _python2_pickle(images: list[bytes], same: list[bool]) -> bytes:
    """Pickle of protocol 2 as Python 2 wrote the field's files: images as plain strings.

    Python 3's own pickler would write bytes as a call of `_codecs.encode`, which a reader that
    trusts no globals must refuse.
    """
    strings = b"".join(b"T" + struct.pack("<i", len(data)) + data for data in images)
    flags = b"".join(b"\x88" if flag else b"\x89" for flag in same)
    return b"\x80\x02](" + strings + b"e](" + flags + b"e\x86."


def _photographs(pairs: int) -> tuple[list[tuple[int, int]], list[bool]]:
    """Choose (subject, image) of both sides of each pair: ten folds, each half same, half not.

    No subject is in two folds, and no photograph is used twice.
    """
    size = pairs // _FOLDS
    chosen: list[tuple[int, int]] = []
    same: list[bool] = []
    for fold in range(_FOLDS):
        first = fold * size
        for i in range(size):
            alike = i < size // 2
            other = (
                first + i if alike else first + (i + 1 - size // 2) % (size - size // 2) + size // 2
            )
            chosen += [(first + i, 0), (other, 1)]
            same.append(alike)
    return chosen, same


def _face(seed: int, subject: int, image: int) -> bytes:
    photo = photograph(seed, subject, image, hardness=HARDNESS)
    bgr = cv2.imdecode(np.frombuffer(photo.jpeg, np.uint8), cv2.IMREAD_COLOR)
    return encode(align(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), photo.points), QUALITY)


def write_lfw(
    folder: Path, pairs: int, seed: int, progress: Progress | None
) -> dict[str, int | float]:
    """Fill `folder` with one `.bin` of 112x112 aligned JPEG images.

    Returns
    -------
    dict
        The sample's parameters, for its marker.
    """
    chosen, same = _photographs(pairs)
    images = in_threads(lambda who: _face(seed, *who), chosen, progress)
    (folder / LFW_FILE_NAME).write_bytes(_python2_pickle(images, same))
    return {"pairs": pairs, "folds": _FOLDS, "hardness": HARDNESS}
