"""Images of data sets in files, one by one for the pipeline; aligned faces among them."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.alignment import align
from evalkit.datasets.encoded import decode
from evalkit.datasets.errors import UnreadableImage


class ImageFiles(ABC):
    """Images in files, decoded when they are needed; safe to use from threads."""

    __slots__ = ()

    @abstractmethod
    def path(self, index: int) -> Path:
        """File of an image."""

    @abstractmethod
    def _image(self, index: int, data: bytes) -> NDArray[np.uint8]:
        """Make the image of a file's content; a ValueError says why there is none."""

    def load(self, index: int) -> NDArray[np.uint8]:
        """Read one image.

        Returns
        -------
        ndarray of shape (height, width, 3), uint8
            Channels in the order red, green, blue.

        Raises
        ------
        UnreadableImage
            The file is missing, or gives no image.
        """
        return self.load_with_digest(index)[0]

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        """As `load`, and the 8-byte BLAKE2b digest of the file that the image came from."""
        path = self.path(index)
        try:
            data = path.read_bytes()
            image = self._image(index, data)
        except FileNotFoundError as error:
            raise UnreadableImage("The image is missing", path=path) from error
        except OSError as error:
            raise UnreadableImage(f"It cannot be read: {error.strerror}", path=path) from error
        except ValueError as error:
            why = str(error).rstrip(".")
            raise UnreadableImage(f"It gives no image: {why}", path=path) from error
        return image, hashlib.blake2b(data, digest_size=8).digest()


class AlignedFaces(ImageFiles):
    """The faces of a data set, decoded and aligned.

    Symbolic links in the folder are followed, wherever they lead: data sets are often put together
    of them. Whoever reads the names from a file checks that they stay in the folder.

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
        self._folder = Path(folder)
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
        return self._folder / self.name(index)

    def _image(self, index: int, data: bytes) -> NDArray[np.uint8]:
        return align(decode(data, rgb=True), self._points[index], self._size)
