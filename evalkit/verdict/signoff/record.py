"""The record of a sign-off: one typed file, from which every table and page is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, model_validator

from evalkit.backends.base import PRECISIONS
from evalkit.core import schema1
from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write
from evalkit.core.records import Record
from evalkit.core.results import (
    DatasetInfo,
    Failure,
    Interval,
    Metric,
    ModelInfo,
    RanInfo,
    Stage,
    Text,
)
from evalkit.verdict.compare import Comparison
from evalkit.verdict.plan import Plan

Overall = Literal["pass", "fail", "inconclusive"]
Outcome = Literal["reference", "pass", "fail", "inconclusive", "cannot_run", "not_run"]
"""``cannot_run``: the run failed; ``not_run``: it was left out by ``--only`` and never ran."""

RECORD_NAME = "signoff.json"


class NonInferiority(Record):
    """The test of a cell's primary figure; all rates are 0 to 1.

    Attributes
    ----------
    metric : str
    unit : {"subjects", "pairs", "images"}
        What the test takes as independent.
    units : int
        How many there are.
    method : str
        How the bounds were made.
    reference, candidate : float
        The figure of both, each at its own threshold.
    difference : float
        Candidate minus reference; reference minus candidate where a lower figure is better.
    low, high : float or None
        One-sided bounds of the difference, each at `level`; None where the data give none.
    level : float
    margin : float
        The loss accepted: the cell passes where ``low >= -margin`` and fails where
        ``high < -margin``.
    detectable : float or None
        The smallest margin that a mode without loss would pass with a chance of 80 %.
    p_value : float or None
        McNemar's exact one, where the figure is a share of decisions: reported, not judged on.
    outcome : {"pass", "fail", "inconclusive"}
    reason : str
        The outcome in a sentence.
    """

    metric: str
    unit: Literal["subjects", "pairs", "images"]
    units: int
    method: str
    reference: float
    candidate: float
    difference: float
    low: float | None
    high: float | None
    level: float
    margin: float
    detectable: float | None
    p_value: float | None = None
    outcome: Overall
    reason: Text


class Deployment(Record):
    """Error rates where the reference's threshold stays in use; reported, not tested.

    Attributes
    ----------
    metric : str
        Whose threshold it is.
    threshold : float or None
        A similarity; None where each fold has its own.
    fmr_reference, fmr, fnmr_reference, fnmr : float
        False match and false non-match rates of both at that threshold.
    fmr_ratio : float or None
        `fmr` by `fmr_reference`; None where that is 0.
    fnmr_change : float
        `fnmr` minus `fnmr_reference`.
    fmr_ratio_interval, fnmr_change_interval : Interval or None
        Two-sided.
    """

    metric: str
    threshold: float | None
    fmr_reference: float
    fmr: float
    fmr_ratio: float | None
    fmr_ratio_interval: Interval | None
    fnmr_reference: float
    fnmr: float
    fnmr_change: float
    fnmr_change_interval: Interval | None


class Limit(Record):
    """A limit beside the figure.

    Attributes
    ----------
    name : str
        ``drift cosine p1`` or ``failures to enrol``.
    value, limit : float or None
        None where it could not be measured.
    outcome : {"pass", "fail", "inconclusive", "flag"}
        ``flag``: catastrophic, but the plan sets no limit.
    """

    name: str
    value: float | None
    limit: float | None
    outcome: Literal["pass", "fail", "inconclusive", "flag"]
    message: Text


class Run(Record):
    """The run of a cell, from its result file.

    Attributes
    ----------
    result : str
        The result file, relative to the record; its scores lie beside it.
    model_bytes : int or None
        Size of the model's files.
    seconds : float
        Wall time of the run that made the result.
    """

    result: Text
    model: ModelInfo
    model_bytes: int | None
    ran: RanInfo
    metrics: tuple[Metric, ...]
    failures_to_enrol: tuple[Failure, ...]
    stages: tuple[Stage, ...]
    throughput: float | None
    seconds: float
    peak_memory_mb: float
    warnings: tuple[str, ...]

    @property
    def from_store(self) -> bool:
        """Whether no image was run anew: the speed is an earlier run's, the memory no model's."""
        inferred = [stage for stage in self.stages if stage.name == "inference"]
        return any(0 < stage.items <= stage.reused_items for stage in inferred)


class Cell(Record):
    """One protocol under one backend and precision.

    Attributes
    ----------
    protocol : str
        Name of the protocol in the plan.
    reason : str
        The outcome in a sentence.
    run : Run or None
        None where there is no result.
    test, deployment, comparison
        Against the reference; None for the reference itself, and where there is no result.
        `deployment` is None too where the figure has no threshold, as an average precision.
    limits : tuple of Limit
    reused : bool
        Whether the result stood from an earlier run, unchanged.
    """

    protocol: str
    backend: str
    precision: str
    optional: bool
    outcome: Outcome
    reason: Text
    reused: bool = False
    run: Run | None = None
    test: NonInferiority | None = None
    deployment: Deployment | None = None
    limits: tuple[Limit, ...] = ()
    comparison: Comparison | None = None

    @property
    def mode(self) -> str:
        """``backend:precision``."""
        return f"{self.backend}:{self.precision}"


class ProtocolRecord(Record):
    """A protocol of the plan, and its data set.

    Attributes
    ----------
    kind : str
        Registered name of the task.
    dataset : DatasetInfo or None
        Of the reference; None where that did not run.
    margin : str
        As the plan says it.
    """

    name: str
    kind: str
    primary: str
    margin: str
    dataset: DatasetInfo | None


class PlanUse(Record):
    """A plan under which this folder's cells were judged.

    Attributes
    ----------
    sha256 : str
    started : str
        When a sign-off by this plan first started.
    changes : tuple of str
        What differs from the plan before it.
    """

    sha256: str
    started: str
    changes: tuple[Text, ...]


class Signoff(Record):
    """The record of a sign-off.

    Attributes
    ----------
    outcome : {"pass", "fail", "inconclusive"}
        ``pass`` only where every cell that is not optional passes; ``fail`` where any cell fails.
    exit_code : int
        0, 1 or 3.
    reason : str
        The outcome in a sentence.
    plans : tuple of PlanUse
        The plan, and those before it in this folder: margins changed after a run show here.
    cells : tuple of Cell
        By protocol, then by row of the matrix.
    bench : dict or None
        The speed measurements by model, where the plan asks for them: of
        `evalkit.bench.BenchResult`.
    """

    schema_version: Literal[2] = 2
    evalkit_version: str
    name: Text
    outcome: Overall
    exit_code: int
    reason: Text
    started: str
    finished: str
    command: Text
    plan: Plan
    plans: tuple[PlanUse, ...]
    protocols: tuple[ProtocolRecord, ...]
    cells: tuple[Cell, ...]
    bench: dict[str, Any] | None = None
    warnings: tuple[Text, ...] = ()
    environment: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _of_schema_1(cls, values: Any) -> Any:
        return schema1.signoff(values)

    @property
    def modes(self) -> tuple[str, ...]:
        """Rows of the matrix, as ``backend:precision``: the backends as they come, fp32 first."""
        backends = list(dict.fromkeys(cell.backend for cell in self.cells))
        modes = dict.fromkeys((cell.backend, cell.precision, cell.mode) for cell in self.cells)
        ordered = sorted(modes, key=lambda key: (backends.index(key[0]), PRECISIONS.index(key[1])))
        return tuple(mode for _, _, mode in ordered)

    def cell(self, protocol: str, mode: str) -> Cell:
        """Return one cell.

        Raises
        ------
        KeyError
            There is none: the plan excludes that row from the protocol.
        """
        for cell in self.cells:
            if (cell.protocol, cell.mode) == (protocol, mode):
                return cell
        raise KeyError((protocol, mode))

    def save(self, folder: Path) -> Path:
        """Write ``signoff.json`` atomically and return its path."""
        path = folder / RECORD_NAME
        with atomic_write(path) as file:
            file.write(self.model_dump_json(indent=2).encode() + b"\n")
        return path


def load_signoff(path: Path) -> Signoff:
    """Read a record.

    Raises
    ------
    evalkit.core.errors.InputError
        The file is missing, or is no record of this version.
    """
    try:
        return Signoff.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"Cannot read the sign-off {path}: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} is not a record of evalkit signoff: {where}: {first['msg']}."
        ) from error
