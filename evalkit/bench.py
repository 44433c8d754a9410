"""Throughput, latency, memory and size of a model by backend, precision, batch size and threads.

Only `Session.run` is timed, as an evaluation calls it, on batches that are ready in memory. The
configurations take turns, repetition by repetition, so that other work on the machine slows all of
them alike. The spread over the repetitions shows how reliable the figures are.
"""

from __future__ import annotations

import datetime
import gc
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import NDArray

import evalkit
from evalkit.backends.base import Precision, Session
from evalkit.core import machine as environment
from evalkit.core.errors import EvalkitError
from evalkit.core.files import atomic_write
from evalkit.core.progress import Advance, Progress
from evalkit.core.records import Record
from evalkit.core.results import ModelInfo, RanInfo, Text
from evalkit.core.settings import ModelConfig, RunSettings
from evalkit.core.validation import validate
from evalkit.run.models import choose_backend, image_shape, open_model, weights_beside
from evalkit.run.pipeline import Normaliser

_WARM_UP_RUNS = 2
_WARM_UP_S = 0.2
_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setup:
    """One configuration to time.

    Attributes
    ----------
    backend : str
        Registered name.
    precision : str
    batch_size : int
        Images a run.
    threads : int or None
        CPU threads of the runtime; None takes the cores that this process may use.
    device : str
    python : Path or None
        Interpreter whose worker runs the backend; None for this process, or what the model names.
    worker_timeout : float or None
        Seconds that a worker may take to open the model, and for each batch; None for what the
        model names, else 600.
    """

    backend: str
    precision: Precision = "fp32"
    batch_size: int = 1
    threads: int | None = None
    device: str = "cpu"
    python: Path | None = None
    worker_timeout: float | None = None


class Spread(Record):
    """Median over the repetitions, the lowest and the highest of them."""

    median: float
    low: float
    high: float


class Latency(Record):
    """Quantiles of the time of one run, in milliseconds, over all runs of all repetitions."""

    p50: float
    p90: float
    p99: float


class Timing(Record):
    """The figures of one configuration, or why it could not run.

    Attributes
    ----------
    backend, precision, batch_size, threads, device
        The settings; `ran` says what really ran.
    problem : str or None
        Why it could not run; every figure is None then.
    ran : RanInfo or None
        What really ran.
    model : ModelInfo or None
        The file and its hash.
    images_per_second : Spread or None
    latency_ms : Latency or None
    runs : int
        Timed runs of all repetitions. With fewer than 100, the p99 is close to their maximum.
    open_seconds : float or None
        To load the model, to optimise it, and to check what runs.
    memory_mb : float or None
        Growth of this process's peak resident memory, and of its workers' memory, from before the
        model was opened until it had run this batch size and those below; MiB. The runtime's
        library itself is loaded before.
    model_mb : float or None
        Size of the model's files; MiB.
    """

    backend: str
    precision: str
    batch_size: int
    threads: int | None
    device: str
    problem: Text | None = None
    ran: RanInfo | None = None
    model: ModelInfo | None = None
    images_per_second: Spread | None = None
    latency_ms: Latency | None = None
    runs: int = 0
    open_seconds: float | None = None
    memory_mb: float | None = None
    model_mb: float | None = None


