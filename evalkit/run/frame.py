"""What every evaluation shares: the clock, ready-made input's labels, the frame of a result."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import evalkit
from evalkit.core import machine as environment
from evalkit.core.errors import InputError
from evalkit.core.results import (
    DatasetInfo,
    Failure,
    Metric,
    Result,
    Stage,
)
from evalkit.core.settings import RunSettings
from evalkit.datasets.ijb import MARKER
from evalkit.run.inference import Inferred
from evalkit.run.overlap import People, overlap
from evalkit.run.ready import ready_model, ready_ran, ready_throughput

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
        model=embedded.model if embedded else ready_model(ready_file or Path()),
        ran=embedded.ran if embedded else ready_ran(config),
        settings=settings,
        metrics=tuple(metrics),
        failures_to_enrol=failures,
        stages=tuple(clock.stages),
        wall_seconds=time.perf_counter() - clock.start,
        throughput=embedded.throughput if embedded else ready_throughput(config),
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
