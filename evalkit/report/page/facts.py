"""The settings, hashes and machines of a report: what two runs share stands there once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from evalkit.core.results import Result
from evalkit.report.page.gather import Report
from evalkit.tasks import title_of
from evalkit.tasks.panels import letter
from evalkit.tasks.tables import Table


def settings(report: Report) -> Table:
    """Return every setting of every run; one row for those that agree."""
    return _facts("settings", report, _settings_of)


def hashes(report: Report) -> Table:
    """Return the hashes of models and data, and the files."""
    table = _facts("models, data and their hashes (SHA-256)", report, _hashes_of)
    if report.record is None:
        return table
    plans = tuple(("plan", "all", use.sha256) for use in report.record.plans)
    return replace(table, rows=(*plans, *table.rows))


def machines(report: Report) -> Table:
    """Return where it ran."""
    return _facts("machine and versions", report, lambda result: _flat(result.environment))


def _facts(
    title: str, report: Report, facts_of: Callable[[Result], Iterable[tuple[str, str]]]
) -> Table:
    """Put facts of all runs into rows: those that all runs share once."""
    runs = [
        (f"{group.name}, {letter(entry.run)} {entry.label}", dict(facts_of(result)))
        for group in report.groups
        for entry, result in group.ran
    ]
    rows = []
    for name in dict.fromkeys(name for _, facts in runs for name in facts):
        by_value: dict[str, list[str]] = {}
        for label, facts in runs:
            if name in facts:
                by_value.setdefault(facts[name], []).append(label)
        for value, labels in by_value.items():
            whose = "all" if len(labels) == len(runs) else "; ".join(labels)
            rows.append((name, whose, value))
    return Table(("what", "of", "value"), tuple(rows), title, 3)


def _settings_of(result: Result) -> Iterable[tuple[str, str]]:
    yield "evalkit", result.evalkit_version
    yield "protocol", title_of(result.task)
    yield from _flat(result.settings, "")
    ran = result.ran.model_dump(mode="json")
    yield from _flat({name: ran[name] for name in _RAN}, "")
    yield from _flat(ran["details"], "ran: ")
    yield from (("note", note) for note in result.ran.notes)
    yield from _flat(result.model.preprocessing, "preprocessing: ")
    yield "command", result.command


_RAN = (
    "backend",
    "version",
    "device",
    "precision_requested",
    "precision_ran",
    "threads",
    "batch_size",
)


def _hashes_of(result: Result) -> Iterable[tuple[str, str]]:
    yield "model", result.model.name
    yield "model file", result.model.file or "-"
    yield "model hash", result.model.sha256 or "-"
    yield from _flat(result.model.conversion or {}, "conversion: ")
    yield "data", result.dataset.name
    yield "data folder", result.dataset.path
    yield "data hash", result.dataset.sha256
    yield "images hash", result.dataset.content_sha256 or "-"
    yield "annotations hash", result.dataset.annotations_sha256 or "-"


def _flat(values: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    return [
        (f"{before}{name}", value if isinstance(value, str) else json.dumps(value))
        for name, value in values.items()
    ]
