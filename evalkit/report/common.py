"""Parts that every table of the terminal has."""

from __future__ import annotations

from evalkit.core.results import READY_MADE, Result
from evalkit.report.table import text_table

_FAILURES_SHOWN = 5


def model_line(result: Result) -> str:
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


def stage_table(result: Result) -> str:
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


def foot(result: Result) -> str:
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
