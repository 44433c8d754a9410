"""Checks that all runtimes share: devices, model files, batches and outputs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Precision, Probe, TensorInfo
from evalkit.core.errors import EvalkitError, InputError, UnavailableError, WrongPrecisionError

# Sides that an image model takes where its file leaves height and width open: the aligned face,
# then multiples of every stride that detectors use.
TRIAL_SIDES = (112, 128, 160, 224, 640)


def cuda_device_count() -> int:
    """Count the devices that the CUDA driver reports; 0 without a driver.

    Asked of the driver itself: a runtime built for CUDA lists its provider on any machine.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return 0
    return 0 if failed else count.value


def cuda_index(device: str) -> int | None:
    """Read the index of a CUDA device, or None for the CPU.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        There is no such device.

    Examples
    --------
    >>> cuda_index("cuda"), cuda_index("cuda:1"), cuda_index("cpu")
    (0, 1, None)
    """
    kind, colon, index = device.partition(":")
    if device == "cpu":
        return None
    if kind == "cuda" and (index.isdecimal() or not colon):
        return int(index or 0)
    raise UnavailableError(f"There is no device {device!r}. Give cpu, cuda or cuda:1.")


def check_available(backend: str, probe: Probe) -> None:
    """Check that a backend can run here.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        It cannot; the message has the probe's reason and remedy.
    """
    if not probe.available:
        raise UnavailableError(f"Backend {backend!r}: {probe.reason} {probe.remedy}".rstrip())


def check_offered(backend: str, probe: Probe, device: str, precision: Precision) -> None:
    """Check that the probe offers a device and a precision.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        The backend cannot run here, or not on this device or at this precision.
    """
    check_available(backend, probe)
    name = "cuda:0" if device == "cuda" else device
    if name not in probe.devices:
        driver = ", or repair the driver (nvidia-smi lists its GPUs)" if "cuda" in name else ""
        raise UnavailableError(
            f"Backend {backend!r} has no device {name} here; it has {', '.join(probe.devices)}. "
            f"Choose one of them{driver}."
        )
    if precision not in probe.precisions:
        raise UnavailableError(
            f"Backend {backend!r} does not run {precision} here; it runs "
            f"{', '.join(probe.precisions)}. Choose one of them."
        )


def as_its_user_says(precision: str) -> str:
    """Write a precision that only the user states.

    Examples
    --------
    >>> as_its_user_says("int8")
    'int8 (as its user says)'
    """
    return f"{precision} (as its user says)"


def wrong_precision(
    model: Path, built: str, requested: str, alternative: str
) -> WrongPrecisionError:
    """Return the error for a label that a graph does not bear; `alternative` is what to give."""
    return WrongPrecisionError(
        f"{model} is a graph built in {built}, but {requested} was asked for. Ask for --precision "
        f"{built}, or give {alternative}."
    )


def only_input(inputs: tuple[TensorInfo, ...], model: Path) -> TensorInfo:
    """Return the one input.

    Raises
    ------
    evalkit.core.errors.InputError
        There are several, or none.
    """
    check_one_input([info.name for info in inputs], model)
    return inputs[0]


def check_one_input(names: Sequence[str], model: Path) -> None:
    """Check that a model takes one image; see `only_input`."""
    if len(names) != 1:
        inputs = ", ".join(names) or "none is declared"
        raise InputError(
            f"{model} has {len(names)} inputs ({inputs}); one image is expected. Export the "
            "network with one input."
        )


def check_file(model: Path) -> None:
    """Check that a model file exists and is not empty.

    Raises
    ------
    evalkit.core.errors.InputError
        There is no such file, or it is empty.
    """
    if not model.is_file():
        raise InputError(f"There is no model file {model}. Check the path.")
    if not model.stat().st_size:
        raise InputError(f"The model file {model} is empty. Fetch or export it again.")


