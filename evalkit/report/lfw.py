"""The tables at the end of ``evalkit lfw``."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.core.results import Metric, Result
from evalkit.report.common import foot, interval, model_line, percent, stage_table, threshold
from evalkit.report.table import text_table

_RATES = frozenset({"val", "tar", "auc", "eer"})
_FEW = "under 30 false accepts expected at that FAR"


def describe(result: Result) -> str:
    """Lay one set's result out for the terminal."""
    counts = result.dataset.counts
    lines = [
        f"{result.dataset.name}: {counts['pairs']:,} pairs ({counts['genuine']:,} genuine, "
        f"{counts['impostors']:,} impostors), sha256 {result.dataset.sha256[:12]}",
        model_line(result),
        f"ten folds, {result.settings['folds']}; intervals are pair-level",
    ]
    if result.status == "partial":
        lines.insert(1, "PARTIAL: a quick look at some pairs; no gate accepts it")
    tables = [_accuracy_table(result), _rate_table(result), _scalars(result)]
    return "\n\n".join(["\n".join(lines), *tables, stage_table(result), foot(result)])


def describe_all(results: Sequence[Result]) -> str:
    """Lay the results of several sets out as one table of accuracies and one of rates."""
    rows = []
    for result in results:
        for metric in result.metrics:
            if metric.figure == "accuracy":
                rows.append(
                    [
                        result.dataset.name,
                        metric.name.removeprefix("accuracy/"),
                        *_accuracy_cells(metric),
                        f"{result.dataset.counts['pairs']:,}",
                        str(len(result.failures_to_enrol)),
                    ]
                )
    header = ["set", "rule", *_ACCURACY, "pairs", "failed"]
    tables = [text_table(header, rows, left=2), _rates_of_all(results)]
    return "\n\n".join([model_line(results[0]), *tables])


def _rates_of_all(results: Sequence[Result]) -> str:
    """Lay out each set's rates, with mirrored images and without."""
    names: dict[str, None] = {}
    found = []
    for result in results:
        for mark, flip in (("", result.settings["flip"]), ("/no-flip", "none")):
            held = {
                metric.name.removesuffix(mark): metric
                for metric in result.metrics
                if metric.figure in _RATES and metric.name.endswith("/no-flip") == bool(mark)
            }
            if held:
                names |= dict.fromkeys(held)
                found.append((result.dataset.name, flip, held))
    rows = [[name, flip, *(_rate(held[rate]) for rate in names)] for name, flip, held in found]
    table = text_table(["set", "flip", *(f"{name} %" for name in names)], rows, left=2)
    few = any(_is_few(metric) for _, _, held in found for metric in held.values())
    return table + (f"\n*: {_FEW}" if few else "")


def _rate(metric: Metric) -> str:
    return percent(metric.value) + ("*" if _is_few(metric) else "")


def _is_few(metric: Metric) -> bool:
    return "too_few_false_accepts" in metric.flags


_ACCURACY = ["accuracy %", "± std", "95 % pair-level", "threshold", "cosine"]


def _accuracy_cells(metric: Metric) -> list[str]:
    spread = metric.at.get("population_std", metric.at.get("standard_error"))
    return [
        _three(metric.value),
        _three(spread),
        interval(metric),
        threshold(metric.at["distance"], 3),
        threshold(metric.at["similarity"], 3),
    ]


def _accuracy_table(result: Result) -> str:
    rows = [
        [metric.name.removeprefix("accuracy/"), *_accuracy_cells(metric)]
        for metric in result.metrics
        if metric.figure == "accuracy"
    ]
    return text_table(["rule", *_ACCURACY], rows)


def _rate_table(result: Result) -> str:
    rows = [
        [
            metric.name,
            percent(metric.value),
            f"{metric.at['achieved']:.2e}",
            f"{metric.counts['true_accepts']:,}/{metric.counts['genuine']:,}",
            f"{metric.counts['false_accepts']:,}/{metric.counts['impostors']:,}",
            "few" if _is_few(metric) else "",
        ]
        for metric in result.metrics
        if metric.figure in {"val", "tar"}
    ]
    if not rows:
        return ""
    table = text_table(["rate", "%", "achieved FAR", "accepted", "false accepts", ""], rows)
    few = any(row[-1] for row in rows)
    return table + (f"\nfew: {_FEW}" if few else "")


def _scalars(result: Result) -> str:
    rows = []
    for metric in result.metrics:
        if metric.figure in {"auc", "eer"}:
            rows.append([metric.name, f"{percent(metric.value)} %"])
        elif metric.kind == "norm" and metric.value is not None:
            rows.append([metric.name, f"{metric.value:.4f}"])
    return text_table(["figure", "value"], rows)


def _three(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3f}"
