"""Records of schema 1, brought to schema 2 while they are read.

Schema 1 did not declare what a figure is, so its name is taken apart here, and nowhere else. It
also had two keys for one thing (``same`` and ``genuine``) and kept thresholds of pairs as squared
distances; schema 2 has similarities, ``1 - distance / 2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COUNTS = {"same": "genuine", "different": "impostors"}
_SHARES = {
    "tar": ("true_accepts", "genuine"),
    "accuracy": ("correct", "pairs"),
    "tpir": ("true_positives", "mated"),
    "rank": ("hits", "mated"),
    "val": ("true_accepts", "genuine"),
}
_KINDS = {"auc": "area", "ap": "area", "xnorm": "norm"}
_NO_FLIP = "no-flip"
_CARRIED = "@baseline-threshold-of-"
_HEADLINES = (
    *("accuracy/insightface", "accuracy/exact"),
    *("tar@far=1e-04", "tar@far=1e-03", "tar@far=1e-02"),
    "ap/hard",
)


def result(values: Any) -> Any:
    """Return a result's values as schema 2 has them; those of schema 2 as they are."""
    if not isinstance(values, Mapping) or not (_is_1(values) or "protocol" in values):
        return values
    found = {name: value for name, value in values.items() if name != "protocol"}
    found["schema_version"] = 2
    if "protocol" in values:
        found["task"] = str(values["protocol"]).lower()
    metrics = values.get("metrics")
    if isinstance(metrics, list | tuple):
        found["metrics"] = _headlined(_viewed([metric(one) for one in metrics], values))
    return found


def _is_1(values: Mapping[str, Any]) -> bool:
    return values.get("schema_version") == 1


def metric(values: Any) -> Any:
    """Return a metric's values as schema 2 has them; those of schema 2 as they are."""
    if not isinstance(values, Mapping) or "figure" in values or "name" not in values:
        return values
    name = str(values["name"])
    head, *rest = name.split("/")
    figure = "rank" if head.startswith("rank-") else head.partition("@")[0]
    counts = dataset_counts(values.get("counts", {}))
    found: dict[str, Any] = {
        **values,
        "figure": figure,
        "kind": _KINDS.get(figure, "rate"),
        "direction": {"eer": "lower", "xnorm": None}.get(figure, "higher"),
        "counts": counts,
        "at": _places(figure, values.get("at", {})),
        "series": _series(values.get("series", {})),
    }
    share = _SHARES.get(figure)
    if share and isinstance(counts, Mapping) and set(share) <= set(counts):
        found["share"] = share
    if rest and rest[-1] == _NO_FLIP:
        found["view"] = "no flip"
        rest = rest[:-1]
    if figure in {"ap", "recall", "tpir"} and rest:
        found["subset"] = rest[0]
        part, equals, value = "/".join(rest[1:]).partition("=")
        found["part"] = {part: value} if equals else {}
    return found


def change(values: Any) -> Any:
    """Return a change's values as schema 2 has them; those of schema 2 as they are."""
    if not isinstance(values, Mapping) or "figure" in values:
        return values
    told = metric(values)
    names = ("figure", "kind", "part", "view", "threshold_of")
    figure, _, point = str(values.get("name", "")).partition(_CARRIED)
    if point:
        told["threshold_of"] = point
        told["kind"] = "small rate" if figure == "far" else "rate"
    return {**values, **{name: told[name] for name in names if name in told}}


def task_named(values: Any) -> Any:
    """Return a record's values with the task's name in place of the protocol's: ``IJBC``."""
    if not isinstance(values, Mapping) or "protocol" not in values:
        return values
    rest = {name: value for name, value in values.items() if name != "protocol"}
    return {"task": str(values["protocol"]).lower(), **rest}


def dataset(values: Any) -> Any:
    """Return a data set's values with the counts' names of schema 2."""
    if not isinstance(values, Mapping) or not _COUNTS.keys() & set(values.get("counts") or ()):
        return values
    return {**values, "counts": dataset_counts(values["counts"])}


def dataset_counts(counts: Any) -> Any:
    """Return counts under the names of schema 2."""
    if not isinstance(counts, Mapping):
        return counts
    return {_COUNTS.get(name, name): count for name, count in counts.items()}


def _places(figure: str, at: Any) -> Any:
    if not isinstance(at, Mapping):
        return at
    found = dict(at)
    if "threshold" in found and (figure == "accuracy" or "cosine_threshold" in found):
        found["distance"] = found.pop("threshold")
    if "cosine_threshold" in found:
        found["similarity"] = found.pop("cosine_threshold")
    if "threshold" in found:
        found["similarity"] = found.pop("threshold")
    for name in ("far", "fpir"):
        if name in found and figure != "eer":
            found["achieved"] = found.pop(name)
    return found


def _series(series: Any) -> Any:
    if not isinstance(series, Mapping):
        return series
    return {
        "fold_distance" if name == "fold_threshold" else name: row for name, row in series.items()
    }


def _viewed(metrics: list[Any], values: Mapping[str, Any]) -> list[Any]:
    """Name the view of figures that came with and without mirrored images: those of pairs."""
    if not any(isinstance(one, Mapping) and one.get("figure") == "accuracy" for one in metrics):
        return metrics
    settings = values.get("settings")
    flip = isinstance(settings, Mapping) and settings.get("flip") == "sum"
    view = "flip" if flip else "no flip"
    return [{"view": view, **one} if isinstance(one, Mapping) else one for one in metrics]


def _headlined(metrics: list[Any]) -> list[Any]:
    """Mark the figure to look at first: of those that are usually published, one with enough."""
    named = {one["name"]: one for one in metrics if isinstance(one, Mapping) and "name" in one}
    known = [name for name in _HEADLINES if name in named]
    few = "too_few_false_accepts"
    settled = [name for name in known if few not in (named[name].get("flags") or ())]
    chosen = next(iter(settled or known or named), None)
    return [
        {**one, "headline": True} if isinstance(one, Mapping) and one.get("name") == chosen else one
        for one in metrics
    ]
