"""What an evaluation shows at its end: its tables, what ran, where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalkit.core.results import READY_MADE, Result
from evalkit.report.table import text_table
from evalkit.tasks.base import Task
from evalkit.tasks.tables import Table

_FAILURES_SHOWN = 5


def describe(task: Task[Any], result: Result) -> str:
    """Lay a result out."""
    summary = task.summary(result)
    partial = f"PARTIAL: {summary.partial}; no gate accepts it"
    lines = [
        summary.dataset,
        partial if result.status == "partial" else "",
        _model_line(result),
        summary.rules,
    ]
    head = "\n".join(line for line in lines if line)
    stages = _stage_table(result) if result.stages else ""
    parts = [head, *map(drawn, summary.tables), stages, _foot(result)]
    return "\n\n".join(part for part in parts if part)


def describe_all(task: Task[Any], results: Sequence[Result]) -> str:
    """Lay the results of several data sets out side by side."""
    return "\n\n".join([_model_line(results[0]), *map(drawn, task.several(results))])


def drawn(table: Table) -> str:
    """Draw a table as text; one without rows is left out."""
    if not table.rows:
        return ""
    text = text_table(table.header, table.rows, left=table.left)
    return "\n".join([table.title, text, *table.notes] if table.title else [text, *table.notes])


def _model_line(result: Result) -> str:
    """Return the model and what ran, in one line."""
    ran = result.ran
    if ran.backend == READY_MADE:
        return f"{result.model.name}: ready-made, evalkit ran no model"
    threads = f", {ran.threads} threads" if ran.threads else ""
    runtime = f"{ran.backend} {ran.version}".rstrip()
    return (
        f"{result.model.name} on {runtime}, {ran.device}, {ran.precision_requested} "
        f"(ran: {ran.precision_ran}){threads}"
    )


def _stage_table(result: Result) -> str:
    """Return the busy time of each stage and its share."""
    total = sum(stage.seconds for stage in result.stages) or 1.0
    rows = [
        [
            stage.name,
            f"{stage.seconds:.2f}",
            f"{stage.seconds / total:.0%}",
            f"{stage.items:,}" if stage.items else "",
            f"{stage.reused_items:,} reused" if stage.reused_items else "",
        ]
        for stage in result.stages
    ]
    table = text_table(["stage", "seconds", "share", "items", ""], rows)
    if any(stage.reused_items for stage in result.stages):
        table += "\nreused: from the store, with the seconds of the run that computed them"
    return table


def _foot(result: Result) -> str:
    """Return speed, memory, failures, warnings and notes."""
    speed = ""
    if result.throughput is not None:
        when = " when computed" if any(stage.reused_items for stage in result.stages) else ""
        speed = f"inference {result.throughput:,.1f} images/s{when}, "
    failures = result.failures_to_enrol
    lines = [
        f"{speed}wall {result.wall_seconds:.1f} s, peak memory {result.peak_memory_mb:,.0f} MiB, "
        f"failures to enrol: {len(failures)}"
    ]
    lines += [f"  {failure.name}: {failure.reason}" for failure in failures[:_FAILURES_SHOWN]]
    if len(failures) > _FAILURES_SHOWN:
        lines.append(f"  ... and {len(failures) - _FAILURES_SHOWN} more in the result file")
    lines += [f"warning: {warning}" for warning in result.warnings]
    lines += [f"note: {note}" for note in result.ran.notes]
    return "\n".join(lines)
