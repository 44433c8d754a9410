"""Messages between a process and its worker: short JSON, and arrays in shared memory.

Arrays lie in unnamed files that both processes map, so nothing remains when either dies. Both sides
import this module; it needs NumPy and the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.core.errors import InputError

_LONGEST = 1 << 26  # bytes of a message
_ALIGNMENT = 64


class ConnectionClosedError(Exception):
    """The other side is gone, or sent something that is no message."""


def send(channel: Connection, message: dict[str, Any]) -> None:
    """Send a message.

    Raises
    ------
    ConnectionClosedError
    """
    try:
        channel.send_bytes(json.dumps(message).encode())
    except OSError as error:
        raise ConnectionClosedError(str(error)) from error


def receive(channel: Connection, limit: float | None = None) -> dict[str, Any]:
    """Wait for a message, at most `limit` seconds.

    Raises
    ------
    ConnectionClosedError
    TimeoutError
    """
    try:
        if not channel.poll(limit):
            raise TimeoutError
        message = json.loads(channel.recv_bytes(_LONGEST))
    except TimeoutError:
        raise
    except (EOFError, OSError, ValueError) as error:
        raise ConnectionClosedError(str(error)) from error
    if not isinstance(message, dict):
        raise ConnectionClosedError("a message is not a mapping")
    return message


class SharedArea:
    """Memory that two processes map: an unnamed file, which ends when both have closed it.

    Parameters
    ----------
    descriptor : int
        The file's; `close` closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls) -> SharedArea:
        """Make an empty area, in memory where the system has unnamed memory files."""
        with contextlib.suppress(AttributeError, OSError):
            return cls(os.memfd_create("evalkit"))
        memory = "/dev/shm"
        with tempfile.TemporaryFile(dir=memory if os.access(memory, os.W_OK) else None) as file:
            return cls(os.dup(file.fileno()))

    def write(self, arrays: Iterable[tuple[str, NDArray[Any]]]) -> list[dict[str, Any]]:
        """Copy named arrays into the memory; return their places, as JSON values for `read`.

        Raises
        ------
        evalkit.core.errors.InputError
            There is not enough memory.
        """
        arrays = list(arrays)
        places, end = [], 0
        for name, value in arrays:
            kind = {"dtype": value.dtype.str, "shape": list(value.shape)}
            places.append({"name": name, **kind, "offset": end})
            end += -(-value.nbytes // _ALIGNMENT) * _ALIGNMENT
        self._grow(end)
        for place, (_, value) in zip(places, arrays, strict=True):
            np.copyto(self._view(place), value)
        return places

    def read(self, places: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
        """Return views of the arrays that the other side wrote, valid until the next message."""
        return {str(place["name"]): self._view(place) for place in places}

    def close(self) -> None:
        """Release the memory; existing views keep their map alive."""
        self._map = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _grow(self, size: int) -> None:
        if size <= os.fstat(self.descriptor).st_size:
            return
        try:
            # Reserve the memory now: a later write without memory would kill the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self.descriptor, 0, size)
            else:
                os.ftruncate(self.descriptor, size)
        except OSError as error:
            raise InputError(
                f"There is no room for {size:,} bytes of shared memory: {error.strerror}. Choose "
                "a smaller batch size, or free some memory."
            ) from error

    def _view(self, place: dict[str, Any]) -> NDArray[Any]:
        dtype, shape = np.dtype(place["dtype"]), tuple(place["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        if not count:
            return np.empty(shape, dtype)
        end = place["offset"] + count * dtype.itemsize
        if self._map is None or end > len(self._map):
            self._map = mmap.mmap(self.descriptor, 0)
        return np.frombuffer(self._map, dtype, count, place["offset"]).reshape(shape)
