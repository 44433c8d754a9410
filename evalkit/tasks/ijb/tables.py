"""The tables of a release's result."""

from __future__ import annotations

from evalkit.core.results import Metric, Result
from evalkit.tasks.figures import rate_name
from evalkit.tasks.tables import Summary, Table, few, interval, percent, ratio, threshold

_PUBLISHED = frozenset({1e-5, 1e-4})


def summary(result: Result) -> Summary:
    """Lay a result out."""
    counts = ", ".join(f"{count:,} {name}" for name, count in result.dataset.counts.items())
    switches = result.settings
    fusion = "fusion: unknown, made elsewhere"
    if switches["keep_norm"] is not None:
        fusion = (
            f"fusion: norm {'kept' if switches['keep_norm'] else 'removed'}, detector score "
            f"{'on' if switches['detector_score'] else 'off'}, flip {switches['flip']}"
        )
    return Summary(
        dataset=f"{result.dataset.name}: {counts}",
        rules=f"{fusion}; rule {switches['rule']}",
        partial="a quick look at some subjects",
        tables=(_tar_table(result), _identification_table(result)),
    )


def _tar_table(result: Result) -> Table:
    rows = [
        (
            ("> " if metric.at["target"] in _PUBLISHED else "  ")
            + rate_name(metric.at["target"] or 0),
            percent(metric.value),
            f"{metric.at['achieved']:.2e}",
            threshold(metric.at["similarity"]),
            ratio(metric, "true_accepts", "genuine"),
            ratio(metric, "false_accepts", "impostors"),
            interval(metric),
            few(metric),
        )
        for metric in result.metrics
        if metric.figure == "tar"
    ]
    notes = [">: the points that are usually published"]
    if any(row[-1] for row in rows):
        notes.append("few: under 30 false accepts expected at that FAR, too few to gate on")
    if result.settings["rule"] == "interpolated":
        notes.append("TAR lies between two thresholds; achieved and accepted are of the threshold")
    header = ("  FAR", "TAR %", "achieved", "threshold", "accepted", "false accepts", "95 %", "")
    return Table(header, rows, notes=notes)


def _identification_table(result: Result) -> Table:
    rows = [_identification_row(m) for m in result.metrics if m.figure in {"tpir", "rank"}]
    header = ("1:N", "%", "achieved", "threshold", "found", "false positives", "")
    return Table(header, rows, title=f"rule {result.settings.get('identification_rule')}")


def _identification_row(metric: Metric) -> tuple[str, ...]:
    achieved = metric.at.get("achieved")
    hits = "hits" if metric.figure == "rank" else "true_positives"
    return (
        metric.name,
        percent(metric.value),
        "" if achieved is None else f"{achieved:.4f}",
        threshold(metric.at["similarity"]) if "similarity" in metric.at else "",
        ratio(metric, hits, "mated"),
        ratio(metric, "false_positives", "searches"),
        few(metric),
    )
