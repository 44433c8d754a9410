"""The plan of a sign-off: what is run, what is judged, and the margins, fixed before the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from evalkit.backends.base import PRECISIONS, Precision
from evalkit.core.errors import InputError
from evalkit.core.files import sha256_json
from evalkit.core.option import not_for_plans
from evalkit.core.records import Record
from evalkit.core.results import Text
from evalkit.core.settings import RunSettings
from evalkit.core.validation import find_yaml, read_yaml, validate
from evalkit.tasks import TASKS, settings_of
from evalkit.tasks.base import Head, Task


class Mode(NamedTuple):
    """A backend at a precision: a row of the matrix."""

    backend: str
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}"


class Margin(Record):
    """The loss that is accepted, by one of two measures.

    Attributes
    ----------
    points : float or None
        Percentage points of the figure: 0.1 lets a TAR fall from 96.70 % to 96.60 %.
    relative : float or None
        Share of the reference's error rate: 0.05 lets the errors grow by a twentieth.
    """

    points: float | None = Field(default=None, gt=0, lt=100)
    relative: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> Margin:
        if (self.points is None) == (self.relative is None):
            raise ValueError("give either 'points' or 'relative'")
        return self

    def of(self, reference: float) -> float:
        """Return the margin on a figure (0 to 1) of the reference.

        Examples
        --------
        >>> Margin(points=0.5).of(0.96)
        0.005
        >>> round(Margin(relative=0.05).of(0.96), 6)
        0.002
        """
        if self.points is not None:
            return self.points / 100
        return (self.relative or 0.0) * (1 - reference)

    def __str__(self) -> str:
        if self.points is not None:
            return f"{self.points:g} points"
        return f"{100 * (self.relative or 0):g} % of the errors"


class Limits(Record):
    """Limits beside the figure; breaking one fails the cell.

    Attributes
    ----------
    drift_cosine_p1 : float or None
        Least first percentile of the cosines between a cell's embeddings and the reference's.
        Without it, a low cosine is shown but fails nothing.
    failures_to_enrol : int or None
        How many more images than in the reference may give no usable output.
    """

    drift_cosine_p1: float | None = Field(default=None, ge=-1, le=1)
    failures_to_enrol: int | None = Field(default=None, ge=0)


class ProtocolPlan(Record):
    """One protocol on one data set: a column of the matrix.

    Attributes
    ----------
    name : str
        For tables and folders (default: the kind).
    kind : str
        Registered name of a task.
    data : Path or None
        Relative to the plan (default: the embedded sample).
    model : str or None
        Another model than the plan's.
    settings : dict
        As in the protocol's ``--config``: ``far``, ``flip``, ``rule``, ``batch_size``, ...
    primary : str
        The one figure that is tested: ``tar@far=1e-04``, ``ap/hard``.
    margin : Margin
    limits : Limits
    exclude : tuple of str
        Rows that this protocol leaves out, by ``backend:precision`` or ``backend``: those that its
        model has no file for.
    """

    name: str = ""
    kind: str
    data: Path | None = None
    model: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    primary: str
    margin: Margin
    limits: Limits = Limits()
    exclude: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("name"):
            return {**values, "name": values.get("kind", "")}
        return values

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError("use letters, digits, - and _: it names a folder")
        return name

    @model_validator(mode="after")
    def _fits(self) -> ProtocolPlan:
        try:
            foreign = sorted(not_for_plans(settings_of(self.kind)) & self.settings.keys())
            if foreign:
                raise ValueError(
                    f"settings: {', '.join(foreign)} cannot be set for a protocol here"
                )
            primaries = self.task.primaries(self.run_settings)
        except InputError as error:
            raise ValueError(str(error).rstrip(".")) from error
        if self.primary not in primaries:
            raise ValueError(
                f"there is no test of {self.primary!r}, or the settings do not ask for it; with "
                f"these it is one of {', '.join(primaries)}"
            )
        return self

    @property
    def task(self) -> Task[Any]:
        """The task that it runs."""
        return TASKS.get(self.kind)()

    @property
    def run_settings(self) -> RunSettings:
        """The settings, with the defaults of those that it does not name."""
        return validate(settings_of(self.kind), self.settings, "settings")


class Models(Record):
    """Model files or model YAML, relative to the plan, or names of ready ones."""

    recognition: str | None = None
    detector: str | None = None


_MODELS: Mapping[Head, str] = {"embedding": "recognition", "detection": "detector"}
"""Which of the plan's models a task runs, by its head."""


class DeviceOutputs(Record):
    """What a device wrote for one protocol; paths are relative to the plan.

    Attributes
    ----------
    outputs, manifest, runtime_info, throughput_log, verify
        As on the command line, with ``--backend outputs``.
    """

    outputs: Path
    manifest: Path
    runtime_info: Path | None = None
    throughput_log: Path | None = None
    verify: Annotated[int, Field(ge=0)] | Literal["all"] | None = None


class Override(Record):
    """Settings of one cell that differ from the plan's.

    Attributes
    ----------
    file : str or None
        Another model file, relative to the plan.
    device, threads, batch_size
        As on the command line.
    python : str or None
        Interpreter of a worker that has the backend's runtime: a command, or relative to the plan.
    optional : bool
        Whether a sign-off can pass where this cell cannot run.
    devices : dict of str to DeviceOutputs
        For the backend ``outputs``, by the protocol's name.
    """

    file: str | None = None
    device: str | None = None
    threads: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    python: str | None = None
    optional: bool = False
    devices: dict[str, DeviceOutputs] = Field(default_factory=dict)


