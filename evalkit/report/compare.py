"""The tables of ``evalkit compare``."""

from __future__ import annotations

from evalkit.compare import Comparison, DriftSummary, MetricChange
from evalkit.compare_scores import Flips
from evalkit.report.common import percent
from evalkit.report.table import text_table

_WORST_SHOWN = 5


def describe(comparison: Comparison) -> str:
    """Lay a comparison out for the terminal."""
    parts = [_head(comparison), _metrics(comparison)]
    if comparison.flips:
        parts.append(_flips(comparison.flips))
    if comparison.drift:
        parts.append(_drift(comparison.drift))
    parts.append("\n".join(f"note: {note}" for note in comparison.notes))
    return "\n\n".join(part for part in parts if part)


def _head(comparison: Comparison) -> str:
    lines = [
        f"{comparison.protocol} on {comparison.dataset}",
        f"baseline   {comparison.baseline}",
        f"candidate  {comparison.candidate}",
    ]
    rows = [[name, *values] for name, values in comparison.differs.items()]
    table = text_table(["differs", "baseline", "candidate"], rows, left=3) if rows else ""
    return "\n".join(lines) + (f"\n\n{table}" if table else "\nno setting differs")


def _metrics(comparison: Comparison) -> str:
    rows = [_metric_row(change) for change in comparison.metrics]
    header = ["metric", "baseline", "candidate", "difference", "95 % paired", "p", ""]
    return text_table(header, rows)


def _metric_row(change: MetricChange) -> list[str]:
    rate = not change.name.startswith("xnorm")
    show = percent if rate else lambda value: "-" if value is None else f"{value:.4f}"
    if change.name.startswith("far@"):
        show = _scientific
    held = change.interval
    bounds = "-" if held is None else f"{_signed(held.low, change)}..{_signed(held.high, change)}"
    return [
        change.name,
        show(change.baseline),
        show(change.candidate),
        "-" if change.difference is None else _signed(change.difference, change),
        bounds,
        "" if change.p_value is None else f"{change.p_value:.3g}",
        "few" if "too_few_false_accepts" in change.flags else "",
    ]


def _signed(value: float, change: MetricChange) -> str:
    if change.name.startswith("far@"):
        return f"{value:+.1e}"
    return f"{value:+.4f}" if change.name.startswith("xnorm") else f"{100 * value:+.2f}"


def _scientific(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _flips(flips: tuple[Flips, ...]) -> str:
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
    changed = [flip for flip in flips if flip.examples]
    if not changed:
        return table
    chosen = changed[-1] if len(changed) == 1 else changed[len(changed) // 2]
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
    lines += [f"  {worst.name}: {worst.cosine:.6f}" for worst in drifts[0].worst[:_WORST_SHOWN]]
    return text_table(header, rows) + "\n" + "\n".join(lines)


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"
