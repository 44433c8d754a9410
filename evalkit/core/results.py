"""The result of one run: one typed record, one JSON file, the scores beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write

SCHEMA_VERSION = 1

READY_MADE = "ready-made"
"""In the place of a backend where the input was computed elsewhere, and no model ran."""


def readable(text: Any) -> Any:
    r"""Return text with what is not Unicode escaped, anything else as it is.

    Names of files may hold bytes that did not decode; no JSON file and no terminal takes those.

    Examples
    --------
    >>> print(readable("\udcff.jpg"))
    \udcff.jpg
    """
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(readable)]
"""A string that can be written everywhere."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Interval(_Record):
    """A confidence interval: its bounds, its level (0.95), how and over what it was made."""

    low: float
    high: float
    level: float
    method: str


class Metric(_Record):
    """One figure.

    Attributes
    ----------
    name : str
        Unique in the result: ``tar@far=1e-04``.
    value : float or None
        None where the data cannot give it; a flag says why.
    rule : str
        The convention, by name.
    interval : Interval or None
        Its uncertainty, where it was computed.
    counts : dict of str to int
        The raw counts behind a rate.
    at : dict of str to (float or None)
        Where it was measured: target, threshold, achieved FAR.
    series : dict of str to tuple of float
        Values behind a mean, such as each fold's accuracy and threshold.
    flags : tuple of str
        What a reader must know, such as ``too_few_false_accepts``.
    """

    name: str
    value: float | None
    rule: str
    interval: Interval | None = None
    counts: dict[str, int] = {}
    at: dict[str, float | None] = {}
    series: dict[str, tuple[float | None, ...]] = {}
    flags: tuple[str, ...] = ()


class DatasetInfo(_Record):
    """What was evaluated.

    Attributes
    ----------
    name : str
        Names a public benchmark only where the counts are that benchmark's.
    sha256 : str
        Of the annotations and of the names and sizes of the images.
    content_sha256 : str or None
        Of the images' bytes, in order; None where no image was read.
    annotations_sha256 : str or None
        Of the annotations and the images' names alone, where `sha256` needs the images.
    counts : dict of str to int
        Faces, templates, pairs, ...
    path : str
        Where it was read.
    """

    name: Text
    sha256: str
    content_sha256: str | None
    annotations_sha256: str | None = None
    counts: dict[str, int]
    path: Text


class ModelInfo(_Record):
    """The model file and how images are prepared for it.

    Attributes
    ----------
    conversion : dict or None
        For a model of ``evalkit convert``: what the record beside it says of source, toolchain,
        calibration and excluded layers.
    """

    name: Text
    file: Text | None
    sha256: str | None
    preprocessing: dict[str, Any]
    conversion: dict[str, Any] | None = None


class RanInfo(_Record):
    """What really ran: see `evalkit.backends.base.Ran`."""

    backend: str
    version: str
    device: str
    precision_requested: str
    precision_ran: str
    threads: int | None
    batch_size: int | None
    details: dict[str, Any]
    notes: tuple[str, ...]


class Stage(_Record):
    """Time of a stage: busy seconds (of one worker where it had several), items, wall share."""

    name: str
    seconds: float
    items: int
    reused_items: int = 0


class Failure(_Record):
    """A sample that gave no usable output."""

    name: Text
    reason: Text


class Result(_Record):
    """Everything that one run found, and everything that can move its figures.

    Attributes
    ----------
    scores_file : str or None
        Name of the file of scores beside this one.
    store : str or None
        Folder of the outputs store, where evalkit ran the inference.
    """

    schema_version: Literal[1] = 1
    evalkit_version: str
    protocol: str
    status: Literal["complete", "partial"]
    started: str
    command: Text
    dataset: DatasetInfo
    model: ModelInfo
    ran: RanInfo
    settings: dict[str, Any]
    metrics: tuple[Metric, ...]
    failures_to_enrol: tuple[Failure, ...]
    stages: tuple[Stage, ...]
    wall_seconds: float
    throughput: float | None
    peak_memory_mb: float
    scores_file: str | None
    store: Text | None = None
    warnings: tuple[str, ...]
    environment: dict[str, Any]

    def metric(self, name: str) -> Metric:
        """Return the metric of a name.

        Raises
        ------
        KeyError
            There is none.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)

    def save(self, path: Path, scores: Mapping[str, NDArray[Any]] | None = None) -> Result:
        """Write the JSON file atomically, and the scores beside it as ``NAME.scores.npz``.

        Returns
        -------
        Result
            As written, with `scores_file` set.
        """
        result = self
        if scores is not None:
            beside = path.with_name(f"{path.stem}.scores.npz")
            with atomic_write(beside) as file:
                arrays: dict[str, Any] = dict(scores)
                np.savez(file, **arrays)
            result = self.model_copy(update={"scores_file": beside.name})
        with atomic_write(path) as file:
            file.write(result.model_dump_json(indent=2).encode() + b"\n")
        return result


def load_result(path: Path) -> Result:
    """Read a result file.

    Raises
    ------
    evalkit.core.errors.InputError
        The file is missing, or is not a result of this schema version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot read the result {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"Cannot read the result {path}: {error}.") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). Give a file of --output.") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version!r}; this evalkit reads {SCHEMA_VERSION}. "
            "Make the result again with this version."
        )
    try:
        return Result.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is not a result of evalkit: {where}: {first['msg']}.") from error
