"""Copies of batches to PyTorch's device and of results back: on CUDA by pinned memory and a stream.

The CUDA part was written against PyTorch's API and has not been run on hardware.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Carrier:
    """Carries the arrays of one session.

    Copies from pinned memory run without the CPU. With a stream of its own, a session does not wait
    for other work on the device.

    Parameters
    ----------
    device : torch.device or None
        A CUDA device, or None for the CPU.
    """

    def __init__(self, device: torch.device | None) -> None:
        self.device = device or torch.device("cpu")
        self._stream = None if device is None else torch.cuda.Stream(device)
        self._pinned: torch.Tensor | None = None

    def stream(self) -> AbstractContextManager[Any]:
        """Return a context in which the session's work is queued, without TF32."""
        return nullcontext() if self._stream is None else _without_tf32(self._stream)

    def to_device(self, batch: NDArray[Any], layout: torch.memory_format) -> torch.Tensor:
        """Copy a contiguous batch to the device; call it in `stream`'s context."""
        tensor = _as_tensor(batch)
        if self._stream is not None:
            tensor = self._pin(tensor).to(self.device, non_blocking=True)
        return tensor.contiguous(memory_format=layout)

    def to_host(self, values: Iterable[Any]) -> list[Any]:
        """Copy tensors to float32 arrays that share nothing with them; leave the rest alone."""
        values = list(values)
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                values = [_queue_to_host(value) for value in values]
            self._stream.synchronize()
        return [_owned(value) for value in values]

    def release(self) -> None:
        """Give the device's unused memory back."""
        self._pinned = None
        if self._stream is not None:
            torch.cuda.empty_cache()

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy to pinned memory, kept for batches of the same shape.

        `to_host` waits for the stream before a batch can follow, so the copy has been read by then.
        """
        pinned = self._pinned
        if pinned is None or pinned.shape != tensor.shape or pinned.dtype != tensor.dtype:
            pinned = self._pinned = torch.empty_like(tensor, pin_memory=True)
        return pinned.copy_(tensor)


@contextmanager
def _without_tf32(stream: Any) -> Iterator[None]:
    """Queue on a stream without TF32; restore the caller's setting afterwards."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _as_tensor(batch: NDArray[Any]) -> torch.Tensor:
    if batch.flags.writeable:
        return torch.from_numpy(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # read-only arrays are only read
        return torch.from_numpy(batch)


def _queue_to_host(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    pinned = torch.empty(value.shape, dtype=torch.float32, pin_memory=True)
    return pinned.copy_(value, non_blocking=True)


def _owned(value: Any) -> Any:
    """Copy to a NumPy array that shares nothing with the network."""
    if not isinstance(value, torch.Tensor):
        return value
    return np.array(value.detach().to(dtype=torch.float32).numpy(), order="C")
