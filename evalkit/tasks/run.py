"""From a task and its settings to results: the one way, for every task and every door."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evalkit
from evalkit.core import machine
from evalkit.core.errors import InputError
from evalkit.core.progress import Progress
from evalkit.core.results import DatasetInfo, ModelInfo, RanInfo, Result
from evalkit.core.settings import RunSettings
from evalkit.run.clock import Clock
from evalkit.run.inference import Inferred, infer, require_model
from evalkit.run.overlap import overlap
from evalkit.run.ready import ready_model, ready_ran, ready_throughput
from evalkit.tasks.base import Evaluation, Ready, Samples, Task, Work


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A result, and what it was made from."""

    result: Result
    evaluation: Evaluation
    samples: Samples

    def save(self, path: Path) -> Result:
        """Write the result, and the arrays beside it."""
        return self.result.save(path, self.evaluation.arrays)


def run(
    task: Task[Any], settings: RunSettings, progress: Progress, *, command: str = ""
) -> Iterator[Outcome]:
    """Evaluate each data set of a run, and yield its outcome as soon as it is there.

    Parameters
    ----------
    task : Task
    settings : RunSettings
        Of the task's own class.
    progress : Progress
    command : str
        What the user typed, for the result.

    Raises
    ------
    evalkit.core.errors.EvalkitError, evalkit.datasets.errors.DatasetError
        The input is wrong, or cannot be judged.
    """
    sets = task.open(settings, progress)
    while True:
        clock = Clock()
        with clock.stage("load"):
            samples = next(sets, None)
        if samples is None:
            return
        yield _evaluate(task, samples, settings, Work(clock, progress), command)


def _evaluate(
    task: Task[Any], samples: Samples, settings: RunSettings, work: Work, command: str
) -> Outcome:
    for warning in samples.warnings:
        work.progress.say(f"warning: {warning}")
    task.check(samples, settings)
    ready = task.ready(settings, samples, work)
    outputs: Inferred | Ready
    if ready is None:
        outputs = _infer(task, samples, settings, work.progress)
        work.clock.stages += outputs.stages
    else:
        outputs = ready
    evaluation = task.evaluate(outputs, samples, settings, work)
    result = _result(task, samples, settings, outputs, evaluation, work.clock, command)
    warnings = (*result.warnings, *task.doubts(result))
    return Outcome(result.model_copy(update={"warnings": warnings}), evaluation, samples)


def _infer(
    task: Task[Any], samples: Samples, settings: RunSettings, progress: Progress
) -> Inferred:
    require_model(settings, samples.root, task.head)
    if samples.source is None:
        raise InputError(f"{samples.root} holds no images.")
    return infer(
        samples.source,
        samples.fingerprint,
        settings,
        progress,
        head=task.head,
        views=task.views(settings),
    )


def _result(
    task: Task[Any],
    samples: Samples,
    settings: RunSettings,
    outputs: Inferred | Ready,
    evaluation: Evaluation,
    clock: Clock,
    command: str,
) -> Result:
    _check_names(evaluation)
    inferred = outputs if isinstance(outputs, Inferred) else None
    partial = samples.partial or (isinstance(outputs, Ready) and outputs.partial)
    model, ran, throughput = _what_ran(outputs, settings)
    dataset = samples.dataset.model_copy(
        update={"content_sha256": inferred.content_sha256 if inferred else None}
    )
    return Result(
        evalkit_version=evalkit.__version__,
        task=task.name,
        status="partial" if partial else "complete",
        started=clock.started,
        command=command,
        dataset=dataset,
        model=model,
        ran=ran,
        settings=dict(evaluation.applied),
        metrics=evaluation.metrics,
        failures_to_enrol=evaluation.failures,
        stages=tuple(clock.stages),
        wall_seconds=clock.seconds,
        throughput=throughput,
        peak_memory_mb=machine.peak_memory_mb(),
        scores_file=None,
        store=str(inferred.store.folder.absolute()) if inferred else None,
        warnings=(
            *samples.warnings,
            *evaluation.warnings,
            *(_calibrated_on(inferred, dataset, samples) if inferred else ()),
        ),
        environment=machine.describe(),
    )


def _check_names(evaluation: Evaluation) -> None:
    names = Counter(metric.name for metric in evaluation.metrics)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise AssertionError(f"metrics of one name: {', '.join(twice)}")


def _what_ran(
    outputs: Inferred | Ready, settings: RunSettings
) -> tuple[ModelInfo, RanInfo, float | None]:
    if isinstance(outputs, Inferred):
        return outputs.model, outputs.ran, outputs.throughput
    return ready_model(outputs.file), ready_ran(settings), ready_throughput(settings)


def _calibrated_on(inferred: Inferred, dataset: DatasetInfo, samples: Samples) -> tuple[str, ...]:
    """Warn of a model that was calibrated on what it is judged by."""
    conversion = inferred.model.conversion
    if inferred.model.file is None or conversion is None or conversion["calibration"] is None:
        return ()
    return overlap(Path(inferred.model.file), inferred.store, dataset, samples.people)
