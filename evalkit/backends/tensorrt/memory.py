"""Device memory by pycuda: the primary context, a stream, and buffers that grow as needed.

Checked against pycuda's sources, not run on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.tensorrt.layers import gpu_key


class Device:
    """A GPU in its primary context, which other libraries of the process share.

    Parameters
    ----------
    index : int
        Of the device.
    """

    def __init__(self, index: int) -> None:
        import pycuda.driver as cuda  # noqa: PLC0415 - there may be none

        cuda.init()
        device = cuda.Device(index)
        self.kind = gpu_key(device.name(), device.compute_capability())
        self._cuda = cuda
        self._primary = device.retain_primary_context()
        with self.current():
            self.stream = cuda.Stream()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in the calling thread."""
        self._primary.push()
        try:
            yield
        finally:
            self._primary.pop()

    def buffer(self) -> Buffer:
        """Return an empty buffer."""
        return Buffer(self._cuda)

    def close(self) -> None:
        """Release the context."""
        self.stream = None
        self._primary.detach()


class Buffer:
    """Memory on the device, and page-locked memory on the host for copies.

    Parameters
    ----------
    cuda : module
        ``pycuda.driver``.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._bytes = 0
        self._memory: Any = None
        self.host: NDArray[Any] = np.empty(0)

    def fit(self, shape: tuple[int, ...], dtype: Any) -> int:
        """Make room for an array of this shape; return its address on the device."""
        if self.host.shape != shape or self.host.dtype != dtype:
            self.host = self._cuda.pagelocked_empty(shape, dtype)
        if self.host.nbytes > self._bytes or self._memory is None:
            self._release()
            self._bytes = max(self.host.nbytes, 1)
            self._memory = self._cuda.mem_alloc(self._bytes)
        return int(self._memory)

    def upload(self, stream: Any) -> None:
        """Copy to the device, in the stream's order."""
        self._cuda.memcpy_htod_async(self._memory, self.host, stream)

    def download(self, stream: Any) -> None:
        """Copy to the host, in the stream's order."""
        self._cuda.memcpy_dtoh_async(self.host, self._memory, stream)

    def free(self) -> None:
        """Release the memory on the device and on the host."""
        self._release()
        self.host = np.empty(0)

    def _release(self) -> None:
        if self._memory is not None:
            self._memory.free()
        self._memory, self._bytes = None, 0
