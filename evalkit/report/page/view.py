"""What the template lays out: every part of the page, ready to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from evalkit.core.errors import EvalkitError
from evalkit.report.page.chart import Drawing
from evalkit.report.page.facts import hashes, machines, settings
from evalkit.report.page.forest import forest, scale_of
from evalkit.report.page.galleries import Album, Budget
from evalkit.report.page.gather import Entry, Group, Report
from evalkit.report.page.glance import (
    KINDS,
    Badge,
    ModeRow,
    Run,
    badge_of,
    bar_of,
    mode_row,
)
from evalkit.report.page.headline import reason, sentence
from evalkit.report.page.speed import SpeedBars, bench_bars, bench_charts, bench_modes
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
from evalkit.tasks import TASKS
from evalkit.tasks.panels import Chart, Note, Thresholds
from evalkit.tasks.panels import Panel as Plain
from evalkit.tasks.tables import Table


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One run of a group: its texts, and the picture of its change.

    Attributes
    ----------
    alarm : str
        Colour of the bar at its side, empty without one.
    """

    run: Run
    ran: str
    badge: Badge
    texts: Sequence[str]
    forest: Markup
    reason: str
    alarm: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One group of runs.

    Attributes
    ----------
    threshold : dict or None
        What the slider needs; the template writes its first state as a table.
    """

    key: str
    name: str
    intro: str
    matrix: Table
    rows: tuple[MatrixRow, ...]
    runs: tuple[Run, ...]
    charts: tuple[Drawing, ...]
    threshold: dict[str, Any] | None
    galleries: tuple[Album, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    margin: bool
    stages: Markup

    @property
    def pictured(self) -> bool:
        """Whether any run has a picture of its change."""
        return any(row.forest for row in self.rows)


@dataclass(frozen=True, slots=True)
class Page:
    """The whole page."""

    report: Report
    verdict: Badge
    sentence: str
    reason: tuple[str, int]
    counts: tuple[tuple[str, int, str], ...]
    columns: tuple[tuple[str, str, str], ...]
    modes: tuple[ModeRow, ...]
    concerns: tuple[tuple[str, Badge, str], ...]
    panels: tuple[Panel, ...]
    speed: tuple[Drawing, ...]
    speed_bars: tuple[SpeedBars, ...]
    speed_runs: tuple[Run, ...]
    speed_tables: tuple[Table, ...]
    facts: tuple[Table, ...]

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script needs."""
        charts = [chart.spec() for panel in self.panels for chart in panel.charts]
        charts += [chart.spec() for chart in self.speed]
        thresholds = {panel.key: panel.threshold for panel in self.panels if panel.threshold}
        return {"charts": charts, "thresholds": thresholds}


def view(report: Report) -> Page:
    """Lay a report out."""
    outcome = report.outcome
    budget = Budget()
    names = bench_modes(report.benches, report.modes)
    timed = {f"{t.backend}:{t.precision}" for bench in report.benches for t in bench.timings}
    return Page(
        report=report,
        verdict=Badge(TITLES[outcome] if outcome else "NOT JUDGED", KINDS[outcome]),
        sentence=sentence(report),
        reason=reason(report),
        counts=_counts(report),
        columns=tuple((group.name, group.primary, group.margin_text) for group in report.groups),
        modes=tuple(mode_row(report, run, label) for run, label in enumerate(report.modes)),
        concerns=tuple(_concerns(report)),
        panels=tuple(_panel(report, group, budget) for group in report.groups),
        speed=tuple(map(Drawing, bench_charts(report.benches, names))),
        speed_bars=tuple(bench_bars(report.benches, names)),
        speed_runs=tuple(Run(names.index(name), name) for name in names if name in timed),
        speed_tables=tuple(
            table
            for bench in report.benches
            for table in (bench_table(bench), bench_problems(bench))
            if table.rows
        ),
        facts=(settings(report), hashes(report), machines(report)),
    )


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


def _panel(report: Report, group: Group, budget: Budget) -> Panel:
    table = _for_screen(matrix(report, group))
    scale = scale_of(group)
    rows = []
    for entry, row in zip(group.entries, table.rows, strict=True):
        change, low, high = change_of(group, entry)
        badge = badge_of(entry)
        picture = Markup()
        if scale is not None and change is not None:
            picture = forest(scale, change, (low, high), group.margin, badge.kind)
        why = entry.cell.reason if entry.cell else entry.problem
        rows.append(
            MatrixRow(_run(entry), other_precision(entry), badge, row, picture, why, bar_of(entry))
        )
    panels, albums = _of_task(group, budget)
    tables = (figures(group), changes(group), flips(group), drifts(group), stages(group))
    return Panel(
        key=group.key,
        name=group.name,
        intro=_intro(group),
        matrix=table,
        rows=tuple(rows),
        runs=tuple(_run(entry) for entry, _ in group.ran),
        charts=tuple(
            Drawing(replace(panel, key=f"{group.key}-{panel.key}"))
            for panel in panels
            if isinstance(panel, Chart)
        ),
        threshold=next((_slider(panel) for panel in panels if isinstance(panel, Thresholds)), None),
        galleries=tuple(albums),
        tables=tuple(table for table in tables if table.rows),
        notes=tuple(panel.text for panel in panels if isinstance(panel, Note)),
        margin=group.margin is not None,
        stages=stage_bars(group),
    )


def _of_task(group: Group, budget: Budget) -> tuple[tuple[Plain, ...], list[Album]]:
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
        return f"{result.task.upper()} on {data.name}: {counts}."
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
