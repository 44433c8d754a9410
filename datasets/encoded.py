"""Image files in memory: what their header says, and decoding within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.faces import decode, is_truncated

MAX_PIXELS: Final = 25_000_000
"""Of a face image. A few kilobytes of PNG can claim gigabytes of pixels."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_NO_FRAME: Final = (0xC4, 0xC8, 0xCC)
"""Markers among the frame headers' numbers that are tables."""
_ALONE: Final = (0x01, *range(0xD0, 0xD9))
"""Markers without a length."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an encoded image says of itself.

    Attributes
    ----------
    format : {'jpeg', 'png'}
    width, height : int
        In pixels.
    """

    format: Literal["jpeg", "png"]
    width: int
    height: int


def image_header(data: bytes) -> ImageHeader:
    """Read the header of a JPEG or PNG file.

    Raises
    ------
    ValueError
        The bytes are neither, are cut off, or claim no or more than `MAX_PIXELS` pixels.
    """
    if data.startswith(_PNG):
        header = _png_header(data)
    elif data.startswith(_JPEG):
        header = _jpeg_header(data)
    else:
        raise ValueError("it is neither JPEG nor PNG" if data else "it is empty")
    if not 0 < header.width * header.height <= MAX_PIXELS:
        raise ValueError(
            f"it claims {header.width}x{header.height} pixels; at most {MAX_PIXELS:,} are read"
        )
    if is_truncated(data):
        raise ValueError("it is cut off")
    return header


def decode_face(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG file after a look at its header.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        Channels in the order red, green, blue.

    Raises
    ------
    ValueError
        As for `image_header`, or the image is damaged.
    """
    image_header(data)
    return decode(data, rgb=True)


def _png_header(data: bytes) -> ImageHeader:
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise ValueError("its PNG header is damaged")
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    return ImageHeader("png", width, height)


def _jpeg_header(data: bytes) -> ImageHeader:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = (int.from_bytes(data[i : i + 2], "big") for i in (at + 5, at + 7))
            return ImageHeader("jpeg", width, height)
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("its JPEG header is damaged or cut off")