def trial_shapes(
    info: TensorInfo, image: tuple[int, int, int] | None = None
) -> list[tuple[int, ...]]:
    """List the smallest batches that the input may take, the likeliest first.

    Parameters
    ----------
    info : TensorInfo
        The input; its numbers stand.
    image : tuple of int or None
        Sizes without the batch, to take where the input leaves them open.

    Examples
    --------
    >>> trial_shapes(TensorInfo("x", "float32", ("n", 3, 112, 96)))
    [(1, 3, 112, 96)]
    >>> trial_shapes(TensorInfo("x", "float32", ("n", None, None, None)), (1, 128, 128))
    [(1, 1, 128, 128)]
    """
    rank = len(info.shape)
    side_first = rank == 4 and info.shape[3] == 3
    guesses = [image] if image is not None and rank == 4 else []
    if not guesses:
        guesses = [(s, s, 3) if side_first else (3, s, s) for s in TRIAL_SIDES]
    shapes = (
        tuple(
            fixed if isinstance(fixed, int) else guess
            for fixed, guess in zip(info.shape, (1, *sizes), strict=False)
        )
        for sizes in guesses
    )
    return list(dict.fromkeys(shapes))


def check_batch(batch: NDArray[Any], info: TensorInfo, model: Path) -> NDArray[Any]:
    """Cast the batch to the model's own element type, contiguous.

    Parameters
    ----------
    batch : ndarray of float32 or uint8
    info : TensorInfo
        The model's input.
    model : Path
        For the message.

    Raises
    ------
    evalkit.core.errors.InputError
        The shape does not fit, or the model's element type would cut the values.
    """
    if batch.dtype not in (np.float32, np.uint8):
        raise InputError(
            f"{model}: the batch is of {batch.dtype}. Give float32 or uint8 "
            "(batch.astype('float32'))."
        )
    fits = batch.ndim == len(info.shape) and all(
        not isinstance(fixed, int) or fixed == size
        for fixed, size in zip(info.shape, batch.shape, strict=True)
    )
    if not fits or not batch.size:
        sizes = ", ".join("any" if not isinstance(n, int) else str(n) for n in info.shape)
        raise InputError(
            f"{model}: input {info.name!r} takes shape ({sizes}), given {batch.shape}. Correct "
            "the image size, the layout or the batch size."
        )
    element_type = np.dtype(info.dtype)
    if batch.dtype == np.float32 and element_type.kind in "iu":
        raise InputError(
            f"{model}: input {info.name!r} takes {info.dtype}, given float32, whose fractions it "
            "would drop. Give uint8, without mean and standard deviation."
        )
    return np.ascontiguousarray(batch, dtype=element_type)


def float32_outputs(
    names: Iterable[str], values: Iterable[Any], model: Path
) -> dict[str, NDArray[np.float32]]:
    """Name the outputs, as float32.

    Raises
    ------
    evalkit.core.errors.InputError
        An output is no array of numbers.
    """
    outputs: dict[str, NDArray[np.float32]] = {}
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            raise InputError(
                f"{model}: output {name!r} is no tensor of numbers. Export the model without it."
            )
        outputs[name] = value.astype(np.float32, copy=False)
    return outputs


def first_line(error: BaseException) -> str:
    """Take the first non-empty line of a runtime's message, without a final full stop."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line.rstrip(".") for line in lines if line), type(error).__name__)


@contextmanager
def explained(
    action: str,
    remedy: str,
    failures: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    cause: Callable[[BaseException], str] = first_line,
) -> Iterator[None]:
    """Turn a library's exception into an error that says what failed, why, and what to do.

    Parameters
    ----------
    action : str
        What failed, as a sentence without its full stop: ``m.onnx: TVM cannot import it``.
    remedy : str
        What to do: whole sentences.
    failures : type or tuple of types
        The exceptions; evalkit's own pass unchanged.
    cause : callable
        Returns the line of the exception's message that names the cause.

    Raises
    ------
    evalkit.core.errors.InputError
    """
    try:
        yield
    except EvalkitError:
        raise
    except failures as error:
        raise InputError(f"{action}: {cause(error)}. {remedy}") from error
