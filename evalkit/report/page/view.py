"""Every part of the page, ready for the template."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evalkit.core.errors import EvalkitError
from evalkit.report.page.chart import Drawing
from evalkit.report.page.facts import hashes, machines, settings
from evalkit.report.page.forest import forest, scale_of
from evalkit.report.page.galleries import Album, Budget
from evalkit.report.page.gather import Entry, Group, Report
from evalkit.report.page.glance import (
    KINDS,
    Badge,
    Run,
    badge_of,
    bar_of,
    mode_row,
)
from evalkit.report.page.headline import reason, sentence
from evalkit.report.page.speed import bench_bars, bench_charts, bench_modes
from evalkit.report.page.stagebars import stage_bars
from evalkit.report.page.tables import (
    bench_problems,
    bench_table,
    change_of,
    changes,
    drifts,
    figures,
    flips,
    matrix,
    other_precision,
    stages,
)
from evalkit.report.signoff_tables import TITLES
from evalkit.tasks import TASKS, title_of
from evalkit.tasks.panels import Chart, Note, Panel, Thresholds
from evalkit.tasks.tables import Table


def view(report: Report) -> dict[str, Any]:
    """Return every part of the page, by the names that the template uses."""
    outcome = report.outcome
    budget = Budget()
    names = bench_modes(report.benches, report.modes)
    timed = {f"{t.backend}:{t.precision}" for bench in report.benches for t in bench.timings}
    panels = [_panel(report, group, budget) for group in report.groups]
    speed = [Drawing(chart) for chart in bench_charts(report.benches, names)]
    tables = [f(bench) for bench in report.benches for f in (bench_table, bench_problems)]
    return {
        "report": report,
        "verdict": Badge(TITLES[outcome] if outcome else "NOT JUDGED", KINDS[outcome]),
        "sentence": sentence(report),
        "reason": reason(report),
        "counts": _counts(report),
        "columns": [(group.name, group.primary, group.margin_text) for group in report.groups],
        "modes": [mode_row(report, run, label) for run, label in enumerate(report.modes)],
        "concerns": _concerns(report),
        "panels": panels,
        "speed": speed,
        "speed_bars": bench_bars(report.benches, names),
        "speed_runs": [Run(names.index(name), name) for name in names if name in timed],
        "speed_tables": [table for table in tables if table.rows],
        "facts": (settings(report), hashes(report), machines(report)),
        "data": {
            "charts": [d.spec() for panel in panels for d in panel["charts"]]
            + [drawing.spec() for drawing in speed],
            "thresholds": {
                panel["key"]: panel["threshold"] for panel in panels if panel["threshold"]
            },
        },
    }


def _counts(report: Report) -> tuple[tuple[str, int, str], ...]:
    """Count the cells by outcome."""
    cells = report.record.cells if report.record else ()
    outcomes = [cell.outcome for cell in cells]
    order = ("pass", "fail", "inconclusive", "cannot_run", "not_run")
    return tuple((TITLES[o], outcomes.count(o), KINDS[o]) for o in order if o in outcomes)


def _concerns(report: Report) -> list[tuple[str, Badge, str]]:
    """Return what a reader must know beside the verdict: of what, what, and why.

    Cells with the same reason share an entry, and so do warnings.
    """
    cases: dict[tuple[Badge, str], list[str]] = {}
    for group in report.groups:
        for entry in group.entries:
            cell, badge, why = entry.cell, badge_of(entry), entry.problem
            if cell is not None:
                flagged = any(limit.outcome == "flag" for limit in cell.limits)
                why = cell.reason if flagged or cell.outcome not in {"pass", "reference"} else ""
            elif why:
                badge = Badge("not compared", "open")
            if why:
                cases.setdefault((badge, why), []).append(f"{group.name} / {entry.label}")
    concerns = [(", ".join(names), badge, why) for (badge, why), names in cases.items()]
    if report.warnings:
        concerns.append(("", Badge("note", "open"), "\n".join(report.warnings)))
    order = ("fail", "open", "none", "pass")
    return sorted(concerns, key=lambda concern: order.index(concern[1].kind))


def _panel(report: Report, group: Group, budget: Budget) -> dict[str, Any]:
    """Return every part of a group of runs."""
    panels, albums = _of_task(group, budget)
    tables = (figures(group), changes(group), flips(group), drifts(group), stages(group))
    table = _for_screen(matrix(report, group))
    rows = _matrix_rows(group, table)
    return {
        "key": group.key,
        "name": group.name,
        "intro": _intro(group),
        "matrix": table,
        "rows": rows,
        "pictured": any(row["forest"] for row in rows),
        "runs": [_run(entry) for entry, _ in group.ran],
        "charts": [
            Drawing(replace(panel, key=f"{group.key}-{panel.key}"))
            for panel in panels
            if isinstance(panel, Chart)
        ],
        "threshold": next((_slider(p) for p in panels if isinstance(p, Thresholds)), None),
        "galleries": albums,
        "tables": [table for table in tables if table.rows],
        "notes": [panel.text for panel in panels if isinstance(panel, Note)],
        "margin": group.margin is not None,
        "stages": stage_bars(group),
    }


def _matrix_rows(group: Group, table: Table) -> list[dict[str, Any]]:
    """Return for each run its texts, and the picture of its change."""
    scale = scale_of(group)
    rows = []
    for entry, texts in zip(group.entries, table.rows, strict=True):
        change, low, high = change_of(group, entry)
        badge, picture = badge_of(entry), None
        if scale is not None and change is not None:
            picture = forest(scale, change, (low, high), group.margin, badge.kind)
        rows.append(
            {
                "run": _run(entry),
                "ran": other_precision(entry),
                "badge": badge,
                "texts": texts,
                "forest": picture,
                "reason": entry.cell.reason if entry.cell else entry.problem,
                "alarm": bar_of(entry),
            }
        )
    return rows


def _of_task(group: Group, budget: Budget) -> tuple[tuple[Panel, ...], list[Album]]:
    """Return what the task of a group hands over; a note where the task is not there."""
    try:
        task = TASKS.get(group.task)()
    except EvalkitError as error:
        return (Note(str(error)),), []
    runs = group.runs()
    return task.panels(runs), budget.albums(task.pictures(runs))


def _for_screen(table: Table) -> Table:
    """Drop the margin, which the caption has, and columns in which no row has anything."""
    shown = [
        n
        for n, text in enumerate(table.header)
        if n < 2 or (text != "margin, points" and any(row[n] != "-" for row in table.rows))
    ]
    return replace(
        table,
        header=tuple(table.header[n] for n in shown),
        rows=tuple(tuple(row[n] for n in shown) for row in table.rows),
    )


def _run(entry: Entry) -> Run:
    return Run(entry.run, entry.label)


def _intro(group: Group) -> str:
    for _, result in group.ran:
        data = result.dataset
        counts = ", ".join(f"{count:,} {name}" for name, count in data.counts.items())
        return f"{title_of(result.task)} on {data.name}: {counts}."
    return "No run of this protocol has a result."


def _slider(thresholds: Thresholds) -> dict[str, Any]:
    """Return what the page's script and the first state of its table need."""
    marks = sorted(thresholds.marks.items(), key=lambda mark: mark[1])
    here = (name for name, index in thresholds.marks.items() if index == thresholds.start)
    return {
        "thresholds": thresholds.similarity.tolist(),
        "runs": [
            {
                "run": run.run,
                "label": run.label,
                "genuine": run.genuine,
                "impostors": run.impostors,
                "true": run.true.tolist(),
                "false": run.false.tolist(),
            }
            for run in thresholds.runs
        ],
        "start": thresholds.start,
        "marks": [{"name": name, "index": index} for name, index in marks],
        "reference": thresholds.reference,
        "mark": next(here, ""),
    }
