"""How far the embeddings of two runs lie apart, out of their outputs stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evalkit.core.errors import InputError
from evalkit.core.results import READY_MADE, Result
from evalkit.core.store import Store
from evalkit.stats.drift import Drift, drift, joined


def stores_of(before: Result, after: Result) -> tuple[Store, Store]:
    """Open the outputs stores of two runs.

    Raises
    ------
    evalkit.core.errors.InputError
        One is gone or never was, or they are of different data.
    """
    first, second = store_of(before), store_of(after)
    if first.key["data"] != second.key["data"] or len(first.starts) != len(second.starts):
        raise InputError("the two outputs stores are of different data")
    return first, second


def store_of(result: Result) -> Store:
    """Open the outputs store of a run.

    Raises
    ------
    evalkit.core.errors.InputError
        It is gone or never was.
    """
    if result.store is None and result.ran.backend == READY_MADE:
        raise InputError(f"{result.model.name} was computed elsewhere and has no outputs store")
    if result.store is None:
        raise InputError(
            f"a baseline keeps no outputs store of {result.model.name}; compare with the result "
            "that it was made from"
        )
    return Store.open(Path(result.store))


def stored_drift(first: Store, second: Store, field: str) -> Drift:
    """Compare the embeddings of two stores, image by image.

    Raises
    ------
    evalkit.core.errors.InputError
        They are of different images or different models.
    """
    parts = []
    for (_, old), (_, new) in zip(first.shards(), second.shards(), strict=True):
        if not np.array_equal(old.digests, new.digests):
            raise InputError("the images changed between the two runs")
        if old.outputs[field].shape != new.outputs[field].shape:
            raise InputError(
                f"embeddings have {old.outputs[field].shape[1]} and {new.outputs[field].shape[1]} "
                "elements: these are different models"
            )
        parts.append(drift(old.outputs[field], new.outputs[field]))
    return joined(parts)
