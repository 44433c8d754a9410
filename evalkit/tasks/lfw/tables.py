"""The tables of one set of pairs, and of several."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.core.results import Metric, Result
from evalkit.tasks.tables import Summary, Table, few, interval, percent, ratio, threshold

_FEW = "under 30 false accepts expected at that FAR"
_ACCURACY = ("accuracy %", "± std", "95 % pair-level", "threshold", "cosine")


def summary(result: Result) -> Summary:
    """Lay one set's result out."""
    counts = result.dataset.counts
    return Summary(
        dataset=f"{result.dataset.name}: {counts['pairs']:,} pairs ({counts['genuine']:,} genuine, "
        f"{counts['impostors']:,} impostors), sha256 {result.dataset.sha256[:12]}",
        rules=f"ten folds, {result.settings['folds']}; intervals are pair-level",
        partial="a quick look at some pairs",
        tables=(_accuracy_table(result), _rate_table(result), _scalar_table(result)),
    )


def several(results: Sequence[Result]) -> tuple[Table, ...]:
    """Lay the results of several sets out as one table of accuracies and one of rates."""
    rows = [
        (
            result.dataset.name,
            metric.rule + _mark(metric, result),
            *_accuracy(metric),
            f"{result.dataset.counts['pairs']:,}",
            str(len(result.failures_to_enrol)),
        )
        for result in results
        for metric in _of(result, "accuracy")
    ]
    header = ("set", "rule", *_ACCURACY, "pairs", "failed")
    return Table(header, rows, left=2), _rates_of_all(results)


def _rates_of_all(results: Sequence[Result]) -> Table:
    """Lay out each set's rates, with mirrored images and without."""
    lines = []
    for result in results:
        views: dict[str, list[Metric]] = {}
        for metric in _of(result, "val", "tar", "auc", "eer"):
            views.setdefault(metric.view, []).append(metric)
        for view, metrics in views.items():
            flip = result.settings["flip"] if view == "flip" else "none"
            lines.append((result.dataset.name, flip, metrics))
    names = [metric.name for metric in lines[0][2]]
    rows = [(name, flip, *map(_rate, metrics)) for name, flip, metrics in lines]
    any_few = any(few(metric) for _, _, metrics in lines for metric in metrics)
    header = ("set", "flip", *(f"{name} %" for name in names))
    return Table(header, rows, left=2, notes=(f"*: {_FEW}",) if any_few else ())


def _rate(metric: Metric) -> str:
    return percent(metric.value) + ("*" if few(metric) else "")


def _accuracy_table(result: Result) -> Table:
    rows = [
        (metric.rule + _mark(metric, result), *_accuracy(metric))
        for metric in _of(result, "accuracy")
    ]
    return Table(("rule", *_ACCURACY), rows)


def _accuracy(metric: Metric) -> tuple[str, ...]:
    spread = metric.at.get("population_std", metric.at.get("standard_error"))
    return (
        percent(metric.value, 3),
        percent(spread, 3),
        interval(metric),
        threshold(metric.at["distance"], 3),
        threshold(metric.at["similarity"], 3),
    )


def _mark(metric: Metric, result: Result) -> str:
    """Mark figures without mirrored images where there are others with them."""
    return "/no-flip" if metric.view != result.metrics[0].view else ""


def _rate_table(result: Result) -> Table:
    rows = [
        (
            metric.name,
            percent(metric.value),
            f"{metric.at['achieved']:.2e}",
            ratio(metric, "true_accepts", "genuine"),
            ratio(metric, "false_accepts", "impostors"),
            few(metric),
        )
        for metric in _of(result, "val", "tar")
    ]
    notes = (f"few: {_FEW}",) if any(row[-1] for row in rows) else ()
    return Table(("rate", "%", "achieved FAR", "accepted", "false accepts", ""), rows, notes=notes)


def _scalar_table(result: Result) -> Table:
    rows = [
        (metric.name, f"{metric.value:.4f}" if metric.kind == "norm" else _in_percent(metric))
        for metric in _of(result, "auc", "eer", "xnorm")
        if metric.kind != "norm" or metric.value is not None
    ]
    return Table(("figure", "value"), rows)


def _in_percent(metric: Metric) -> str:
    return f"{percent(metric.value)} %"


def _of(result: Result, *figures: str) -> list[Metric]:
    return [metric for metric in result.metrics if metric.figure in figures]
