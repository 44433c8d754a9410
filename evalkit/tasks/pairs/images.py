"""The images of a table of pairs: read, aligned, brought to the model's size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from evalkit.datasets.encoded import decode
from evalkit.datasets.faces import ImageFiles
from evalkit.datasets.pack import Align


class PairImages(ImageFiles):
    """The images of a table for the pipeline.

    Parameters
    ----------
    root : Path
        Folder that the paths start from.
    names : sequence of str
    side : int
        Of the faces, in pixels.
    align : callable or None
        Makes the face of a photograph. Calls are made one at a time: a detector's session is not
        safe to share between threads.
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

    def _image(self, index: int, data: bytes) -> NDArray[np.uint8]:
        image = decode(data, rgb=self._align is None)
        if self._align is not None:
            with self._lock:
                aligned = self._align(image, self.path(index))
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
