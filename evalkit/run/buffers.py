"""Memory for batches, used again and again."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Bytes = NDArray[np.uint8]


class Buffers:
    """Arrays whose memory returns when it is done with; safe to use from threads.

    The system clears each page of fresh memory when it is first touched, which costs about as
    much as writing a batch into it. There are never more buffers than were in use at once.

    Examples
    --------
    >>> buffers = Buffers()
    >>> large = buffers.take((2, 3), "float32")
    >>> buffers.give(large)
    >>> small = buffers.take((5,), "float32")
    >>> small.shape, np.shares_memory(small, large)
    ((5,), True)
    """

    def __init__(self) -> None:
        self._free: list[Bytes] = []
        self._lock = Lock()

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array with anything in it."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        return self._buffer(size)[:size].view(kind).reshape(shape)

    def give(self, array: NDArray[Any]) -> None:
        """Return what `take` gave; the caller uses it no more."""
        buffer = array.base
        if not isinstance(buffer, np.ndarray):
            raise TypeError("this array does not come from the buffers")
        with self._lock:
            insort(self._free, buffer.reshape(-1), key=len)

    def _buffer(self, size: int) -> Bytes:
        """Return the smallest free buffer that is large enough, or a new one for the largest."""
        with self._lock:
            place = bisect_left(self._free, size, key=len)
            if place < len(self._free):
                return self._free.pop(place)
            if self._free:
                self._free.pop()
        return np.empty(size, np.uint8)
