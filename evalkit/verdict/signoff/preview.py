"""A sign-off before it runs: its cells, which are finished, and about how long the rest takes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.core.errors import EvalkitError, InputError
from evalkit.core.progress import Progress
from evalkit.core.results import Result, load_result
from evalkit.verdict.plan import Plan
from evalkit.verdict.signoff.cells import (
    CellError,
    Job,
    chosen_of,
    evaluate,
    facts_of,
    finished,
    jobs_of,
)
from evalkit.verdict.signoff.history import differences, read_plans
from evalkit.verdict.signoff.probing import Prober


@dataclass(frozen=True, slots=True)
class Expected:
    """What a run of a cell would do.

    Attributes
    ----------
    state : str
        ``finished``, ``to run``, ``cannot run`` or ``probe failed``.
    seconds : float or None
        About how long it takes; None where that is not known.
    basis : str
        Where `seconds` comes from.
    reason : str
        Why it cannot run, or why its probe failed.
    """

    job: Job
    state: str
    seconds: float | None
    basis: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan before it runs.

    Attributes
    ----------
    changes : tuple of str
        What differs from the plan that the folder has seen last.
    """

    cells: tuple[Expected, ...]
    changes: tuple[str, ...]


def preview(plan: Plan, folder: Path, progress: Progress, *, only: Sequence[str] = ()) -> Preview:
    """Look at a plan; only cells that have never run are probed with a few images.

    Raises
    ------
    evalkit.core.errors.InputError
        The plan names data or a model that is not there, or `only` names no cell.
    """
    prober = Prober()
    plans = read_plans(folder)
    changes = differences(plans[-1][1], plan.model_dump(mode="json")) if plans else ()
    jobs = jobs_of(plan, folder)
    chosen = chosen_of(jobs, only, plan)
    cells = [_expected(job, prober, progress) for job in jobs if job.name in chosen]
    return Preview(tuple(cells), tuple(changes))


def _expected(job: Job, prober: Prober, progress: Progress) -> Expected:
    try:
        facts = facts_of(job, prober)
    except EvalkitError as error:
        return Expected(job, "cannot run", None, reason=str(error))
    if finished(job, facts) is not None:
        return Expected(job, "finished", 0.0, "unchanged since it ran")
    try:
        earlier = load_result(job.result)
        return Expected(job, "to run", seconds_of(earlier, job.data.images), "an earlier run here")
    except InputError:
        pass
    return _probed(job, progress)


def _probed(job: Job, progress: Progress) -> Expected:
    images = min(job.protocol.task.probe_images, job.data.images)
    progress.say(f"{job.name}: probing with {images} images")
    trial = replace(job, folder=job.folder / "probe")
    output = trial.folder / "result.json"
    settings = {**job.settings, "limit": images, "output": str(output.absolute())}
    try:
        evaluate(trial, settings, Progress(quiet=True))
        about = seconds_of(load_result(output), job.data.images)
        return Expected(job, "to run", about, f"a probe with {images} images")
    except CellError as error:
        return Expected(job, "probe failed", None, reason=str(error))
    finally:
        shutil.rmtree(trial.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # folders that only the probe needed
            os.removedirs(job.folder)


def seconds_of(result: Result, images: int) -> float:
    """Return about how long a run takes on a number of images, by the stages of another run.

    Decoding and inference go on side by side, so the slower of the two counts. The other stages
    are taken as they were.
    """
    each = [stage.seconds / max(stage.items, 1) for stage in result.stages if _by_image(stage.name)]
    rest = sum(stage.seconds for stage in result.stages if not _by_image(stage.name))
    return rest + images * max(each, default=0.0)


def _by_image(stage: str) -> bool:
    return stage in {"decode", "inference"}
