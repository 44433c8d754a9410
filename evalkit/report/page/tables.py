"""The tables of a report, the same for the page, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalkit.bench import BenchResult, Timing
from evalkit.core.results import TOO_FEW, Metric
from evalkit.report.bench import HEADER as BENCH_HEADER
from evalkit.report.bench import row as bench_row
from evalkit.report.page.gather import Entry, Group, Report
from evalkit.report.signoff_tables import TITLES, Column, facts_of, texts, titles
from evalkit.tasks import hidden_parts_of
from evalkit.tasks.figures import TOO_FEW_FALSE_ACCEPTS
from evalkit.tasks.panels import letter
from evalkit.tasks.tables import Table, interval
from evalkit.verdict.compare import MetricChange

MATRIX = (
    Column("run", "run"),
    Column("verdict", "verdict"),
    Column("figure %", "figure", ".2f", True),
    Column("95 %", "interval"),
    Column("change, points", "change", "+.3f", True),
    Column("bounds, points", "bounds"),
    Column("margin, points", "margin", ".3g", True),
    Column("images/s", "rate", ",.1f"),
    Column("p50 ms", "p50", ",.2f"),
    Column("p90 ms", "p90", ",.2f"),
    Column("p99 ms", "p99", ",.2f"),
    Column("batch", "batch"),
    Column("model MB", "model_mb", ",.2f"),
    Column("memory MiB", "memory", ",.0f"),
    Column("drift p1", "drift", ".6f"),
    Column("FMR ratio", "fmr_ratio", ".3f"),
    Column("FNMR change, points", "fnmr_change", "+.3f", True),
)


def group_tables(report: Report, group: Group) -> list[Table]:
    """Return a group's tables: the matrix first."""
    tables = [matrix(report, group), figures(group), changes(group), flips(group), drifts(group)]
    return [table for table in (*tables, stages(group)) if table.rows]


def matrix(report: Report, group: Group) -> Table:
    """Return accuracy, speed and size of each run."""
    rows = tuple(
        tuple(texts(MATRIX, _matrix_facts(report, group, entry), "-")) for entry in group.entries
    )
    notes = [f"Figure: {group.primary}"]
    if group.margin_text:
        level = report.record.plan.statistics.level if report.record else 0.95
        notes.append(f"margin {group.margin_text}; bounds are one-sided, each at {100 * level:g} %")
    elif any(entry.comparison for entry in group.entries):
        notes.append("bounds: the paired 95 % interval of the change")
    if not report.benches:
        notes.append("images/s: of the run itself, not of a benchmark")
    else:
        notes.append(
            "images/s and latency: of evalkit bench; without a measurement, of the run itself"
        )
    return Table(titles(MATRIX), rows, f"{group.name}: matrix", 2, ("; ".join(notes) + ".",))


def _matrix_facts(report: Report, group: Group, entry: Entry) -> dict[str, Any]:
    """Return what is known of a run: its result's figures, and what was measured beside it."""
    metric, result, timing = entry.metric(group.primary), entry.result, report.timing(entry)
    change, low, high = change_of(group, entry)
    other = other_precision(entry)
    facts: dict[str, Any] = facts_of(entry.cell) if entry.cell else {}
    facts |= {
        "run": f"{letter(entry.run)} {entry.label}{f' ({other})' if other else ''}",
        "verdict": verdict_of(entry),
        "figure": metric.value if metric else None,
        "interval": interval(metric) if metric else None,
        "change": change,
        "bounds": None if low is None or high is None else f"{_points(low)}..{_points(high)}",
        "margin": group.margin,
        "rate": result.throughput if result else None,
        "memory": result.peak_memory_mb if result else None,
        "drift": drift_p1(entry),
    }
    return facts | (_timing_facts(timing, facts) if timing else {})


def _timing_facts(timing: Timing, facts: Mapping[str, Any]) -> dict[str, Any]:
    rate, latency = timing.images_per_second, timing.latency_ms
    measured: dict[str, Any] = {"batch": timing.batch_size}
    if rate is not None:
        measured["rate"] = rate.median
    if latency is not None:
        measured |= {name: getattr(latency, name) for name in ("p50", "p90", "p99")}
    if facts.get("model_mb") is None and timing.model_mb is not None:
        measured["model_mb"] = int(timing.model_mb * 1024 * 1024) / 1e6
    return measured


