"""The contract between evalkit and a runtime.

A backend knows tensors, nothing of faces. `Backend.probe` says whether it can run here;
`Backend.open` gives a `Session`, which runs batches and records what really ran.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing import Self  # Python 3.10, which a worker may run, has none

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, dtype and shape of a model's input or output.

    Attributes
    ----------
    name : str
        The name in the model; positional for formats without names (``input0``).
    dtype : str
        NumPy's name of the element type, such as ``float32``.
    shape : tuple of (int, str or None)
        A number where the model fixes the dimension, its symbol or None where it does not.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    @property
    def batch(self) -> int | None:
        """The fixed batch size, or None where any size goes."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) else None


@dataclass(frozen=True, slots=True)
class Probe:
    """What a backend can do on this machine.

    Attributes
    ----------
    available : bool
        Whether `Backend.open` can work here.
    version : str or None
        The runtime's version.
    devices, precisions : tuple of str
        What `open` accepts here, such as ``("cpu", "cuda:0")`` and ``("fp32", "int8")``.
    reason, remedy : str
        Where it is not available: why not, and the command that mends it.
    reads_outputs : bool
        Whether it reads what a device wrote (``--outputs``) in place of running a model file: it is
        given `evalkit.backends.outputs.device.OutputsOptions`.
    """

    available: bool
    version: str | None = None
    devices: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ()
    reason: str = ""
    remedy: str = ""
    reads_outputs: bool = False


@dataclass(frozen=True, slots=True)
class Ran:
    """What really ran, as the runtime itself tells it: goes into the result and the store's key.

    Attributes
    ----------
    backend, version, device : str
        Registered name, the runtime's version, the device that computed.
    precision_requested, precision_ran : str
        The label asked for, and the arithmetic that the runtime reports.
    threads : int or None
        CPU threads of one operator; None where the runtime has no such setting.
    details : mapping
        Providers, graph optimisation, memory format, engine hash, ...: JSON values only.
    notes : tuple of str
        Sentences for the reader of the result.
    """

    backend: str
    version: str
    device: str
    precision_requested: Precision
    precision_ran: str
    threads: int | None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a model ran where evalkit could not measure it; None is unknown.

    Attributes
    ----------
    batch_size : int or None
        Images a batch.
    images_per_second : float or None
    """

    batch_size: int | None
    images_per_second: float | None


class Session(ABC):
    """One opened model on one runtime at one precision; a context manager.

    Attributes
    ----------
    inputs, outputs : tuple of TensorInfo
        In the model's order.
    ran : Ran
        What really ran.
    speed : Speed or None
        Of a session that reads what ran elsewhere; None where `run` computes, and is timed.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    ran: Ran
    speed: Speed | None = None

    @abstractmethod
    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Run the model once.

        Parameters
        ----------
        batch : ndarray of float32 or uint8, shape (n, ...)
            The only input; n must equal the fixed batch size where there is one.

        Returns
        -------
        dict of str to ndarray of float32
            The outputs by name, in the model's order; the caller owns the arrays.

        Raises
        ------
        evalkit.core.errors.InputError
            The batch does not fit the model.
        """

    def close(self) -> None:  # noqa: B027 - most runtimes have nothing to release
        """Release the runtime's memory; the session cannot run any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to open a model.

    Attributes
    ----------
    precision : str
        ``fp32``, ``fp16``, ``bf16`` or ``int8``.
    device : str
        ``cpu``, ``cuda`` or ``cuda:1``.
    threads : int or None
        CPU threads; None takes the number of cores that this process may use.
    architecture : str or None
        Registered architecture, for files that hold weights alone.
    image : tuple of int or None
        Sizes of one input without the batch, in the model's own order, such as (3, 112, 112): what
        to try where the file leaves them open. A file that names its sizes needs none.
    provider : str or None
        What runs a CUDA device where a runtime has several: ``cuda`` or ``tensorrt`` of ONNX
        Runtime; None takes the runtime's own CUDA kernels.
    """

    precision: Precision = "fp32"
    device: str = "cpu"
    threads: int | None = None
    architecture: str | None = None
    image: tuple[int, int, int] | None = None
    provider: Literal["cuda", "tensorrt"] | None = None


class Backend(ABC):
    """A runtime: probed without a model, opened with one."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def probe(cls) -> Probe:
        """Say whether the backend can run here; never raises, never prints."""

    @classmethod
    @abstractmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """Open a model file.

        Raises
        ------
        evalkit.core.errors.UnavailableError
            The runtime, the device or the precision is not available here.
        evalkit.core.errors.InputError
            The file is missing or is no model of this runtime.
        """
