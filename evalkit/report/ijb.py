"""The table at the end of ``evalkit ijbc``."""

from __future__ import annotations

from evalkit.core.results import Result
from evalkit.report.common import foot, model_line, stage_table
from evalkit.report.table import text_table
from evalkit.tasks.figures import rate_name
from evalkit.tasks.tables import interval, percent, threshold

_HEADLINE = frozenset({1e-5, 1e-4})


def describe(result: Result) -> str:
    """Lay a result out for the terminal."""
    parts = [_head(result), _tar_table(result)]
    if any(metric.figure == "tpir" for metric in result.metrics):
        parts.append(_identification_table(result))
    parts += [stage_table(result), foot(result)]
    return "\n\n".join(part for part in parts if part)


def _head(result: Result) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in result.dataset.counts.items())
    switches = result.settings
    fusion = "fusion: unknown, made elsewhere"
    if switches["keep_norm"] is not None:
        fusion = (
            f"fusion: norm {'kept' if switches['keep_norm'] else 'removed'}, detector score "
            f"{'on' if switches['detector_score'] else 'off'}, flip {switches['flip']}"
        )
    lines = [
        f"{result.dataset.name}: {counts}",
        model_line(result),
        f"{fusion}; rule {switches['rule']}",
    ]
    if result.status == "partial":
        lines.insert(1, "PARTIAL: a quick look at some subjects; no gate accepts it")
    return "\n".join(lines)


def _tar_table(result: Result) -> str:
    metrics = [metric for metric in result.metrics if metric.figure == "tar"]
    rows = [
        [
            ("> " if metric.at["target"] in _HEADLINE else "  ")
            + rate_name(metric.at["target"] or 0),
            percent(metric.value),
            f"{metric.at['achieved']:.2e}",
            threshold(metric.at["similarity"]),
            f"{metric.counts['true_accepts']:,}/{metric.counts['genuine']:,}",
            f"{metric.counts['false_accepts']:,}/{metric.counts['impostors']:,}",
            interval(metric),
            "few" if "too_few_false_accepts" in metric.flags else "",
        ]
        for metric in metrics
    ]
    header = ["  FAR", "TAR %", "achieved", "threshold", "accepted", "false accepts", "95 %", ""]
    legend = "\n>: the points that are usually published"
    if any(row[-1] for row in rows):
        legend += "\nfew: under 30 false accepts expected at that FAR, too few to gate on"
    if result.settings["rule"] == "interpolated":
        legend += "\nTAR lies between two thresholds; achieved and accepted are of the threshold"
    return text_table(header, rows) + legend


def _identification_table(result: Result) -> str:
    rows = []
    for metric in result.metrics:
        if metric.figure == "tpir":
            pairs = ("true_positives", "mated"), ("false_positives", "searches")
            found, false = (
                f"{metric.counts[a]:,}/{metric.counts[b]:,}" if a in metric.counts else ""
                for a, b in pairs
            )
            achieved = metric.at.get("achieved")
            rows.append(
                [
                    metric.name,
                    percent(metric.value),
                    f"{achieved:.4f}" if achieved is not None else "",
                    threshold(metric.at["similarity"]) if "similarity" in metric.at else "",
                    found,
                    false,
                    "few" if "too_few_false_accepts" in metric.flags else "",
                ]
            )
        elif metric.figure == "rank":
            hits = f"{metric.counts['hits']:,}/{metric.counts['mated']:,}"
            rows.append([metric.name, percent(metric.value), "", "", hits, "", ""])
    header = ["1:N", "%", "achieved", "threshold", "found", "false positives", ""]
    return f"rule {result.settings['identification_rule']}\n" + text_table(header, rows)
