"""Decoding of image files, and aligned faces one by one for the pipeline."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.alignment import align
from evalkit.datasets.errors import UnreadableImage

_JPEG_START: Final = b"\xff\xd8"
_JPEG_END: Final = b"\xff\xd9"
_JPEG_SCAN: Final = 0xDA
_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"IEND\xaeB`\x82"


def is_truncated(data: bytes) -> bool:
    """Whether an encoded JPEG or PNG ends before its end marker.

    OpenCV decodes a truncated JPEG without complaint and fills the rest with grey. Bytes after
    the end marker are harmless, and a thumbnail's end marker is not mistaken for the image's.

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
    if data.startswith(_PNG_START):
        return _PNG_END not in data
    if not data.startswith(_JPEG_START):
        return False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # fill byte before a marker
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == _JPEG_SCAN:
            return data.rfind(_JPEG_END, at + 2 + length) < 0
        at += 2 + length
    return True


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
        The bytes are no image, or a truncated one.
    """
    if not data:
        raise ValueError("the file is empty")
    if is_truncated(data):
        raise ValueError("the file is truncated")
    try:
        # Of some other formats (PAM, AVIF with alpha) OpenCV leaves blue first, whatever is asked.
        at_once = rgb and data.startswith((_JPEG_START, _PNG_START))
        order = cv2.IMREAD_COLOR_RGB if at_once else cv2.IMREAD_COLOR
        image = cv2.imdecode(np.frombuffer(data, np.uint8), order)
    except cv2.error as error:
        raise ValueError(f"the file does not decode ({error.err})") from error
    if image is None:
        raise ValueError("the file is not an image that OpenCV can decode")
    decoded: NDArray[np.uint8] = image
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if rgb and not at_once else decoded


class AlignedFaces:
    """The faces of a data set, decoded and aligned when asked for; safe to use from threads.

    Symbolic links in the folder are followed, wherever they lead: data sets are often put together
    of them. Only the names are held to the folder, by those who read them from a file.

    Parameters
    ----------
    folder : path
        Where the images lie.
    images : ndarray of shape (n,), bytes
        Their names, relative to the folder.
    points : ndarray of shape (n, 5, 2), float32
        Five points of each, in its pixels.
    size : int
        Side of the aligned image.
    """

    __slots__ = ("_folder", "_images", "_points", "_size")

    def __init__(
        self,
        folder: str | Path,
        images: NDArray[np.bytes_],
        points: NDArray[np.float32],
        size: int = 112,
    ) -> None:
        self._folder = os.fspath(folder)
        self._images = images
        self._points = points
        self._size = size

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """Name of a face's image file."""
        return os.fsdecode(self._images[index])

    def path(self, index: int) -> Path:
        """File of a face's image."""
        return Path(self._folder, self.name(index))

    def load(self, index: int) -> NDArray[np.uint8]:
        """Decode and align one face.

        Returns
        -------
        ndarray of shape (size, size, 3), uint8
            Channels in the order red, green, blue.

        Raises
        ------
        UnreadableImage
            The file is missing or broken, or its points define no alignment.
        """
        return self.load_with_digest(index)[0]

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        """As `load`, and the 8-byte BLAKE2b digest of the file that the face came from."""
        path = os.path.join(self._folder, self.name(index))  # noqa: PTH118  (a hot path)
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                data = file.read()
            face = align(decode(data, rgb=True), self._points[index], self._size)
        except FileNotFoundError as error:
            raise UnreadableImage("The image is missing", path=path) from error
        except OSError as error:
            raise UnreadableImage(f"It cannot be read: {error.strerror}", path=path) from error
        except ValueError as error:
            why = str(error).rstrip(".")
            raise UnreadableImage(f"No face can be made of it: {why}", path=path) from error
        return face, hashlib.blake2b(data, digest_size=8).digest()
