"""Image files in memory: what their header says, whether they are complete, and decoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_PIXELS: Final = 25_000_000
"""Of a face image. A few kilobytes of PNG can claim gigabytes of pixels."""

JPEG: Final = b"\xff\xd8"
PNG: Final = b"\x89PNG\r\n\x1a\n"
"""How the files begin."""

_JPEG_END: Final = b"\xff\xd9"
_PNG_END: Final = b"IEND\xaeB`\x82"
_SCAN: Final = 0xDA
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
    if data.startswith(PNG):
        header = _png_header(data)
    elif data.startswith(JPEG):
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


def is_truncated(data: bytes) -> bool:
    """Whether an encoded JPEG or PNG ends before its end marker.

    OpenCV decodes a truncated JPEG without complaint and fills the rest with grey. Bytes after
    the end marker are harmless. The end marker of a thumbnail is not taken for that of the image.

    Parameters
    ----------
    data : bytes
        The file. Other formats are never called truncated; their decoders complain.

    Examples
    --------
    >>> is_truncated(bytes.fromhex("ffd8 ffda0002 1234"))
    True
    >>> is_truncated(bytes.fromhex("ffd8 ffda0002 1234 ffd9"))
    False
    """
    if data.startswith(PNG):
        return _PNG_END not in data
    if not data.startswith(JPEG):
        return False
    scan = next((at for marker, at in _segments(data) if marker == _SCAN), None)
    return scan is None or data.rfind(_JPEG_END, scan + _number(data, scan)) < 0


def decode(data: bytes, *, rgb: bool = False) -> NDArray[np.uint8]:
    """Decode an image file's bytes, strictly.

    Parameters
    ----------
    data : bytes
    rgb : bool
        Decode to red, green, blue, rather than OpenCV's order: blue, green, red.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8

    Raises
    ------
    ValueError
        The bytes are not an image, or a truncated one.
    """
    if not data:
        raise ValueError("the file is empty")
    if is_truncated(data):
        raise ValueError("the file is truncated")
    try:
        # Of some other formats (PAM, AVIF with alpha) OpenCV always returns blue first.
        at_once = rgb and data.startswith((JPEG, PNG))
        order = cv2.IMREAD_COLOR_RGB if at_once else cv2.IMREAD_COLOR
        image = cv2.imdecode(np.frombuffer(data, np.uint8), order)
    except cv2.error as error:
        raise ValueError(f"the file does not decode ({error.err})") from error
    if image is None:
        raise ValueError("the file is not an image that OpenCV can decode")
    decoded: NDArray[np.uint8] = image
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if rgb and not at_once else decoded


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
    return ImageHeader("png", _number(data, 16, 4), _number(data, 20, 4))


def _jpeg_header(data: bytes) -> ImageHeader:
    for marker, at in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME and at + 7 <= len(data):
            return ImageHeader("jpeg", _number(data, at + 5), _number(data, at + 3))
    raise ValueError("its JPEG header is damaged or cut off")


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker of a JPEG file and where its length stands."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte before a marker
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            yield marker, at + 2
            at += 2 + _number(data, at + 2)


def _number(data: bytes, at: int, size: int = 2) -> int:
    return int.from_bytes(data[at : at + size], "big")
