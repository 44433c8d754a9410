"""Modes at a glance: their outcomes, what each gains and loses, and what must not be missed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from evalkit.report.page.chart import run_class
from evalkit.report.page.gather import Entry, Group, Report
from evalkit.report.page.tables import change_of, drift_p1
from evalkit.report.signoff_tables import TITLES
from evalkit.tasks.panels import letter
from evalkit.verdict.signoff.record import Cell

KINDS = {
    "pass": "pass", "fail": "fail", "inconclusive": "open", "cannot_run": "open",
    "not_run": "none", "reference": "none", None: "none",
}  # fmt: skip
"""Colours of outcomes."""

SIGNS = {"pass": "✓", "fail": "✕", "open": "?", "none": "○"}


@dataclass(frozen=True, slots=True)
class Badge:
    """An outcome as a word, a sign and a colour: no reader needs the colour."""

    text: str
    kind: str

    @property
    def sign(self) -> str:
        """The sign before the word."""
        return SIGNS[self.kind]


@dataclass(frozen=True, slots=True)
class Run:
    """How a run is shown everywhere."""

    run: int
    label: str

    @property
    def letter(self) -> str:
        """Its letter."""
        return letter(self.run)

    @property
    def classes(self) -> str:
        """Its colour and dashes."""
        return run_class(self.run)


@dataclass(frozen=True, slots=True)
class Alarm:
    """What must show at a glance, and its colour: red is for embeddings wrecked or limits broken.

    Attributes
    ----------
    kind : {"fail", "open"}
    """

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Glance:
    """One mode in one protocol, at a glance."""

    badge: Badge
    value: str
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True, slots=True)
class ModeRow:
    """One mode at a glance; `cells` holds None where a protocol does not have the mode."""

    run: Run
    badge: Badge
    cells: tuple[Glance | None, ...]
    speed: str
    size: str


def badge_of(entry: Entry) -> Badge:
    """Return the outcome of a run."""
    if entry.cell is not None:
        return Badge(TITLES[entry.cell.outcome], KINDS[entry.cell.outcome])
    return Badge("reference" if entry.reference else "not judged", "none")


def mode_row(report: Report, run: int, label: str) -> ModeRow:
    """Return one mode over all protocols."""
    entries = [
        next((entry for entry in group.entries if entry.label == label), None)
        for group in report.groups
    ]
    cells = tuple(
        None if entry is None else _glance(group, entry)
        for group, entry in zip(report.groups, entries, strict=True)
    )
    outcomes = [entry.cell.outcome for entry in entries if entry and entry.cell]
    worst = ("fail", "inconclusive", "cannot_run", "not_run", "pass", "reference")
    outcome = next((o for o in worst if o in outcomes), None)
    text = TITLES[outcome] if outcome else ("reference" if label == report.reference else "")
    return ModeRow(
        Run(run, label),
        Badge(text, KINDS[outcome]),
        cells,
        _beside(_rate, report, label, "images/s"),
        _beside(_size, report, label, "MiB"),
    )


def _glance(group: Group, entry: Entry) -> Glance:
    metric = entry.metric(group.primary)
    change, _, _ = change_of(group, entry)
    value = (
        ""
        if metric is None or metric.value is None
        else f"{100 * metric.value:.2f}\N{NO-BREAK SPACE}%"
    )
    if change is not None:
        value += f" ({100 * change:+.2f})"
    return Glance(badge_of(entry), value, tuple(alarms_of(entry)))


def alarms_of(entry: Entry) -> Iterable[Alarm]:
    """Say what must show at a glance: limits broken, a precision that did not run."""
    cell = entry.cell
    for limit in cell.limits if cell else ():
        if limit.outcome in {"fail", "flag"}:
            shown = "" if limit.value is None else f" {limit.value:.4g}"
            yield Alarm(f"{limit.name.replace('drift cosine', 'drift')}{shown}", "fail")
    # Some kernels of an int8 model may run in fp32: the page says so without an alarm.
    if cell and cell.run and not cell.run.ran.precision_ran.startswith(cell.precision):
        yield Alarm(f"ran {cell.run.ran.precision_ran}", "open")
    lowest = drift_p1(entry)
    if cell is None and lowest is not None and lowest < 0.9:
        yield Alarm(f"drift p1 {lowest:.4g}", "fail")


def bar_of(entry: Entry) -> str:
    """Return the colour of the bar beside a run with alarms, never red where it passed."""
    kinds = {alarm.kind for alarm in alarms_of(entry)}
    if "fail" in kinds and badge_of(entry).kind != "pass":
        return "fail"
    return "open" if kinds else ""


def _rate(report: Report, label: str | None) -> tuple[object, float] | None:
    """Return images a second and where they were measured: only like is set by like."""
    for group in report.groups:
        for entry, result in group.ran:
            timing = report.timing(entry)
            if entry.label == label and timing and timing.images_per_second:
                return (group.key, timing.batch_size), timing.images_per_second.median
            if entry.label == label and result.throughput:
                return group.key, result.throughput
    return None


def _size(report: Report, label: str | None) -> tuple[object, float] | None:
    cells: tuple[Cell, ...] = report.record.cells if report.record else ()
    for cell in cells:
        if cell.mode == label and cell.run is not None and cell.run.model_bytes:
            return cell.protocol, float(cell.run.model_bytes)
    for group in report.groups:
        for entry, _ in group.ran:
            timing = report.timing(entry)
            if entry.label == label and timing and timing.model_mb:
                return group.key, timing.model_mb
    return None


def _beside(
    measure: Callable[[Report, str | None], tuple[object, float] | None],
    report: Report,
    label: str,
    unit: str,
) -> str:
    """Return a figure as a multiple of the reference's, or as it is where there is no reference."""
    value = measure(report, label)
    if value is not None and report.reference is None:
        return f"{value[1]:,.1f}\N{NO-BREAK SPACE}{unit}"
    reference = measure(report, report.reference)
    if value is None or reference is None or value[0] != reference[0]:
        return "-"
    return f"{value[1] / reference[1]:.2f} x"