def other_precision(entry: Entry) -> str:
    """Say what ran where it differs from the precision in the run's name."""
    ran = entry.result.ran if entry.result else None
    if ran is None or ran.precision_ran == ran.precision_requested:
        return ""
    return f"ran: {ran.precision_ran}"


def verdict_of(entry: Entry) -> str:
    """Return the verdict on a run, in a word."""
    if entry.cell is not None:
        return TITLES[entry.cell.outcome]
    return "reference" if entry.reference else "not judged"


def change_of(group: Group, entry: Entry) -> tuple[float | None, float | None, float | None]:
    """Return the change of the first figure against the reference, with its bounds."""
    if entry.cell is not None and entry.cell.test is not None:
        test = entry.cell.test
        return test.difference, test.low, test.high
    change = metric_change(entry, group.primary)
    if change is None:
        return None, None, None
    if change.interval is None:
        return change.difference, None, None
    return change.difference, change.interval.low, change.interval.high


def metric_change(entry: Entry, name: str) -> MetricChange | None:
    """Return the change of a figure against the reference, None where it was not compared."""
    changes = entry.comparison.metrics if entry.comparison else ()
    return next((change for change in changes if change.name == name), None)


def drift_p1(entry: Entry) -> float | None:
    """Return the lowest first percentile of the cosines to the reference."""
    views = entry.comparison.drift if entry.comparison else ()
    return min((d.cosine_p1 for d in views if d.cosine_p1 is not None), default=None)


def figures(group: Group) -> Table:
    """Return every figure of every run; the task's hidden parts are left to the results."""
    many = hidden_parts_of(group.task)
    entries = [entry for entry, _ in group.ran]
    names = dict.fromkeys(
        metric.name
        for _, result in group.ran
        for metric in result.metrics
        if many.isdisjoint(metric.part)
    )
    header = ["figure", "rule"]
    for entry in entries:
        header += [f"{letter(entry.run)} {entry.label}", "95 %"]
    rows = []
    for name in names:
        metrics = [entry.metric(name) for entry in entries]
        rule = next((metric.rule for metric in metrics if metric), "")
        cells = [name, rule]
        for metric in metrics:
            cells += [_value(metric), _interval(metric)]
        rows.append(tuple(cells))
    few = dict.fromkeys(m.too_few for _, result in group.ran for m in result.metrics if m.too_few)
    what = ", or ".join(few) or TOO_FEW[TOO_FEW_FALSE_ACCEPTS]
    note = f"Rates in per cent. *: fewer than 30 {what}, too few to judge on."
    return Table(tuple(header), tuple(rows), f"{group.name}: figures", 2, (note,))


