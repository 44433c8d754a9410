"""The tables of a detector's result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from evalkit.core.results import Metric, Result
from evalkit.tasks.tables import Summary, Table, few, interval, percent, ratio
from evalkit.tasks.widerface.figures import FEW_FACES

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


def summary(result: Result) -> Summary:
    """Lay a result out."""
    counts = dict(result.dataset.counts)
    images = f"{counts.pop('images'):,} images; " if "images" in counts else ""
    faces = ", ".join(f"{count:,} {subset}" for subset, count in counts.items())
    rules = [
        text.format(result.settings[name])
        for name, text in _SETTINGS.items()
        if result.settings.get(name) is not None
    ]
    lost = result.settings.get("images_without_predictions")
    why = f"prediction files missing or of no use: {lost:,}" if lost else ""
    return Summary(
        dataset=f"{result.dataset.name}: {images}faces: {faces}",
        rules="; ".join(rules),
        partial=why or "a quick look at some images",
        tables=(_subset_table(result), _height_table(result), _event_table(result)),
    )


def _subset_table(result: Result) -> Table:
    rows = [
        (metric.subset, percent(metric.value), interval(metric), *_counts(metric))
        for metric in result.metrics
        if metric.figure == "ap" and not metric.part
    ]
    note = "recall and proposals: at the lowest score of the set"
    if any(map(few, result.metrics)):
        note += f"; few: fewer than {FEW_FACES} faces"
    return Table(("subset", "AP %", "95 %", *_COUNTS), rows, notes=(note,))


def _height_table(result: Result) -> Table:
    """AP and recall by the height of the face in pixels, in each subset that has them."""
    rows = [
        (metric.subset, metric.part["height"], percent(metric.value), *_counts(metric))
        for metric in _parts(result, "height")
    ]
    return Table(("subset", "height px", "AP %", *_COUNTS), rows, left=2)


def _event_table(result: Result) -> Table:
    """Return the events of lowest AP in the subset that keeps most faces."""
    parts = _parts(result, "event")
    faces: Counter[str] = Counter()
    for metric in parts:
        faces[metric.subset] += metric.counts["faces"]
    subset = max(faces, key=lambda name: faces[name], default="")
    events = [metric for metric in parts if metric.subset == subset]
    events.sort(key=lambda metric: metric.value or 0.0)
    rows = [
        (metric.part["event"], percent(metric.value), *_counts(metric))
        for metric in events[:_WORST_EVENTS]
    ]
    title = f"events of lowest AP in {subset}, {len(rows)} of {len(events)}"
    return Table(("event", "AP %", *_COUNTS), rows, title=title)


def _parts(result: Result, kind: str) -> Sequence[Metric]:
    """Return the AP of each band or event that has one."""
    return [
        metric
        for metric in result.metrics
        if metric.figure == "ap" and kind in metric.part and metric.value is not None
    ]


def _counts(metric: Metric) -> tuple[str, ...]:
    recalled, faces = metric.counts["recalled"], metric.counts["faces"]
    return (
        percent(recalled / faces if faces else None),
        ratio(metric, "recalled", "faces"),
        f"{metric.counts['proposals']:,}",
        few(metric),
    )