class Matrix(Record):
    """Backends by precisions, less ``exclude``, and ``include``; each as ``backend:precision``.

    Attributes
    ----------
    cells : dict of str to Override
        By ``backend:precision``, else by ``backend``.
    """

    backends: tuple[str, ...] = Field(min_length=1)
    precisions: tuple[Precision, ...] = ("fp32",)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    cells: dict[str, Override] = Field(default_factory=dict)

    @field_validator("include", "exclude")
    @classmethod
    def _modes_of_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            mode_of(name)
        return names

    def modes(self) -> tuple[Mode, ...]:
        """Return the rows, each once, in the order of backends and precisions."""
        product = (Mode(b, p) for b in self.backends for p in self.precisions)
        rows = [mode for mode in product if str(mode) not in self.exclude]
        return tuple(dict.fromkeys([*rows, *(mode_of(name) for name in self.include)]))

    def override(self, mode: Mode) -> Override:
        """Return the settings of a row that differ."""
        return self.cells.get(str(mode)) or self.cells.get(mode.backend) or Override()

    @model_validator(mode="after")
    def _cells_exist(self) -> Matrix:
        modes = self.modes()
        known = {*map(str, modes), *(mode.backend for mode in modes)}
        unknown = sorted(self.cells.keys() - known)
        if unknown:
            raise ValueError(f"cells: {', '.join(unknown)} is in no row of the matrix")
        return self


class Statistics(Record):
    """How the tests are made.

    Attributes
    ----------
    level : float
        Of the one-sided bounds.
    replicates, seed : int
        Of the bootstraps.
    """

    level: float = Field(default=0.95, gt=0.5, lt=1)
    replicates: int = Field(default=2000, ge=100)
    seed: int = 0


class Bench(Record):
    """The speed measurement: every cell that ran, by turns.

    Attributes
    ----------
    batch_sizes : tuple of int
    repeats : int
        Rounds through all cells and batch sizes.
    seconds : float
        Least time of each in a round.
    """

    batch_sizes: tuple[int, ...] = Field(default=(1, 32), min_length=1)
    repeats: int = Field(default=5, ge=1)
    seconds: float = Field(default=1.0, gt=0)


class Plan(Record):
    """A sign-off, as its YAML file says it.

    Attributes
    ----------
    reference : str
        The backend whose fp32 run all others are compared with.
    bench : Bench or None
        ``bench: {}`` measures speed by its defaults; None measures none.
    folder : Path
        Of the YAML file: paths are relative to it.
    """

    name: Text = Field(min_length=1)
    models: Models = Models()
    protocols: tuple[ProtocolPlan, ...] = Field(min_length=1)
    matrix: Matrix
    reference: str
    statistics: Statistics = Statistics()
    bench: Bench | None = None
    folder: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _whole(self) -> Plan:
        if self.reference_mode not in self.matrix.modes():
            raise ValueError(
                f"reference: {self.reference_mode} is not in the matrix; the reference is the "
                "fp32 run of a backend in it"
            )
        rows = self.matrix.modes()
        known = {*map(str, rows), *(mode.backend for mode in rows)}
        for protocol in self.protocols:
            unknown = sorted(set(protocol.exclude) - known)
            if unknown or self.reference_mode not in self.modes_of(protocol):
                odd = ", ".join(unknown) or str(self.reference_mode)
                raise ValueError(
                    f"protocols: {protocol.name} cannot exclude {odd}: it is not in the matrix, "
                    "or it is the reference"
                )
            if protocol.data is not None and self.model_of(protocol) is None:
                key = _MODELS[protocol.task.head]
                raise ValueError(f"protocols: {protocol.name} has data; name models.{key} too")
        if len({protocol.name for protocol in self.protocols}) < len(self.protocols):
            raise ValueError("protocols: give each a name of its own")
        return self

    @property
    def reference_mode(self) -> Mode:
        """The row that all others are compared with."""
        return Mode(self.reference.removesuffix(":fp32"), "fp32")

    @property
    def sha256(self) -> str:
        """Hash of everything that the plan says."""
        return sha256_json(self.model_dump(mode="json"))

    def modes_of(self, protocol: ProtocolPlan) -> tuple[Mode, ...]:
        """Return a protocol's rows, the reference first."""
        rows = [
            mode
            for mode in self.matrix.modes()
            if not {mode.backend, str(mode)} & set(protocol.exclude)
        ]
        return tuple(sorted(rows, key=lambda mode: mode != self.reference_mode))

    def model_of(self, protocol: ProtocolPlan) -> str | None:
        """Return the model of a protocol: a path or a ready name, as the plan says it."""
        shared: str | None = getattr(self.models, _MODELS[protocol.task.head])
        return protocol.model or shared


def mode_of(name: str) -> Mode:
    """Read ``backend:precision``.

    Examples
    --------
    >>> mode_of("torch:bf16")
    Mode(backend='torch', precision='bf16')
    """
    backend, _, arithmetic = name.partition(":")
    for precision in PRECISIONS:
        if backend and arithmetic == precision:
            return Mode(backend, precision)
    raise ValueError(f"write backend:precision, such as torch:bf16, not {name!r}")


def find_plan(named_or_file: str) -> tuple[Plan, str]:
    """Read a plan, and say how it is called: a YAML file, or one of ``configs/signoff`` by name.

    Raises
    ------
    evalkit.core.errors.InputError
        There is none, or it is wrong.
    """
    path = find_yaml(named_or_file, "signoff", "plan")
    return load_plan(path), path.stem


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises
    ------
    evalkit.core.errors.InputError
        There is none, or it is wrong.
    """
    return validate(Plan, {**read_yaml(path), "folder": path.parent}, str(path))