def _value(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "-"
    few = "*" if metric.too_few else ""
    if metric.kind == "norm":
        return f"{metric.value:.4f}"
    return f"{100 * metric.value:.3f}{few}"


def _interval(metric: Metric | None) -> str:
    return "-" if metric is None else interval(metric)


def changes(group: Group) -> Table:
    """Return the change of every figure that has a paired interval or a test."""
    rows = [
        (
            f"{letter(entry.run)} {entry.label}",
            f"{change.figure}, reference's threshold of {change.threshold_of}"
            if change.threshold_of
            else change.name,
            _rate(change, change.baseline),
            _rate(change, change.candidate),
            _signed(change, change.difference),
            "-"
            if change.interval is None
            else f"{_signed(change, change.interval.low)}..{_signed(change, change.interval.high)}",
            "" if change.p_value is None else f"{change.p_value:.3g}",
        )
        for entry in group.entries
        for change in (entry.comparison.metrics if entry.comparison else ())
        if change.interval is not None or change.p_value is not None
    ]
    header = ("run", "figure", "reference", "value", "change", "95 % paired", "McNemar p")
    note = "Rates in per cent, changes in points; a FAR as it is."
    return Table(header, tuple(rows), f"{group.name}: changes against the reference", 2, (note,))


def _rate(change: MetricChange, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3e}" if change.kind == "small rate" else f"{100 * value:.3f}"


def _signed(change: MetricChange, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.1e}" if change.kind == "small rate" else f"{100 * value:+.3f}"


def flips(group: Group) -> Table:
    """Return the decisions that differ from the reference's."""
    rows = [
        (
            f"{letter(entry.run)} {entry.label}",
            flip.metric,
            "its own" if flip.thresholds == "own" else "the reference's",
            f"{flip.genuine_lost:,}",
            f"{flip.genuine_gained:,}",
            f"{flip.impostors_let_in:,}",
            f"{flip.impostors_kept_out:,}",
        )
        for entry in group.entries
        for flip in (entry.comparison.flips if entry.comparison else ())
    ]
    header = (
        "run", "at", "threshold", "genuine lost", "genuine gained", "impostors let in",
        "impostors kept out",
    )  # fmt: skip
    return Table(header, tuple(rows), f"{group.name}: decisions that flipped", 3)


def drifts(group: Group) -> Table:
    """Return how far the embeddings lie from the reference's."""
    rows = [
        (
            f"{letter(entry.run)} {entry.label}",
            drift.view,
            f"{drift.samples:,}",
            _number(drift.cosine_mean, ".6f"),
            _number(drift.cosine_p1, ".6f"),
            _number(drift.cosine_min, ".6f"),
            f"{drift.largest_absolute:.2e}",
            "infinite" if drift.largest_relative is None else f"{drift.largest_relative:.2e}",
            f"{drift.atol_needed:.2e}",
            f"{drift.lost}/{drift.gained}",
            "; ".join(f"{worst.name} {worst.cosine:.4f}" for worst in drift.worst[:3]),
        )
        for entry in group.entries
        for drift in (entry.comparison.drift if entry.comparison else ())
    ]
    header = (
        "run", "view", "images", "cosine mean", "1st percentile", "lowest", "largest abs.",
        "largest rel.", "atol needed at rtol 1e-3", "lost/gained", "furthest images",
    )  # fmt: skip
    return Table(header, tuple(rows), f"{group.name}: embedding drift", 2)


def stages(group: Group) -> Table:
    """Return the busy seconds of each stage of each run."""
    names = dict.fromkeys(stage.name for _, result in group.ran for stage in result.stages)
    rows = []
    for entry, result in group.ran:
        seconds = {stage.name: stage.seconds for stage in result.stages}
        rows.append(
            (
                f"{letter(entry.run)} {entry.label}",
                str(result.ran.batch_size or "-"),
                *(_number(seconds.get(name), ".2f") for name in names),
                f"{result.wall_seconds:.2f}",
            )
        )
    note = "Busy seconds of one worker. Of stored outputs, those of the run that computed them."
    header = ("run", "batch", *names, "wall")
    return Table(header, tuple(rows), f"{group.name}: stage timings, seconds", 1, (note,))


def bench_table(bench: BenchResult) -> Table:
    """Return a speed measurement."""
    rows = (tuple(bench_row(timing)) for timing in bench.timings if timing.problem is None)
    note = (
        f"{bench.repeats} rounds of at least {bench.seconds:g} s each; the modes take turns. "
        "*: of fewer than 100 runs, so it is close to the slowest run."
    )
    return Table(BENCH_HEADER, tuple(rows), f"speed of {bench.model}", 3, (note,))


def bench_problems(bench: BenchResult) -> Table:
    """Return what could not run, and why."""
    batches: dict[tuple[str, str], list[str]] = {}
    for timing in bench.timings:
        if timing.problem is not None:
            mode = f"{timing.backend}:{timing.precision}"
            batches.setdefault((mode, timing.problem), []).append(str(timing.batch_size))
    rows = tuple((mode, ", ".join(sizes), why) for (mode, why), sizes in batches.items())
    header = ("mode", "batch sizes", "why")
    return Table(header, rows, f"not measured of {bench.model}", 3)


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.3f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
