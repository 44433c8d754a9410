"""A sign-off from its plan to its record: run the cells, judge them, sum up."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import evalkit
from evalkit.core import machine as environment
from evalkit.core.errors import EXIT_CANNOT_JUDGE, EXIT_FAILED, EXIT_OK, EvalkitError
from evalkit.core.progress import Progress
from evalkit.core.results import Result
from evalkit.run.models import weights_beside
from evalkit.verdict.paired import Side
from evalkit.verdict.plan import Plan, ProtocolPlan
from evalkit.verdict.signoff.cells import Job, chosen_of, facts_of, finished, jobs_of, run
from evalkit.verdict.signoff.history import note_plan
from evalkit.verdict.signoff.judging import Judge
from evalkit.verdict.signoff.probing import Prober
from evalkit.verdict.signoff.record import Cell, Overall, ProtocolRecord, Run, Signoff
from evalkit.verdict.signoff.speed import measure_speed

_EXIT_CODES: dict[Overall, int] = {
    "pass": EXIT_OK,
    "fail": EXIT_FAILED,
    "inconclusive": EXIT_CANNOT_JUDGE,
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A cell's result, or why there is none."""

    job: Job
    result: Result | None = None
    reused: bool = False
    absent: Literal["cannot_run", "not_run"] = "cannot_run"
    reason: str = ""


def signoff(
    plan: Plan, folder: Path, progress: Progress, *, only: Sequence[str] = (), command: str = ""
) -> Signoff:
    """Run a plan's cells and judge them.

    Parameters
    ----------
    plan : Plan
    folder : Path
        Where cells and record are kept; a finished cell there is not run again.
    progress : Progress
    only : sequence of str
        Cells to run (``protocol/backend:precision``, or either part), and their references; of
        the others, those that are finished are judged too.
    command : str
        What the user typed.

    Raises
    ------
    evalkit.core.errors.InputError
        The plan names data or a model that is not there, or `only` names no cell.
    """
    started = _now()
    jobs = jobs_of(plan, folder)
    chosen = chosen_of(jobs, only, plan)
    plans = note_plan(folder, plan, started)
    attempts = _run_all(jobs, chosen, progress)
    cells: list[Cell] = []
    protocols = []
    for protocol in plan.protocols:
        rows = [attempt for attempt in attempts if attempt.job.protocol is protocol]
        progress.say(f"{protocol.name}: judging")
        cells += _judged(plan, protocol, rows, folder)
        protocols.append(_protocol(protocol, rows[0].result))
    outcome, reason = overall(cells)
    progress.say(f"{outcome}: {reason}")
    ran = [attempt.job for attempt in attempts if attempt.result is not None]
    speed, untimed = measure_speed(plan.bench, ran, folder, progress) if plan.bench else (None, [])
    changes = [change for use in plans[1:] for change in use.changes]
    changed = [f"the plan was changed after a run: {change}" for change in changes]
    return Signoff(
        evalkit_version=evalkit.__version__,
        name=plan.name,
        outcome=outcome,
        exit_code=_EXIT_CODES[outcome],
        reason=reason,
        started=started,
        finished=_now(),
        command=command,
        plan=plan,
        plans=plans,
        protocols=tuple(protocols),
        cells=tuple(cells),
        bench=speed,
        warnings=(*changed, *untimed),
        environment=environment.describe(),
    )


def _protocol(protocol: ProtocolPlan, reference: Result | None) -> ProtocolRecord:
    return ProtocolRecord(
        name=protocol.name,
        kind=protocol.kind,
        primary=protocol.primary,
        margin=str(protocol.margin),
        dataset=reference and reference.dataset,
    )


