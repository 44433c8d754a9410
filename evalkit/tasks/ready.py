"""Ready-made input: features, templates and scores that the user's own inference computed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray

from evalkit.core.errors import InputError

Floats = NDArray[np.floating[Any]]


def read_array(path: Path, rows: int | None = None, ndim: int = 2, what: str = "rows") -> Floats:
    """Read a ``.npy`` file of floats, never unpickling anything.

    Parameters
    ----------
    path : Path
    rows : int, optional
        How many rows it must have; `what` says of what.
    ndim : int
        How many dimensions it must have.

    Returns
    -------
    ndarray of float16, float32 or float64
        Mapped from the file, not read at once.

    Raises
    ------
    evalkit.core.errors.InputError
        It is missing, of another kind or of another length.
    """
    try:
        value = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} {_why_no_array(path, error)}") from error
    if not isinstance(value, np.ndarray):
        raise InputError(f"{path} is an .npz archive; give one array as .npy.")
    return checked(value, str(path), rows, ndim, what)


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Read arrays of an ``.npz`` archive by name, never unpickling anything.

    Raises
    ------
    evalkit.core.errors.InputError
        The file or an array is missing or damaged, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in names}
    except KeyError as error:
        raise InputError(
            f"{path} lacks an array: it needs {' and '.join(names)}, as numpy.savez writes them."
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        why = "it holds Python objects" if "allow_pickle" in str(error) else str(error).rstrip(".")
        raise InputError(
            f"{path} is not an .npz archive of plain arrays: {why}. Write it with numpy.savez."
        ) from error


def _why_no_array(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(len(MAGIC_PREFIX))
    if start != MAGIC_PREFIX:
        return "is not a .npy file. Write it with numpy.save."
    if "Python objects" in str(error):
        return (
            "holds Python objects, which are never unpickled. Save one array of floats: "
            "numpy.save(file, numpy.stack(rows))."
        )
    return f"is a damaged .npy file: {str(error).rstrip('.')}. Write it again."


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read: {error.strerror or error}. Check the path.")


def checked(value: NDArray[Any], name: str, rows: int | None, ndim: int, what: str) -> Floats:
    """Return an array that has the kind, dimensions and rows of `read_array`; see there."""
    if value.ndim != ndim or not np.issubdtype(value.dtype, np.floating):
        raise InputError(
            f"{name} holds {value.dtype} of shape {value.shape}; floats in {ndim} "
            f"dimension{'s' if ndim > 1 else ''} are expected."
        )
    if rows is not None and len(value) != rows:
        raise InputError(f"{name} has {len(value):,} rows, but there are {rows:,} {what}.")
    return value