class BenchResult(Record):
    """The result of one benchmark.

    Attributes
    ----------
    model : str
        Its name; each timing has the file.
    repeats : int
    seconds : float
        Least time of one configuration in one repetition.
    """

    schema_version: Literal[1] = 1
    kind: Literal["bench"] = "bench"
    evalkit_version: str
    started: str
    command: Text
    model: Text
    repeats: int
    seconds: float
    timings: tuple[Timing, ...]
    environment: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write the JSON file atomically."""
        with atomic_write(path) as file:
            file.write(self.model_dump_json(indent=2).encode() + b"\n")


def bench(
    model: ModelConfig,
    setups: Sequence[Setup],
    *,
    repeats: int = 5,
    seconds: float = 1.0,
    progress: Progress | None = None,
    command: str = "",
) -> BenchResult:
    """Time configurations of a model, by turns.

    All sessions are open at the same time, each warmed up. Configurations that differ only in the
    batch size share one. On Linux this resets the peak of memory of this process.

    Parameters
    ----------
    model : ModelConfig
        Its `files` say which file each backend and precision takes.
    setups : sequence of Setup
    repeats : int
        Rounds through all configurations.
    seconds : float
        In each round a configuration runs until this time is over, once at least.
    progress : Progress, optional
    command : str
        For the result.

    Returns
    -------
    BenchResult
        With the timings in the order of `setups`. A configuration that cannot run says why in
        `problem` and does not stop the others.
    """
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    progress = progress or Progress(quiet=True)
    cells = [_Cell(setup) for setup in setups]
    with ExitStack() as stack:
        with progress.stage("opening", len(cells), "configurations") as advance:
            for group in _sharing(cells):
                _open(model, group, stack)
                advance(len(group))
        running = [cell for cell in cells if cell.problem is None]
        with progress.stage("timing", repeats * len(running), "repetitions") as advance:
            for _ in range(repeats):
                _round(running, seconds, advance)
    return BenchResult(
        evalkit_version=evalkit.__version__,
        started=started,
        command=command,
        model=model.name,
        repeats=repeats,
        seconds=seconds,
        timings=tuple(cell.timing() for cell in cells),
        environment=environment.describe(),
    )


@dataclass(slots=True)
class _Cell:
    """A configuration while it is measured."""

    setup: Setup
    problem: str | None = None
    session: Session | None = None
    batch: NDArray[Any] | None = None
    repetitions: list[NDArray[np.float64]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def run(self) -> float:
        """Run once; return the seconds."""
        if self.session is None or self.batch is None:
            raise AssertionError("a configuration that is not open")
        start = time.perf_counter()
        self.session.run(self.batch)
        return time.perf_counter() - start

    def timing(self) -> Timing:
        """Put the record together."""
        setup = asdict(self.setup)
        settings = {name: setup[name] for name in Timing.model_fields if name in setup}
        if self.problem is not None or not self.repetitions:
            return Timing(**settings, problem=self.problem or "the number of repetitions is 0")
        rates = [self.setup.batch_size * len(runs) / runs.sum() for runs in self.repetitions]
        runs = np.concatenate(self.repetitions)
        p50, p90, p99 = np.percentile(1000 * runs, [50, 90, 99]).tolist()
        return Timing(
            **settings,
            **self.facts,
            images_per_second=Spread(
                median=float(np.median(rates)), low=float(min(rates)), high=float(max(rates))
            ),
            latency_ms=Latency(p50=p50, p90=p90, p99=p99),
            runs=len(runs),
        )


def _sharing(cells: Sequence[_Cell]) -> Iterable[list[_Cell]]:
    """Group the configurations that one session serves, the smallest batch first."""
    groups: dict[Setup, list[_Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.setup.batch_size):
        groups.setdefault(replace(cell.setup, batch_size=1), []).append(cell)
    return groups.values()


def _open(model: ModelConfig, cells: list[_Cell], stack: ExitStack) -> None:
    """Open the session of some configurations and warm each up."""
    setup = cells[0].setup
    known = RunSettings.model_fields
    settings = {name: value for name, value in asdict(setup).items() if name in known}
    try:
        run = validate(RunSettings, settings, f"{setup.backend} at {setup.precision}")
        choose_backend(run, model).probe()  # loads its library, which is not a part of the model
        memory = _Memory()
        start = time.perf_counter()
        opened = stack.enter_context(open_model(run, model))
        seconds = time.perf_counter() - start
    except EvalkitError as error:
        for cell in cells:
            cell.problem = str(error)
        return
    file = Path(opened.info.file or "")
    for cell in cells:
        size = cell.setup.batch_size
        cell.session = opened.session
        try:
            cell.batch = random_batch(opened.session, model, size)
            _warm_up(cell)
        except EvalkitError as error:
            cell.problem = str(error)
        ran = {**asdict(opened.session.ran), "batch_size": size}
        cell.facts = {
            "ran": RanInfo.model_validate(ran),
            "model": opened.info,
            "open_seconds": seconds,
            "memory_mb": memory.growth_mb(),
            "model_mb": model_bytes(file) / _MB,
        }


def _round(cells: Sequence[_Cell], seconds: float, advance: Advance) -> None:
    """Time each configuration once."""
    for cell in cells:
        runs: list[float] = []
        try:
            while cell.problem is None and (not runs or sum(runs) < seconds):
                runs.append(cell.run())
        except EvalkitError as error:
            cell.problem = str(error)
        cell.repetitions.append(np.array(runs))
        advance(1)


def _warm_up(cell: _Cell) -> None:
    """Run a few times: the first ones choose kernels, allocate memory and fill caches."""
    spent = 0.0
    runs = 0
    while runs < _WARM_UP_RUNS or spent < _WARM_UP_S:
        spent += cell.run()
        runs += 1


def random_batch(session: Session, model: ModelConfig, count: int) -> NDArray[Any]:
    """Make a batch of random pixels, normalised for the model."""
    info = session.inputs[0]
    sizes = zip(info.shape[1:], image_shape(model), strict=True)
    shape = [size if isinstance(size, int) else guess for size, guess in sizes]
    height, width = shape[1:] if model.input.layout == "nchw" else shape[:2]
    normalise = Normaliser(model.input, info.dtype)
    batch = normalise.empty(count, (height, width))
    rng = np.random.default_rng(0)
    for out in batch:
        normalise(rng.integers(0, 256, (height, width, 3), np.uint8), out)
    return batch


def model_bytes(file: Path) -> int:
    """Size of a model in bytes: its file, or all files of its folder, and weights beside it."""
    if file.is_dir():
        return sum(path.stat().st_size for path in file.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in {file, *weights_beside(file)})


@dataclass(slots=True)
class _Memory:
    """Growth of memory from now on: the peak of this process, and the memory of its workers."""

    start: int = 0
    peaks: bool = False

    def __post_init__(self) -> None:
        gc.collect()
        with suppress(OSError):  # only Linux can reset an older peak
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self.peaks = True
        self.start = psutil.Process().memory_info().rss + _workers()

    def growth_mb(self) -> float:
        """MiB since the start."""
        own = psutil.Process().memory_info().rss
        if self.peaks:
            own = max(own, int(environment.peak_memory_mb() * _MB))
        return max(0, own + _workers() - self.start) / _MB


def _workers() -> int:
    """Memory of the processes that this one started, in bytes."""
    total = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            total += child.memory_info().rss
    return total
