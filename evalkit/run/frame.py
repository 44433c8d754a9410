"""What every evaluation shares: the clock, ready-made input's labels, the frame of a result."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import evalkit
from evalkit.backends.outputs.runtime_info import read_runtime_info, read_throughput
from evalkit.core import machine as environment
from evalkit.core.errors import InputError
from evalkit.core.results import (
    READY_MADE,
    DatasetInfo,
    Failure,
    Metric,
    ModelInfo,
    RanInfo,
    Result,
    Stage,
)
from evalkit.core.settings import RunSettings
from evalkit.datasets.ijb import MARKER
from evalkit.run.inference import Inferred
from evalkit.run.models import model_sha256
from evalkit.run.overlap import People, overlap

T = TypeVar("T")


class Clock:
    """Wall time of a run and of its stages."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.stages: list[Stage] = []

    def run(self, name: str, work: Callable[[], T], items: Callable[[T], int] = lambda _: 0) -> T:
        """Do some work as a named stage; `items` counts what came out."""
        begin = time.perf_counter()
        value = work()
        seconds = time.perf_counter() - begin
        self.stages.append(Stage(name=name, seconds=seconds, items=items(value)))
        return value


def scorable(work: Callable[[], T]) -> T:
    """Do numerics; their `ValueError` is about the user's arrays, so it becomes an input error."""
    try:
        return work()
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise InputError(f"These data cannot be scored: {reason}.") from error


def rate_name(target: float) -> str:
    """Return a target rate as metrics name it: the shortest exponent form that is exact.

    Examples
    --------
    >>> rate_name(1e-4), rate_name(0.00025), rate_name(0.12)
    ('1e-04', '2.5e-04', '1.2e-01')
    """
    forms = (f"{target:.{digits}e}" for digits in range(17))
    return next(form for form in forms if float(form) == target)


def require_model(config: RunSettings, folder: Path, sample_model: str) -> None:
    """Refuse to judge real data by the embedded network because nobody named a model.

    Parameters
    ----------
    config : RunSettings
    folder : Path
        Where a sample has its marker.
    sample_model : str
        The embedded network's name.

    Raises
    ------
    evalkit.core.errors.InputError
        No model is given, and the data are no sample of evalkit.
    """
    if config.model is None and not (folder / MARKER).is_file():
        raise InputError(
            f"{folder} is no sample of evalkit: say with --model which model to evaluate "
            f"(--model {sample_model} runs the embedded network)."
        )


def assemble(
    config: RunSettings,
    *,
    task: str,
    dataset: DatasetInfo,
    partial: bool,
    embedded: Inferred | None,
    ready_file: Path | None,
    settings: dict[str, Any],
    metrics: list[Metric],
    failures: tuple[Failure, ...],
    warnings: tuple[str, ...],
    clock: Clock,
    command: str,
    people: Callable[[], People] | None = None,
) -> Result:
    """Put a result together.

    Parameters
    ----------
    partial : bool
        Whether ``--limit`` left something out.
    embedded : Inferred or None
        Where evalkit ran the inference.
    ready_file : Path or None
        Where it did not: the file that stands for the model.
    people : callable, optional
        Names who is evaluated; called for a model that was calibrated.
    """
    twice = [name for name, count in Counter(m.name for m in metrics).items() if count > 1]
    if twice:
        raise AssertionError(f"metrics of one name: {', '.join(twice)}")
    return Result(
        evalkit_version=evalkit.__version__,
        task=task,
        status="partial" if partial else "complete",
        started=clock.started,
        command=command,
        dataset=dataset,
        model=embedded.model if embedded else _ready_model(ready_file),
        ran=embedded.ran if embedded else _ready_ran(config),
        settings=settings,
        metrics=tuple(metrics),
        failures_to_enrol=failures,
        stages=tuple(clock.stages),
        wall_seconds=time.perf_counter() - clock.start,
        throughput=embedded.throughput if embedded else _ready_throughput(config),
        peak_memory_mb=environment.peak_memory_mb(),
        scores_file=None,
        store=str(embedded.store.folder.absolute()) if embedded else None,
        warnings=(*warnings, *_overlap(embedded, dataset, people)),
        environment=environment.describe(),
    )


def _overlap(
    embedded: Inferred | None, dataset: DatasetInfo, people: Callable[[], People] | None
) -> tuple[str, ...]:
    """Warn of a model that was calibrated on what it is judged by."""
    if embedded is None or embedded.model.file is None:
        return ()
    conversion = embedded.model.conversion
    if conversion is None or conversion["calibration"] is None:
        return ()
    who = people() if people else None
    return overlap(Path(embedded.model.file), embedded.store, dataset, who)


def _ready_model(file: Path | None) -> ModelInfo:
    if file is None:
        raise AssertionError("a result stands on a model or on a ready-made file")
    return ModelInfo(name=file.stem, file=str(file), sha256=model_sha256(file), preprocessing={})


def _ready_ran(config: RunSettings) -> RanInfo:
    info = read_runtime_info(config.runtime_info, config.precision)
    note = "Computed elsewhere: evalkit ran no inference and takes the precision on trust."
    return RanInfo(
        backend=READY_MADE,
        version=info.version,
        device=info.device,
        precision_requested=config.precision,
        precision_ran=info.precision_ran,
        threads=info.threads,
        batch_size=info.batch_size,
        details={"runtime": info.runtime} if config.runtime_info else {},
        notes=(note, *((info.notes,) if info.notes else ())),
    )


def _ready_throughput(config: RunSettings) -> float | None:
    return None if config.throughput_log is None else read_throughput(config.throughput_log)
