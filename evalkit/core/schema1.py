"""Records of schema 1, brought to schema 2 while they are read.

Schema 1 did not declare what a figure is, so its name is taken apart here, and nowhere else. It
also had two keys for one thing (``same`` and ``genuine``) and kept thresholds of pairs as squared
distances; schema 2 has similarities, ``1 - distance / 2``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """Return the values of a result of schema 1 as schema 2 has them; other values as they are."""
    if not _is_1(values):
        return values
    now = {**_within(task_named(values), "dataset", dataset), "schema_version": 2}
    metrics = values.get("metrics")
    if isinstance(metrics, list | tuple):
        now["metrics"] = _headlined(_viewed([metric(one) for one in metrics], values))
    return now


def signoff(values: Any) -> Any:
    """Return the values of a sign-off's record of schema 1 as schema 2 has them."""
    if not _is_1(values):
        return values
    now = _within(values, "cells", lambda cells: _each(cells, _cell))
    now = _within(now, "protocols", lambda rows: _each(rows, _protocol))
    return {**now, "schema_version": 2}


def _is_1(values: Any) -> bool:
    """Whether a file's values are of schema 1; true is no version, although it equals 1."""
    version = values.get("schema_version") if isinstance(values, Mapping) else None
    return type(version) is int and version == 1


def _protocol(row: Any) -> Any:
    return _within(row, "dataset", dataset)


def _cell(cell: Any) -> Any:
    cell = _within(cell, "run", lambda run: _within(run, "metrics", lambda m: _each(m, metric)))
    return _within(
        cell, "comparison", lambda both: _within(both, "metrics", lambda m: _each(m, change))
    )


def _within(values: Any, name: str, now: Callable[[Any], Any]) -> Any:
    """Return a mapping with one of its values brought to schema 2."""
    if not isinstance(values, Mapping) or name not in values:
        return values
    return {**values, name: now(values[name])}


def _each(values: Any, now: Callable[[Any], Any]) -> Any:
    return [now(one) for one in values] if isinstance(values, list | tuple) else values


def metric(values: Any) -> Any:
    """Return a metric's values as schema 2 has them; values without a name as they are."""
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        return values
    name = values["name"]
    head, *rest = name.split("/")
    figure = "rank" if head.startswith("rank-") else head.partition("@")[0]
    counts = dataset_counts(values.get("counts", {}))
    now: dict[str, Any] = {
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
        now["share"] = share
    if rest and rest[-1] == _NO_FLIP:
        now["view"] = "no flip"
        rest = rest[:-1]
    if figure in {"ap", "recall", "tpir"} and rest:
        now["subset"] = rest[0]
        part, equals, value = "/".join(rest[1:]).partition("=")
        now["part"] = {part: value} if equals else {}
    return now


def change(values: Any) -> Any:
    """Return a change's values as schema 2 has them; values without a name as they are."""
    now = metric(values)
    if now is values:
        return values
    names = ("figure", "kind", "part", "view", "threshold_of")
    figure, _, point = values["name"].partition(_CARRIED)
    if point:
        now["threshold_of"] = point
        now["kind"] = "small rate" if figure == "far" else "rate"
    return {**values, **{name: now[name] for name in names if name in now}}


def task_named(values: Any) -> Any:
    """Return a record's values with the task's name in place of the protocol's: ``IJBC``."""
    if not isinstance(values, Mapping) or "protocol" not in values:
        return values
    rest = {name: value for name, value in values.items() if name != "protocol"}
    return {"task": str(values["protocol"]).lower(), **rest}


def dataset(values: Any) -> Any:
    """Return a data set's values with the counts' names of schema 2."""
    return _within(values, "counts", dataset_counts)


def dataset_counts(counts: Any) -> Any:
    """Return counts under the names of schema 2."""
    if not isinstance(counts, Mapping):
        return counts
    return {_COUNTS.get(name, name): count for name, count in counts.items()}


def _places(figure: str, at: Any) -> Any:
    if not isinstance(at, Mapping):
        return at
    places = dict(at)
    if "threshold" in places and (figure == "accuracy" or "cosine_threshold" in places):
        places["distance"] = places.pop("threshold")
    if "cosine_threshold" in places:
        places["similarity"] = places.pop("cosine_threshold")
    if "threshold" in places:
        places["similarity"] = places.pop("threshold")
    for name in ("far", "fpir"):
        if name in places and figure != "eer":
            places["achieved"] = places.pop(name)
    return places


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
    by_name = {
        one["name"]: one
        for one in metrics
        if isinstance(one, Mapping) and isinstance(one.get("name"), str)
    }
    usual = [name for name in _HEADLINES if name in by_name]
    enough = [name for name in usual if not _few(by_name[name].get("flags"))]
    first = next(iter(enough or usual or by_name), None)
    return [
        {**one, "headline": True} if isinstance(one, Mapping) and one.get("name") == first else one
        for one in metrics
    ]


def _few(flags: Any) -> bool:
    return isinstance(flags, list | tuple) and "too_few_false_accepts" in flags
