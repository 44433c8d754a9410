"""The result of one run: one typed record, one JSON file, the scores beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from evalkit.core import schema1
from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write
from evalkit.core.records import Record

SCHEMA_VERSION = 2

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


Count = Annotated[int, Field(ge=0, lt=2**63)]
"""How many there are of something."""


class Interval(Record):
    """A confidence interval: its bounds, its level (0.95), how and over what it was made."""

    low: float
    high: float
    level: float
    method: str


Kind = Literal["rate", "area", "norm"]
"""A share of trials, an area under a curve (both 0 to 1), a length of embeddings."""

OUTCOMES = frozenset(
    {
        *("true_accepts", "false_accepts", "true_positives", "false_positives"),
        *("hits", "correct", "recalled", "proposals"),
    }
)
"""Counts that the model decides; data and rules give every other count."""

TOO_FEW = {
    "too_few_false_accepts": "false accepts are expected",
    "too_few_faces": "faces are counted",
}
"""Flags of figures that rest on fewer than 30 events, and what there is too little of."""


def too_few(flags: Iterable[str]) -> str:
    """Return what there is too little of by a figure's flags; empty where there is enough."""
    return next((TOO_FEW[flag] for flag in flags if flag in TOO_FEW), "")


class Metric(Record):
    """One figure, which says itself what it is: nobody reads its name.

    Attributes
    ----------
    name : str
        Unique in the result: ``tar@far=1e-04``.
    figure : str
        What is measured: ``tar``, ``val``, ``accuracy``, ``auc``, ``eer``, ``ap``, ``recall``,
        ``tpir``, ``rank``, ``xnorm``.
    value : float or None
        None where the data cannot give it; a flag says why.
    rule : str
        The convention, by name.
    kind : {"rate", "area", "norm"}
    direction : {"higher", "lower"} or None
        Which values are better; None where neither is.
    unit : str
        Of `value`; empty for a share of 1.
    interval : Interval or None
        Its uncertainty, where it was computed.
    counts : dict of str to int
        The raw counts behind a rate: ``genuine``, ``impostors``, ``true_accepts``,
        ``false_accepts``, ``pairs``, ``correct``, ``faces``, ...
    share : (str, str) or None
        Names of two counts: the successes, and the trials that they are of.
    at : dict of str to (float or None)
        Where it was measured: ``target``, ``achieved``, the threshold as ``similarity``.
    series : dict of str to tuple of float
        Values behind a mean, such as each fold's accuracy and threshold.
    subset : str
        A part of the data with a figure of its own in the protocol: ``hard``, gallery ``G1``.
    part : dict of str to str
        A part that is shown for insight: ``{"event": "22--Picnic"}``; empty for all data.
    view : str
        ``flip`` or ``no flip`` where the figure has both.
    headline : bool
        Whether it is the figure to look at first; at most one of a result is.
    flags : tuple of str
        What a reader must know, such as ``too_few_false_accepts``.
    """

    name: str
    figure: str
    value: float | None
    rule: str
    kind: Kind = "rate"
    direction: Literal["higher", "lower"] | None = "higher"
    unit: str = ""
    interval: Interval | None = None
    counts: dict[str, Count] = Field(default_factory=dict)
    share: tuple[str, str] | None = None
    at: dict[str, float | None] = Field(default_factory=dict)
    series: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    subset: str = ""
    part: dict[str, str] = Field(default_factory=dict)
    view: str = ""
    headline: bool = False
    flags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _counts_of_share(self) -> Self:
        absent = [name for name in self.share or () if name not in self.counts]
        if absent:
            raise ValueError(f"share names counts that are not there: {', '.join(absent)}")
        return self

    @property
    def too_few(self) -> str:
        """What the figure rests on too little of; empty where it has enough."""
        return too_few(self.flags)

    @property
    def error_rate(self) -> float | None:
        """The rate of errors: 1 - rate, or the rate where lower is better; None if it is no rate.

        Examples
        --------
        >>> Metric(name="eer", figure="eer", value=0.02, rule="", direction="lower").error_rate
        0.02
        >>> Metric(name="auc", figure="auc", value=0.75, rule="", kind="area").error_rate
        0.25
        """
        value = self.value
        if self.direction is None or value is None or not 0 <= value <= 1:
            return None
        if self.direction == "lower":
            return value
        if self.share is not None:
            right, all_ = (self.counts[name] for name in self.share)
            # Counts give the rate of errors without rounding.
            if all_ and right / all_ == value:
                return (all_ - right) / all_
        return 1 - value


class DatasetInfo(Record):
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
    counts: dict[str, Count]
    path: Text


class ModelInfo(Record):
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


class RanInfo(Record):
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


class Stage(Record):
    """Time of a stage: busy seconds (of one worker where it had several), items, wall share."""

    name: str
    seconds: float
    items: int
    reused_items: int = 0


class Failure(Record):
    """A sample that gave no usable output."""

    name: Text
    reason: Text


class Result(Record):
    """Everything that one run measured, and everything that can move its figures.

    Attributes
    ----------
    task : str
        Registered name of the benchmark.
    scores_file : str or None
        Name of the file of scores beside this one.
    store : str or None
        Folder of the outputs store, where evalkit ran the inference.
    """

    schema_version: Literal[2] = 2
    evalkit_version: str
    task: str
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

    @model_validator(mode="before")
    @classmethod
    def _of_schema_1(cls, values: Any) -> Any:
        return schema1.result(values)

    @property
    def protocol(self) -> str:
        """The task's name as results of schema 1 had it: ``IJBC``."""
        return self.task.upper()

    @property
    def headline(self) -> Metric | None:
        """The figure to look at first."""
        marked = (metric for metric in self.metrics if metric.headline)
        return next(marked, self.metrics[0] if self.metrics else None)

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
        The file is missing, or is no result of schema 1 or 2.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot read the result {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"Cannot read the result {path}: {error}.") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}). Give a file of --output.") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    # True equals 1, and a list has no hash.
    if type(version) is not int or version not in {1, SCHEMA_VERSION}:
        raise InputError(
            f"{path} has schema version {version!r}; this evalkit reads 1 and {SCHEMA_VERSION}. "
            "Make the result again with this version."
        )
    try:
        return Result.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is not a result of evalkit: {where}: {first['msg']}.") from error
