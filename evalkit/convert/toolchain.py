"""What the converters share: optional packages, quiet toolchains, checks of calibration."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.tensors import first_line
from evalkit.convert.base import Batches
from evalkit.core.errors import EvalkitError, InputError, UnavailableError, install_command


def optional(module: str, purpose: str) -> Any:
    """Import a module that the extra ``convert`` installs.

    Parameters
    ----------
    module : str
    purpose : str
        What needs it, for the message: ``fp16``.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise UnavailableError(
            f"{purpose} needs {package}, which cannot be imported ({error}). Install it: "
            f"{install_command('convert')}."
        ) from error


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of installed packages."""
    return {name: importlib.metadata.version(name) for name in packages}


@contextmanager
def quiet(
    action: str, remedy: str, cause: Callable[[BaseException], str] = first_line
) -> Iterator[None]:
    """Hide a toolchain's output, logs and warnings; turn its exceptions into errors.

    Parameters
    ----------
    action : str
        What the toolchain cannot do if it raises, for the message: ``m.onnx: NNCF cannot quantise
        it``.
    remedy : str
        What to do then: whole sentences.
    cause : callable
        Returns the part of the toolchain's message that names the cause.

    Raises
    ------
    evalkit.core.errors.InputError
        The toolchain failed.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (EvalkitError, OSError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{action}: {cause(error)}. {remedy}") from error
    finally:
        logging.disable(level)


def required(batches: Batches | None) -> Batches:
    """Return the calibration images, without which int8 cannot be built."""
    if batches is None:
        raise InputError("int8 needs calibration images. Give --calibration.")
    return batches


def check_range(activation: str, *limits: NDArray[Any]) -> None:
    """Check that the range of an activation is finite.

    Raises
    ------
    evalkit.core.errors.InputError
        It is not.
    """
    if not all(np.isfinite(limit).all() for limit in limits):
        raise InputError(
            f"The activation {activation!r} has no finite range over the calibration images: the "
            "model overflows or gives NaN. Check the model, --mean and --std."
        )
