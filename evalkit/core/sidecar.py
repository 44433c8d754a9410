"""The record that lies beside a converted model: what it came from, how, and how close it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalkit.core.errors import InputError

SUFFIX = ".evalkit.json"
SCHEMA_VERSION = 1
DIGEST_BYTES = 8
"""Of the BLAKE2b digests of images, as outputs stores hold them."""
_LONG_LISTS = ("images", "digests", "identities", "held_out")


def sidecar_path(model: Path) -> Path:
    """Path of a model's record: its own name and ``.evalkit.json``."""
    return model.with_name(model.name + SUFFIX)


def dumped(record: dict[str, Any]) -> bytes:
    """Return a record as it is written."""
    return json.dumps(record, indent=1, ensure_ascii=True).encode() + b"\n"


def conversion_of(model: Path, sha256: str) -> dict[str, Any] | None:
    """Read how a model was converted, for a result.

    Parameters
    ----------
    model : Path
    sha256 : str
        Of the model as it is now.

    Returns
    -------
    dict or None
        The record without its long lists: the calibration's data set, count and hash stay. None
        where the model has no record.

    Raises
    ------
    evalkit.core.errors.InputError
        The record cannot be read, or is of another model.
    """
    record = _read(model)
    if record is None:
        return None
    if record["built"]["sha256"] != sha256:
        raise InputError(
            f"{sidecar_path(model)} describes another model than {model.name} beside it, which has "
            "changed since. Convert again with --overwrite, or remove the record."
        )
    calibration = record["calibration"]
    if calibration is not None:
        record["calibration"] = {k: v for k, v in calibration.items() if k not in _LONG_LISTS}
    return {name: value for name, value in record.items() if name != "environment"}


def calibration_of(model: Path) -> dict[str, Any] | None:
    """Read what a model was calibrated with, its long lists too; None where it was not.

    Raises
    ------
    evalkit.core.errors.InputError
        The record cannot be read.
    """
    record = _read(model)
    return None if record is None else record["calibration"]


def _read(model: Path) -> dict[str, Any] | None:
    path = sidecar_path(model)
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["built"]["sha256"], str):
            raise TypeError("the hash of the model is not a string")
        if record["calibration"] is not None:
            _check_calibration(record["calibration"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a record of a conversion ({error!r}). Remove it, or convert the model "
            "again."
        ) from error
    return record


def _check_calibration(calibration: Any) -> None:
    """Refuse a record of a calibration that cannot be compared with a data set."""
    if not isinstance(calibration, dict):
        raise TypeError("'calibration' is not a mapping")
    for name, kind in {"data": str, "path": str, "data_sha256": str, "count": int}.items():
        if not isinstance(calibration[name], kind):
            raise TypeError(f"{name!r} is not a value of type {kind.__name__}")
    for name in ("identities", "digests"):
        values = calibration.get(name)
        if values is not None and not all(isinstance(value, str) for value in values):
            raise TypeError(f"{name!r} does not hold strings")
    if any(len(bytes.fromhex(digest)) != DIGEST_BYTES for digest in calibration.get("digests", [])):
        raise ValueError(f"a digest has not {DIGEST_BYTES} bytes")