def overall(cells: Sequence[Cell]) -> tuple[Overall, str]:
    """Put the cells together. All must pass, so no correction for their number is needed.

    Returns
    -------
    outcome : {"pass", "fail", "inconclusive"}
    reason : str
    """
    judged = [cell for cell in cells if cell.outcome != "reference"]
    needed = [
        cell for cell in judged if not (cell.optional and cell.outcome in {"cannot_run", "not_run"})
    ]
    counts = {
        outcome: [f"{cell.protocol}/{cell.mode}" for cell in needed if cell.outcome == outcome]
        for outcome in ("fail", "inconclusive", "cannot_run", "not_run")
    }
    words = {
        "fail": "failed",
        "inconclusive": "inconclusive",
        "cannot_run": "could not run",
        "not_run": "not run",
    }
    listed = "; ".join(
        f"{words[outcome]}: {', '.join(names)}" for outcome, names in counts.items() if names
    )
    if counts["fail"]:
        return "fail", listed
    if listed:
        return "inconclusive", listed
    if not needed:
        return "inconclusive", "no cell beside the reference was judged"
    left_out = [f"{cell.protocol}/{cell.mode}" for cell in judged if cell not in needed]
    beside = f"; optional and without a result: {', '.join(left_out)}" if left_out else ""
    return "pass", f"all {len(needed)} cells passed against their margins{beside}"


def _run_all(jobs: list[Job], chosen: set[str], progress: Progress) -> list[Attempt]:
    prober = Prober()
    attempts = []
    for number, job in enumerate(jobs, 1):
        attempt = _attempt(job, prober, progress, f"[{number}/{len(jobs)}]", job.name in chosen)
        attempts.append(attempt)
    return attempts


def _attempt(job: Job, prober: Prober, progress: Progress, place: str, chosen: bool) -> Attempt:
    """Run one cell. A cell that fails does not stop the others."""
    try:
        facts = facts_of(job, prober)
        earlier = finished(job, facts)
        if earlier is not None:
            progress.say(f"{place} {job.name}: finished before, unchanged")
            return Attempt(job, earlier, reused=True)
        if not chosen:
            return Attempt(job, absent="not_run", reason="left out by --only")
        progress.say(f"{place} {job.name}: running")
        return Attempt(job, run(job, facts, progress))
    except EvalkitError as error:
        progress.say(f"{place} {job.name}: CANNOT RUN: {error}")
        return Attempt(job, reason=str(error))


def _judged(plan: Plan, protocol: ProtocolPlan, rows: list[Attempt], folder: Path) -> list[Cell]:
    reference, *others = rows
    why = "all others are compared with it"
    cells = [_cell(reference, folder, outcome="reference", reason=why)]
    judge = None
    if reference.result is not None:
        side = Side(reference.job.result, reference.result)
        judge = Judge(protocol, plan.statistics, side)
    return [*cells, *(_judge(judge, attempt, folder) for attempt in others)]


def _judge(judge: Judge | None, attempt: Attempt, folder: Path) -> Cell:
    if attempt.result is None:
        return _cell(attempt, folder)
    if judge is None:
        why = "the reference has no result to compare with"
        return _cell(attempt, folder, outcome="inconclusive", reason=why)
    try:
        judged = judge.judge(Side(attempt.job.result, attempt.result))
    except EvalkitError as error:
        return _cell(attempt, folder, outcome="inconclusive", reason=str(error))
    return _cell(
        attempt,
        folder,
        outcome=judged.outcome,
        reason=judged.reason,
        test=judged.test,
        deployment=judged.deployment,
        limits=judged.limits,
        comparison=judged.comparison,
    )


def _cell(attempt: Attempt, folder: Path, **verdict: object) -> Cell:
    job, result = attempt.job, attempt.result
    cell: dict[str, object] = {
        "protocol": job.protocol.name,
        "backend": job.mode.backend,
        "precision": job.mode.precision,
        "optional": job.override.optional,
        "reused": attempt.reused,
    }
    if result is None:
        return Cell.model_validate(cell | {"outcome": attempt.absent, "reason": attempt.reason})
    return Cell.model_validate(cell | verdict | {"run": _run(job, result, folder)})


def _run(job: Job, result: Result, folder: Path) -> Run:
    return Run(
        result=str(job.result.relative_to(folder)),
        model=result.model,
        # What a device ran lies elsewhere.
        model_bytes=None if job.elsewhere else _size(job.model.file_for(*job.mode)),
        ran=result.ran,
        metrics=result.metrics,
        failures_to_enrol=result.failures_to_enrol,
        stages=result.stages,
        throughput=result.throughput,
        seconds=result.wall_seconds,
        peak_memory_mb=result.peak_memory_mb,
        warnings=result.warnings,
    )


def _size(model: Path) -> int:
    """Return the bytes of a model's files."""
    files = model.rglob("*") if model.is_dir() else (model, *weights_beside(model))
    return sum(file.stat().st_size for file in files if file.is_file())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
