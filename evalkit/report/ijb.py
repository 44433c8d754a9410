"""The table at the end of ``evalkit ijbc``."""

from __future__ import annotations

from evalkit.report.table import text_table
from evalkit.results import Metric, Result

_HEADLINE = frozenset({1e-5, 1e-4})


def describe(result: Result) -> str:
    """Lay a result out for the terminal."""
    parts = [_head(result), _tar_table(result)]
    if any(metric.name.startswith("tpir") for metric in result.metrics):
        parts.append(_identification_table(result))
    parts.append(_stage_table(result))
    parts.append(_foot(result))
    return "\n\n".join(part for part in parts if part)


def _head(result: Result) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in result.dataset.counts.items())
    ran = result.ran
    threads = f", {ran.threads} threads" if ran.threads else ""
    switches = result.settings
    fusion = (
        f"fusion: norm {'kept' if switches['keep_norm'] else 'removed'}, detector score "
        f"{'on' if switches['detector_score'] else 'off'}, flip {switches['flip']}"
    )
    lines = [
        f"{result.dataset.name}: {counts}",
        f"{result.model.name} on {ran.backend} {ran.version}, {ran.device}, "
        f"{ran.precision_requested} (ran: {ran.precision_ran}){threads}".replace("  ", " "),
        f"{fusion}; rule {switches['rule']}",
    ]
    if result.status == "partial":
        lines.insert(1, "PARTIAL: a quick look at some subjects; no gate accepts it")
    return "\n".join(lines)


def _tar_table(result: Result) -> str:
    metrics = [metric for metric in result.metrics if metric.name.startswith("tar@")]
    rows = [
        [
            ("> " if metric.at["target"] in _HEADLINE else "  ") + f"{metric.at['target']:.0e}",
            _percent(metric.value),
            f"{metric.at['far']:.2e}",
            f"{metric.at['threshold']:.5f}",
            f"{metric.counts['true_accepts']:,}/{metric.counts['genuine']:,}",
            f"{metric.counts['false_accepts']:,}/{metric.counts['impostors']:,}",
            _interval(metric),
            "few" if "too_few_false_accepts" in metric.flags else "",
        ]
        for metric in metrics
    ]
    header = ["  FAR", "TAR %", "achieved", "threshold", "accepted", "false accepts", "95 %", ""]
    legend = ""
    if any(row[-1] for row in rows):
        legend = "\nfew: under 30 false accepts expected at that FAR, too few to gate on"
    return text_table(header, rows) + legend


def _identification_table(result: Result) -> str:
    rows = []
    for metric in result.metrics:
        if metric.name.startswith("tpir@"):
            pairs = ("true_positives", "mated"), ("false_positives", "searches")
            found, false = (
                f"{metric.counts[a]:,}/{metric.counts[b]:,}" if a in metric.counts else ""
                for a, b in pairs
            )
            achieved = metric.at.get("fpir")
            threshold = metric.at.get("threshold")
            rows.append(
                [
                    metric.name,
                    _percent(metric.value),
                    f"{achieved:.4f}" if achieved is not None else "",
                    f"{threshold:.5f}" if threshold is not None else "",
                    found,
                    false,
                    "few" if "too_few_false_accepts" in metric.flags else "",
                ]
            )
        elif metric.name.startswith("rank-"):
            hits = f"{metric.counts['hits']:,}/{metric.counts['mated']:,}"
            rows.append([metric.name, _percent(metric.value), "", "", hits, "", ""])
    header = ["1:N", "%", "achieved", "threshold", "found", "false positives", ""]
    return f"rule {_identification_rule(result)}\n" + text_table(header, rows)


def _identification_rule(result: Result) -> str:
    return str(result.settings.get("identification_rule", ""))


def _stage_table(result: Result) -> str:
    total = sum(stage.seconds for stage in result.stages) or 1.0
    rows = []
    for stage in result.stages:
        note = f"{stage.reused_items:,} from the store" if stage.reused_items else ""
        items = f"{stage.items:,}" if stage.items else ""
        rows.append(
            [stage.name, f"{stage.seconds:.2f}", f"{stage.seconds / total:.0%}", items, note]
        )
    return text_table(["stage", "seconds", "share", "items", ""], rows)


def _foot(result: Result) -> str:
    speed = ""
    if result.throughput is not None:
        speed = f"inference {result.throughput:,.1f} faces/s, "
    lines = [
        f"{speed}wall {result.wall_seconds:.1f} s, peak memory {result.peak_memory_mb:,.0f} MiB, "
        f"failures to enrol: {len(result.failures_to_enrol)}"
    ]
    lines += [f"  {failure.name}: {failure.reason}" for failure in result.failures_to_enrol[:5]]
    if len(result.failures_to_enrol) > 5:
        lines.append(f"  ... and {len(result.failures_to_enrol) - 5} more in the result file")
    lines += [f"warning: {warning}" for warning in result.warnings]
    lines += [f"note: {note}" for note in result.ran.notes]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _interval(metric: Metric) -> str:
    held = metric.interval
    return "-" if held is None else f"{100 * held.low:.2f}..{100 * held.high:.2f}"
