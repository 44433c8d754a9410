"""The tables of ``evalkit compare``."""

from __future__ import annotations

from evalkit.report.table import text_table
from evalkit.report.verdict import printable
from evalkit.tasks import TASKS, hidden_parts_of, title_of
from evalkit.tasks.tables import percent
from evalkit.verdict.compare import Comparison, MetricChange
from evalkit.verdict.drift import DriftSummary
from evalkit.verdict.flips import Flips

_WORST_SHOWN = 5
_WIDEST = 24
_FINE = 0.005
_NO_WIDTH = (
    "no width: the figure changed in no draw; the truth may differ by what these data never showed"
)


def describe(comparison: Comparison, *, everything: bool = False) -> str:
    """Lay a comparison out for the terminal; hidden parts only with `everything`."""
    parts = [_head(comparison), _metrics(comparison, everything)]
    if comparison.flips:
        parts.append(_flips(comparison.flips, _primary(comparison)))
    if comparison.drift:
        parts.append(_drift(comparison.drift))
    parts.append("\n".join(f"note: {printable(note)}" for note in comparison.notes))
    return "\n\n".join(part for part in parts if part)


def _head(comparison: Comparison) -> str:
    lines = [
        f"{title_of(comparison.task)} on {printable(comparison.dataset)}",
        f"baseline   {printable(comparison.baseline)}",
        f"candidate  {printable(comparison.candidate)}",
    ]
    rows = [[name, *map(_short, values)] for name, values in comparison.differs.items()]
    table = text_table(["differs", "baseline", "candidate"], rows, left=3) if rows else ""
    return "\n".join(lines) + (f"\n\n{table}" if table else "\nno setting differs")


def _metrics(comparison: Comparison, everything: bool) -> str:
    many = frozenset() if everything else hidden_parts_of(comparison.task)
    shown = [change for change in comparison.metrics if many.isdisjoint(change.part)]
    own = [change for change in shown if change.rule != "baseline_threshold"]
    carried = [change for change in comparison.metrics if change.rule == "baseline_threshold"]
    header = ["metric", "baseline", "candidate", "difference", "95 % paired", "McNemar p", ""]
    rows = [_metric_row(change) for change in own]
    if not any(row[5] for row in rows):
        header, rows = [*header[:5], ""], [[*row[:5], row[6]] for row in rows]
    tables = [text_table(header, rows)]
    if carried:
        header = ["at the baseline's threshold", *header[1:5], ""]
        rows = [_metric_row(change) for change in carried]
        tables.append(text_table(header, [[*row[:5], row[6]] for row in rows]))
    if any(change.interval for change in shown):
        tables[0] += f"\n{TASKS.get(comparison.task).reading}"
        if any(_no_width(change) for change in shown):
            tables[0] += f"\n{_NO_WIDTH}"
    hidden = len(comparison.metrics) - len(shown)
    if hidden:
        parts = " and ".join(sorted(many))
        tables[-1] += f"\n{hidden} figures by {parts} are not shown: --all shows them"
    return "\n\n".join(tables)


def _metric_row(change: MetricChange) -> list[str]:
    rate = change.kind != "norm"
    show = percent if rate else lambda value: "-" if value is None else f"{value:.4f}"
    if change.kind == "small rate":
        show = _scientific
    bounds, ends = "-", change.interval
    if ends is not None:
        bounds = f"{_signed(ends.low, change)}..{_signed(ends.high, change)}"
    if _no_width(change):
        bounds = "no width"
    return [
        f"{change.figure}, threshold of {change.threshold_of}"
        if change.threshold_of
        else change.name,
        show(change.baseline),
        show(change.candidate),
        "-" if change.difference is None else _signed(change.difference, change),
        bounds,
        "" if change.p_value is None else f"{change.p_value:.3g}",
        "few" if change.too_few else "",
    ]


def _no_width(change: MetricChange) -> bool:
    return change.interval is not None and change.interval.low == change.interval.high


def _signed(value: float, change: MetricChange) -> str:
    if change.kind == "small rate":
        return f"{value:+.1e}"
    if change.kind == "norm":
        return f"{value:+.4f}"
    points = 100 * value
    return f"{points:+.2f}" if points == 0 or abs(points) >= _FINE else f"{points:+.4f}"


def _scientific(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _short(value: str) -> str:
    """Cut hashes and the like; the comparison's file has them whole."""
    shown = printable(value)
    return shown if len(shown) <= _WIDEST else f"{shown[: _WIDEST - 3]}..."


def _primary(comparison: Comparison) -> str | None:
    """Return the hardest metric with flipped decisions that has enough data to trust."""
    changed = {flip.metric for flip in comparison.flips if flip.examples}
    few = {m.name for m in comparison.metrics if m.too_few}
    ordered = [m.name for m in comparison.metrics if m.name in changed]
    return next((name for name in ordered if name not in few), ordered[0] if ordered else None)


def _flips(flips: tuple[Flips, ...], primary: str | None) -> str:
    rows = [
        [
            flip.metric,
            flip.thresholds,
            f"{flip.genuine_lost:,}",
            f"{flip.genuine_gained:,}",
            f"{flip.impostors_let_in:,}",
            f"{flip.impostors_kept_out:,}",
        ]
        for flip in flips
    ]
    header = ["decisions", "threshold", "genuine lost", "gained", "impostors in", "out"]
    table = text_table(header, rows, left=2)
    chosen = next((flip for flip in flips if flip.examples and flip.metric == primary), None)
    if chosen is None:
        return table
    lines = [f"largest changes at {chosen.metric}, threshold: {chosen.thresholds}"]
    for pair in chosen.examples[:_WORST_SHOWN]:
        kind = "genuine" if pair.genuine else "impostor"
        now = "accepted" if pair.accepted else "refused"
        scores = " -> ".join(
            "-" if s is None else f"{s:.4f}" for s in (pair.baseline, pair.candidate)
        )
        lines.append(f"  {pair.pair} ({kind}): {scores}, now {now}")
    return table + "\n" + "\n".join(lines)


def _drift(drifts: tuple[DriftSummary, ...]) -> str:
    rows = [
        [
            drift.view,
            f"{drift.samples:,}",
            _cosine(drift.cosine_mean),
            _cosine(drift.cosine_p1),
            _cosine(drift.cosine_min),
            f"{drift.largest_absolute:.2e}",
            "inf" if drift.largest_relative is None else f"{drift.largest_relative:.2e}",
            f"{drift.atol_needed:.2e}",
            f"{drift.lost}/{drift.gained}",
        ]
        for drift in drifts
    ]
    header = [
        "drift", "samples", "cosine mean", "1st pct", "min", "max abs", "max rel",
        f"atol at rtol {drifts[0].rtol:g}", "lost/gained",
    ]  # fmt: skip
    lines = [f"lowest cosines ({drifts[0].view}):"]
    lines += [
        f"  {printable(worst.name)}: {worst.cosine:.6f}" for worst in drifts[0].worst[:_WORST_SHOWN]
    ]
    return text_table(header, rows) + "\n" + "\n".join(lines)


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"
