"""Ready-made input: features, templates and scores that the user's own inference computed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray

from evalkit.core.errors import InputError
from evalkit.datasets.tables import Field, read_table
from evalkit.protocols.fusion import FusionSwitches, Templates, fuse_templates
from evalkit.run.frame import scorable
from evalkit.tasks.ijb.settings import IjbSettings

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
    return _checked(value, str(path), rows, ndim, what)


def read_features(config: IjbSettings, faces: int) -> tuple[Floats, Floats | None]:
    """Read ``--features`` and ``--features-flip``: one row a face, in the order of the images.

    Raises
    ------
    evalkit.core.errors.InputError
        A file does not fit, or flips are asked for and not given.
    """
    if config.features is None:
        raise InputError("--features names no file.")
    features = read_array(config.features, faces, what="faces in the meta files")
    if flip_of(config) == "none":
        return features, None
    if config.features_flip is None:
        raise InputError(
            f"--flip {config.flip} needs the mirrored images' features: give --features-flip, or "
            "--flip none if these features are final."
        )
    mirrored = read_array(config.features_flip, faces, what="faces in the meta files")
    if mirrored.shape != features.shape:
        raise InputError(
            f"{config.features} has shape {features.shape}, but {config.features_flip} "
            f"{mirrored.shape}. They must be of one model."
        )
    return features, mirrored


def flip_of(config: IjbSettings) -> Literal["none", "sum", "concat"]:
    """Return the flip switch; features without their mirrors are taken as they are."""
    as_they_are = config.features is not None and config.features_flip is None
    return "none" if as_they_are and "flip" not in config.model_fields_set else config.flip


def read_templates(path: Path) -> Templates:
    """Read ``--templates``: an ``.npz`` with ``template_id`` and ``features``, a row a template.

    Features are made unit length; rows that are zero or not finite failed to enrol.

    Raises
    ------
    evalkit.core.errors.InputError
        An array is missing or does not fit, or a template occurs twice.
    """
    arrays = _read_npz(path, ("template_id", "features"))
    ids = arrays["template_id"]
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"template_id in {path} must be a vector of integers.")
    features = _checked(arrays["features"], f"features in {path}", len(ids), 2, "template ids")
    if len(np.unique(ids)) != len(ids):
        raise InputError(f"A template id occurs twice in {path}. Give one row a template.")
    if not features.size:
        raise InputError(f"{path} holds no templates: features have shape {features.shape}.")
    switches = FusionSwitches(keep_norm=True, detector_score=False, flip="none")
    return scorable(lambda: fuse_templates(features, ids, np.zeros_like(ids), switches=switches))


def read_scores(path: Path, pairs: int) -> Floats:
    """Read ``--scores``: ``scores`` of an ``.npz``, a ``.npy``, or a text file of one a line.

    Raises
    ------
    evalkit.core.errors.InputError, evalkit.datasets.errors.DatasetError
        The file is malformed, or there is not one score for each pair.
    """
    what = "pairs in the pair file"
    if path.suffix == ".npz":
        scores = _read_npz(path, ("scores",))["scores"]
        return _checked(scores, f"scores in {path}", pairs, 1, what)
    if path.suffix == ".npy":
        return np.array(read_array(path, pairs, 1, what))
    scores = read_table(path, [Field("scores", "float")]).columns["scores"]
    return _checked(scores, str(path), pairs, 1, what)


def _read_npz(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
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


def _checked(value: NDArray[Any], name: str, rows: int | None, ndim: int, what: str) -> Floats:
    if value.ndim != ndim or not np.issubdtype(value.dtype, np.floating):
        raise InputError(
            f"{name} holds {value.dtype} of shape {value.shape}; floats in {ndim} "
            f"dimension{'s' if ndim > 1 else ''} are expected."
        )
    if rows is not None and len(value) != rows:
        raise InputError(f"{name} has {len(value):,} rows, but there are {rows:,} {what}.")
    return value
