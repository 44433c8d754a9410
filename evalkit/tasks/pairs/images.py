"""The images of a table of pairs: read, aligned, brought to the model's size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.errors import UnreadableImage
from evalkit.datasets.faces import decode
from evalkit.datasets.pack import Align


class PairImages:
    """The images of a table for the pipeline; safe to use from threads.

    Parameters
    ----------
    root : Path
        Folder that the paths start from.
    names : sequence of str
    side : int
        Of the faces, in pixels.
    align : callable or None
        Makes the face of a photograph; one call at a time, as a detector may not bear two.
    """

    def __init__(self, root: Path, names: Sequence[str], side: int, align: Align | None) -> None:
        self._root = root
        self._names = names
        self._side = side
        self._align = align
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Return the path as the table has it."""
        return self._names[index]

    def path(self, index: int) -> Path:
        """Return the image's file."""
        return self._root / self._names[index]

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        """Decode, align and resize one image; see `evalkit.run.pipeline.ImageSource`."""
        path = self.path(index)
        try:
            data = path.read_bytes()
            image = self._face(decode(data, rgb=self._align is None), path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UnreadableImage(f"{path} gives no face: {reason}", path=path) from error
        return image, hashlib.blake2b(data, digest_size=8).digest()

    def _face(self, image: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        if self._align is not None:
            with self._lock:
                aligned = self._align(image, path)
            image = np.ascontiguousarray(aligned[:, :, ::-1])
        height, width = image.shape[:2]
        if height != width:
            raise ValueError(f"it has {width}x{height} pixels, but a face is square: use --align")
        if height == self._side:
            return image
        resized: NDArray[np.uint8] = cv2.resize(
            image, (self._side, self._side), interpolation=cv2.INTER_CUBIC
        )
        return resized
