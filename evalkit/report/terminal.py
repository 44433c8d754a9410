"""What an evaluation shows at its end: its tables, what ran, where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalkit.core.results import Result
from evalkit.report.common import foot, model_line, stage_table
from evalkit.report.table import text_table
from evalkit.tasks.base import Task
from evalkit.tasks.tables import Table


def describe(task: Task[Any], result: Result) -> str:
    """Lay a result out."""
    summary = task.summary(result)
    partial = f"PARTIAL: {summary.partial}; no gate accepts it"
    lines = [
        summary.dataset,
        partial if result.status == "partial" else "",
        model_line(result),
        summary.rules,
    ]
    head = "\n".join(line for line in lines if line)
    stages = stage_table(result) if result.stages else ""
    parts = [head, *map(drawn, summary.tables), stages, foot(result)]
    return "\n\n".join(part for part in parts if part)


def describe_all(task: Task[Any], results: Sequence[Result]) -> str:
    """Lay the results of several data sets out side by side."""
    return "\n\n".join([model_line(results[0]), *map(drawn, task.several(results))])


def drawn(table: Table) -> str:
    """Draw a table as text; one without rows is left out."""
    if not table.rows:
        return ""
    text = text_table(table.header, table.rows, left=table.left)
    return "\n".join([table.title, text, *table.notes] if table.title else [text, *table.notes])
