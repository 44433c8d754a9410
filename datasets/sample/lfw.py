"""Writes an LFW-family `.bin` of drawn faces."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from evalkit.datasets.alignment import align
from evalkit.datasets.sample._write import Progress, in_threads
from evalkit.datasets.sample.photo import encode, photograph

PAIRS = {"tiny": 40, "default": 1000, "large": 6000}
HARDNESS = 1.0
FILE_NAME = "evalkit-sample-lfw.bin"
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

    def draw(task: tuple[int, int]) -> bytes:
        subject, image = task
        photo = photograph(seed, subject, image, hardness=HARDNESS)
        bgr = cv2.imdecode(np.frombuffer(photo.jpeg, np.uint8), cv2.IMREAD_COLOR)
        return encode(align(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), photo.points), 95)

    images = in_threads(draw, chosen, progress)
    (folder / FILE_NAME).write_bytes(_python2_pickle(images, same))
    return {"pairs": pairs, "folds": _FOLDS, "hardness": HARDNESS}
