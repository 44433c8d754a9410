"""The tables at the end of ``evalkit widerface``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from evalkit.core.results import Metric, Result
from evalkit.report.common import foot, model_line, stage_table
from evalkit.report.table import text_table
from evalkit.tasks.tables import interval, percent
from evalkit.tasks.widerface.evaluation import FEW_FACES, TOO_FEW

_WORST_EVENTS = 8
_COUNTS = ("recall %", "recalled", "proposals", "")
_SETTINGS: Final = {
    "rule": "rule {}",
    "iou": "IoU >= {}",
    "steps": "{} score steps",
    "normalisation": "scores normalised by {}",
    "sizing": "sizing {}",
    "score_threshold": "score >= {}",
    "nms_threshold": "NMS {}",
}


def describe(result: Result) -> str:
    """Lay a result out for the terminal."""
    parts = [
        _head(result),
        _subset_table(result),
        _height_table(result),
        _event_table(result),
        stage_table(result) if result.stages else "",
        foot(result),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(result: Result) -> str:
    counts = dict(result.dataset.counts)
    images = f"{counts.pop('images'):,} images; " if "images" in counts else ""
    faces = ", ".join(f"{count:,} {subset}" for subset, count in counts.items())
    settings = [
        text.format(result.settings[name])
        for name, text in _SETTINGS.items()
        if result.settings.get(name) is not None
    ]
    lines = [f"{result.dataset.name}: {images}faces: {faces}", model_line(result)]
    if settings:
        lines.append("; ".join(settings))
    if result.status == "partial":
        lost = result.settings.get("images_without_predictions")
        why = "a quick look at some images"
        if lost:
            why = f"prediction files missing or of no use: {lost:,}"
        lines.insert(1, f"PARTIAL: {why}; no gate accepts it")
    return "\n".join(lines)


def _subset_table(result: Result) -> str:
    metrics = [metric for metric in result.metrics if metric.figure == "ap" and not metric.part]
    rows = [
        [
            metric.subset,
            percent(metric.value),
            interval(metric),
            *_counts(metric),
        ]
        for metric in metrics
    ]
    few = f"; few: fewer than {FEW_FACES} faces" if any(map(_few, result.metrics)) else ""
    header = ["subset", "AP %", "95 %", *_COUNTS]
    return text_table(header, rows) + f"\nrecall and proposals: at the lowest score of the set{few}"


def _height_table(result: Result) -> str:
    """AP and recall by the height of the face in pixels, in each subset that has them."""
    rows = [
        [subset, band, percent(metric.value), *_counts(metric)]
        for subset, band, metric in _parts(result, "height")
    ]
    header = ["subset", "height px", "AP %", *_COUNTS]
    return text_table(header, rows, left=2) if rows else ""


def _event_table(result: Result) -> str:
    """Return the events of lowest AP in the subset that keeps most faces."""
    parts = _parts(result, "event")
    if not parts:
        return ""
    faces: Counter[str] = Counter()
    for of, _, metric in parts:
        faces[of] += metric.counts["faces"]
    subset = faces.most_common(1)[0][0]
    events = [(event, metric) for of, event, metric in parts if of == subset]
    events.sort(key=lambda entry: entry[1].value or 0.0)
    rows = [
        [event, percent(metric.value), *_counts(metric)] for event, metric in events[:_WORST_EVENTS]
    ]
    table = text_table(["event", "AP %", *_COUNTS], rows)
    return f"events of lowest AP in {subset}, {len(rows)} of {len(events)}\n{table}"


def _parts(result: Result, kind: str) -> Sequence[tuple[str, str, Metric]]:
    """Subset, name and AP of each band or event that has one."""
    parts = []
    for metric in result.metrics:
        if metric.figure == "ap" and kind in metric.part and metric.value is not None:
            parts.append((metric.subset, metric.part[kind], metric))
    return parts


def _counts(metric: Metric) -> list[str]:
    recalled, faces = metric.counts["recalled"], metric.counts["faces"]
    return [
        percent(recalled / faces if faces else None),
        f"{recalled:,}/{faces:,}",
        f"{metric.counts['proposals']:,}",
        "few" if _few(metric) else "",
    ]


def _few(metric: Metric) -> bool:
    return TOO_FEW in metric.flags
